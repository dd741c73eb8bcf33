"""Splits the time of a step by phase, each moment counted once."""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING

from harness import clock
from harness.record.step_observation import PHASES
from harness.watch.device_clock import NO_PHASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.watch.device_clock import DeviceClock

DATA, FORWARD, BACKWARD, OPTIMIZER, OTHER = range(len(PHASES))


class PhaseClock:
    """Gives every stretch of time to the phase that was current; standing still until the first switch.

    Attributes:
        read_s: The clock itself: seconds, of which only differences mean anything.
        is_left_out: Whether what goes on is the watcher's, and no one's time.
        device: Notes the same switches where a GPU has them; None on the CPU.
    """

    def __init__(self) -> None:
        self.read_s = clock.monotonic_s
        self.is_left_out = False
        self.current = OTHER
        self._times_s = [0.0] * len(PHASES)
        self._last_s: float | None = None
        self._left_out: collections.deque[tuple[float, float]] = collections.deque()
        self.device: DeviceClock | None = None

    @property
    def is_running(self) -> bool:
        """Whether anything has been seen yet."""
        return self._last_s is not None

    def switch(self, phase: int, at_s: float | None = None) -> int:
        """Ends the current phase, now or at a time that was read, and begins another; returns the one that ended."""
        if at_s is None:
            at_s = self.read_s()
        ended = self.current
        if self._last_s is not None:
            while self._left_out and at_s >= self._left_out[0][0]:
                self._last_s += self._left_out.popleft()[1]
            self._times_s[ended] += at_s - self._last_s
        self._last_s = at_s
        self.current = phase
        if self.device is not None:
            self.device.note(phase)
        return ended

    def rename(self, phase: int) -> None:
        """Gives the stretch that is running to another phase, from its start on."""
        self.current = phase
        if self.device is not None:
            self.device.rename(phase)

    def take(self) -> list[float]:
        """The seconds per phase from the last take to the last switch."""
        times_s, self._times_s = self._times_s, [0.0] * len(PHASES)
        return times_s

    @contextlib.contextmanager
    def leave_out(self) -> Iterator[None]:
        """Gives the time spent inside to no phase, and all before it to the one that is running."""
        start_s, was_left_out, self.is_left_out = self.read_s(), self.is_left_out, True
        if self.device is not None:
            self.device.note(NO_PHASE)
        try:
            yield
        finally:
            self.is_left_out = was_left_out
            if self.device is not None:
                self.device.note(self.current)
            if self._last_s is not None:
                self._last_s += self.read_s() - start_s

    def leave_out_since(self, start_s: float) -> None:
        """Gives the time since then to no phase; what ends with a time that was read before keeps all of its own."""
        if self._last_s is not None:
            now_s = self.read_s()
            self._left_out.append((now_s, now_s - max(start_s, self._last_s)))

    def skip(self) -> None:
        """Gives the stretch that is running to no phase; the current one begins anew."""
        self._last_s = self.read_s()
        self._left_out.clear()
        if self.device is not None:
            self.device.skip()
