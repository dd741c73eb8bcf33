"""Splits the time of a step by phase, each moment counted once."""

from __future__ import annotations

from harness import clock
from harness.record.observation import PHASES

DATA, FORWARD, BACKWARD, OPTIMIZER, OTHER = range(len(PHASES))


class PhaseClock:
    """Gives every stretch of time to the phase that was current; standing still until the first switch."""

    def __init__(self) -> None:
        self.current = OTHER
        self._times_s = [0.0] * len(PHASES)
        self._last_s: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether anything has been seen yet."""
        return self._last_s is not None

    def switch(self, phase: int) -> int:
        """Ends the current phase now and begins another; returns the one that ended."""
        now_s = clock.monotonic_s()
        ended = self.current
        if self._last_s is not None:
            self._times_s[ended] += now_s - self._last_s
        self._last_s = now_s
        self.current = phase
        return ended

    def rename(self, phase: int) -> None:
        """Gives the stretch that is running to another phase, from its start on."""
        self.current = phase

    def cut(self) -> list[float]:
        """The seconds per phase since the last cut; the current phase goes on."""
        self.switch(self.current)
        times_s, self._times_s = self._times_s, [0.0] * len(PHASES)
        return times_s
