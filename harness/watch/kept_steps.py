"""The steps that an observer keeps in memory."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.record.step_observation import StepObservation


class KeptSteps:
    """The first and the last steps of a run, up to a number."""

    def __init__(self, limit: int) -> None:
        self._first: list[StepObservation] = []
        self._last: collections.deque[StepObservation] = collections.deque(maxlen=max(1, limit // 2))
        self.num_dropped = 0

    def add(self, step: StepObservation) -> None:
        """Takes a step; one of the middle goes where there are too many."""
        maxlen = self._last.maxlen or 1
        if len(self._first) < maxlen:
            self._first.append(step)
            return
        self.num_dropped += len(self._last) == maxlen
        self._last.append(step)

    def list_steps(self) -> list[StepObservation]:
        """Those that were kept, in order."""
        return [*self._first, *self._last]
