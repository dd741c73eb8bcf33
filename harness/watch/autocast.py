"""Sees autocast being entered, and that it is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.session import Session


class AutocastHooks:
    """Listens to `torch.autocast.__enter__`, which the old device-specific names share."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def install(self) -> None:
        """Starts to listen."""
        self._session.taps.on_method(torch.autocast, "__enter__", self._around_enter)

    def _around_enter(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._session.attempt("autocast", self._count, args[0])
        return call(*args, **kwargs)

    def _count(self, autocast: Any) -> None:
        if autocast._enabled:  # noqa: SLF001  no public name
            name = _name(autocast.device, autocast.fast_dtype)
            counts = self._session.run.autocast
            counts[name] = counts.get(name, 0) + 1


def find_autocast() -> str | None:
    """The device and type of the autocast that is in force, such as "cpu bfloat16"; None without one."""
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            return _name(device, torch.get_autocast_dtype(device))
    return None


def _name(device: str, dtype: torch.dtype) -> str:
    return f"{device} {str(dtype).removeprefix('torch.')}"
