"""Reads numbers off tensors without making the device wait: at once on the CPU, later elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

type_of_number = (bool, int, float)


class Later:
    """A number still on its device; `value` is there once the queue has brought it over."""

    __slots__ = ("tensor", "value")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor: torch.Tensor | None = tensor
        self.value: float | None = None


Reading = float | Later | None


class ReadingQueue:
    """Brings numbers over in batches: copied to pinned memory, and read once the copy has long been done."""

    def __init__(self) -> None:
        self.num_later = 0
        self._waiting: list[Later] = []
        self._under_way: list[tuple[list[Later], torch.Tensor, Any]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no number is on its way."""
        return not self._waiting and not self._under_way

    def read(self, value: object) -> Reading:
        """The number in a one-element tensor (or a plain one); None where there is no single number.

        A tensor off the CPU is copied on its device, because programs and graphs reuse their buffers.
        """
        if isinstance(value, type_of_number):
            return float(value)
        if not isinstance(value, torch.Tensor):
            return None
        if type(value) is not torch.Tensor:
            value = cast("torch.Tensor", getattr(value, "_local_tensor", value))
        if value.numel() != 1:
            return None
        if value.is_cpu:
            return float(value.item())
        if value.device.type == "meta" or (value.is_cuda and torch.cuda.is_current_stream_capturing()):
            return None
        self.num_later += 1
        later = Later(value.detach().reshape(()).clone())
        self._waiting.append(later)
        return later

    def send(self) -> None:
        """Starts to bring over what waits, without waiting for it."""
        groups: dict[tuple[torch.device, torch.dtype], list[Later]] = {}
        for later in self._waiting:
            if later.tensor is not None:
                groups.setdefault((later.tensor.device, later.tensor.dtype), []).append(later)
        self._waiting = []
        for (device, _), laters in groups.items():
            together = torch.stack([later.tensor for later in laters if later.tensor is not None])
            for later in laters:
                later.tensor = None
            if device.type == "cuda":
                host = torch.empty(together.shape, dtype=together.dtype, pin_memory=True)
                host.copy_(together, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(device))
                self._under_way.append((laters, host, event))
            else:
                self._under_way.append((laters, together, None))

    def poll(self) -> None:
        """Moves on what is under way, without waiting; not while a graph is captured, which it would be part of."""
        if not self.is_empty and not (
            torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]
        ):
            self.send()
            self.collect(wait=False)

    def collect(self, *, wait: bool) -> None:
        """Reads what has arrived; with `wait`, all of it."""
        if wait:
            self.send()
        rest = []
        for laters, host, event in self._under_way:
            if event is not None and wait:
                event.synchronize()
            if event is None or event.query():
                for later, number in zip(laters, host.tolist(), strict=True):
                    later.value = float(number)
            else:
                rest.append((laters, host, event))
        self._under_way = rest


def is_known(readings: Iterable[Reading]) -> bool:
    """Whether all of these numbers have been brought over."""
    return all(not isinstance(reading, Later) or reading.value is not None for reading in readings)


def number_of(reading: Reading) -> float | None:
    """The number of a reading; None where it has none (yet)."""
    return reading.value if isinstance(reading, Later) else reading
