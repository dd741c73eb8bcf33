"""Splits the time of a step by phase as a CUDA device had it: an event at each switch, read when it has passed.

The host only hands work to a GPU and goes on, so its own clock says how long that took and not the work. Nothing
here waits for the device before the end of the run.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from harness.record.step_observation import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

MS = 1e-3
NO_PHASE = len(PHASES)
"""Of stretches in which the watcher itself gives the device work."""


class Event(Protocol):
    """A moment in the work of a device, as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Whether the device has passed it."""

    def synchronize(self) -> None:
        """Waits until it has."""

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this one to a later one; both have passed."""


class DeviceTimes:
    """The phases of one step, between events that the device may not have reached yet."""

    def __init__(
        self, marks: list[tuple[Event, int]], pool: list[Event], is_capturing: Callable[[], bool]
    ) -> None:
        self._marks = marks
        self._pool = pool
        self._is_capturing = is_capturing
        self._times_s: list[float] | None = None

    def is_known(self) -> bool:
        """Whether the device has passed the end of the step, or will never tell."""
        try:
            # To ask while a graph is being captured would end the capture.
            return not self._marks or (not self._is_capturing() and self._marks[-1][0].query())
        except RuntimeError:
            self._marks = []
            return True

    def wait(self) -> None:
        """Waits until it has."""
        if self._marks:
            self._marks[-1][0].synchronize()

    def read(self) -> list[float] | None:
        """Seconds by phase, once they are known; None where the device failed. Its events go back to the pool."""
        if not self._marks:
            return self._times_s
        times_s = [0.0] * (len(PHASES) + 1)
        for (start, phase), (end, _) in itertools.pairwise(self._marks):
            times_s[phase] += MS * start.elapsed_time(end)
        times_s.pop(NO_PHASE)
        # The last event is the first of the step after it.
        self._pool += [event for event, _ in self._marks[:-1]]
        self._marks, self._times_s = [], times_s
        return times_s


class DeviceClock:
    """Notes the switches of a `PhaseClock` in the stream of a device; steps it can't tell have no device times.

    Args:
        record: Puts an event into the stream, one of those given or, with None, a new one, and returns it.
        is_capturing: Whether a graph is being captured, which an event would become a part of.
    """

    def __init__(
        self, record: Callable[[Event | None], Event], is_capturing: Callable[[], bool] = lambda: False
    ) -> None:
        self._record = record
        self._is_capturing = is_capturing
        self._pool: list[Event] = []
        self._marks: list[tuple[Event, int]] = []
        self._is_whole = False
        self.error: Exception | None = None

    def note(self, phase: int) -> None:
        """Another phase begins with what the program gives the device next."""
        if self.error is not None:
            return
        try:
            if self._is_capturing():
                self._is_whole = False
                return
            self._marks.append((self._record(self._pool.pop() if self._pool else None), phase))
        except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
            self.error = error
            self._marks, self._is_whole = [], False

    def rename(self, phase: int) -> None:
        """Gives the stretch that is running to another phase."""
        if self._marks:
            self._marks[-1] = (self._marks[-1][0], phase)

    def take(self) -> DeviceTimes | None:
        """The phases up to the last switch; None for the first step and where a switch could not be noted."""
        marks, is_whole = self._marks, self._is_whole
        self._marks = marks[-1:]
        self._is_whole = bool(marks)
        return DeviceTimes(marks, self._pool, self._is_capturing) if is_whole and len(marks) > 1 else None

    def skip(self) -> None:
        """Gives the stretch that is running to no phase."""
        if self._marks:
            _, phase = self._marks.pop()
            self.note(phase)
            self._is_whole &= bool(self._marks)


def build_cuda_clock(device: torch.device) -> DeviceClock:
    """A clock of the current stream of a CUDA device."""

    def record(event: Event | None) -> Event:
        found: Any = event or torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        found.record(torch.cuda.current_stream(device))
        return cast("Event", found)

    return DeviceClock(record, torch.cuda.is_current_stream_capturing)
