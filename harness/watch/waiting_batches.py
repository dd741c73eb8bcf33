"""Keeps copies of small batches until many can be looked at together.

Between two steps the program's own work pushes the watcher out of the processor's caches: batch by batch, looking
takes three times as long.
"""

from __future__ import annotations

from typing import Any

import torch

MAX_WAITING = 64
MAX_BATCH_BYTES = 16 * 2**10
"""Of a larger batch the copy costs more than the wait saves."""


class WaitingBatches:
    """Batches with what they belong to, in the order they were read."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, Any]] = []

    def add(self, owner: object, batch: object) -> bool:
        """Keeps a copy of a batch; False where it is large, or holds something else than plain tensors on the CPU."""
        copy = _copy_small(batch)
        if copy is None:
            return False
        self._entries.append((owner, copy))
        return True

    @property
    def is_full(self) -> bool:
        """Whether it is time to look."""
        return len(self._entries) >= MAX_WAITING

    def take(self) -> list[tuple[Any, Any]]:
        """All there is; none of it waits any longer."""
        entries, self._entries = self._entries, []
        return entries


def _copy_small(batch: Any) -> Any:
    kind = type(batch)
    if kind is torch.Tensor:
        return _copy_tensor(batch, MAX_BATCH_BYTES)
    if kind is dict:
        parts = _copy_small([*batch.values()])
        return None if parts is None else dict(zip(batch, parts, strict=True))
    if kind is not list and kind is not tuple:
        return None
    num_bytes = MAX_BATCH_BYTES
    copies = []
    for part in batch:
        copy = _copy_tensor(part, num_bytes)
        if copy is None:
            return None
        num_bytes -= copy.nbytes
        copies.append(copy)
    return copies


def _copy_tensor(value: object, max_bytes: int) -> torch.Tensor | None:
    is_plain = type(value) is torch.Tensor and value.layout is torch.strided and value.is_cpu
    if not is_plain or value.requires_grad or value.nbytes > max_bytes:  # type: ignore[attr-defined]
        return None
    return value.clone()  # type: ignore[attr-defined,no-any-return]
