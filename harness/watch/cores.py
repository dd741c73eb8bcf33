"""Which processors a program runs on: the same ones in every launch, so that launches are alike."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet


def choose_cores(number: int) -> frozenset[int]:
    """The last processors that this process may use; none where the system does not let us choose."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(sorted(os.sched_getaffinity(0))[-number:])


@contextlib.contextmanager
def pinned(cores: AbstractSet[int]) -> Iterator[None]:
    """Has processes that this thread starts inside begin, and stay, on some processors; on none, as it is."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
