"""Ends a program from outside, once it has trained enough."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.record.limit import MAX_SECONDS, MAX_STEPS, Limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.watch.options import ObserverOptions

GRACE_STEPS = 2
STOP_FILE = "stop-after-step"
MIN_BY_HAND = 16
"""Fewer updates may be an inner loop before an optimizer's first step."""
MAX_ACCUMULATED = 256
"""Gradients without any update, after which the time is counted although no step was seen."""


class TrainingStopped(SystemExit):
    """Leaves the optimizer's step once the limit is reached, and ends a script with exit code 0.

    No `Exception`, so that `except Exception` lets it pass; a `SystemExit`, so that the interpreter, workers
    and launchers take it for a regular end.
    """

    def __init__(self, reason: str, owner: object) -> None:
        super().__init__(0)
        self.reason = reason
        self.owner = owner

    def __str__(self) -> str:
        return self.reason


class StepLimit:
    """Knows when a program has trained enough, and makes it stop: frameworks in their own way, loops by raising."""

    def __init__(self, options: ObserverOptions, owner: object, folder: Path | None = None) -> None:
        self.reason: str | None = None
        self.reached: Limit | None = None
        self._options = options
        self._owner = owner
        self._folder = folder
        self._first_s: float | None = None
        self._asked_at: int | None = None

    def check(self, num_steps: int) -> None:
        """Stops the program when `num_steps` steps are enough.

        Raises:
            TrainingStopped: They are, and no framework that could be asked to stop is running them.
        """
        if self.reason is None:
            self._look(num_steps)
        if self.reason is None:
            return
        if self._asked_at is None and ask_framework_to_stop():
            self._asked_at = num_steps
        if self._asked_at is None or num_steps >= self._asked_at + GRACE_STEPS:
            raise TrainingStopped(self.reason, self._owner)

    @property
    def is_set(self) -> bool:
        """Whether there is a limit at all."""
        return self._options.max_steps is not None or self._options.max_seconds is not None

    def check_by_hand(self, num_updates: int, num_gradients: int) -> None:
        """Stops a program that no optimizer steps in, when `num_updates` updates made by hand are enough.

        Raises:
            TrainingStopped: They are; or the time is over, which runs from the first update that was seen, or
                from the gradient after which no accumulation is to be expected.
        """
        limit = self._options.max_steps
        told = f"{_count(num_updates, 'update')} of the parameters by hand"
        if self.reason is None and limit is not None and num_updates >= max(limit, MIN_BY_HAND):
            self._reach(Limit(MAX_STEPS, limit, num_updates), told, "; no optimizer stepped")
        elif self.reason is None and (num_updates or num_gradients >= MAX_ACCUMULATED):
            told = told if num_updates else f"{_count(num_gradients, 'gradient computation')}"
            self._look_at_time(num_gradients, num_updates, told)
        if self.reason is not None:
            raise TrainingStopped(self.reason, self._owner)

    def _look(self, num_steps: int) -> None:
        limit, told = self._options.max_steps, f"{num_steps} steps"
        if limit is not None and num_steps >= limit:
            self._reach(Limit(MAX_STEPS, limit, num_steps), told)
        else:
            self._look_at_time(num_steps, num_steps, told)

    def _look_at_time(self, position: int, num_steps: int, told: str) -> None:
        """Whether the time is over at a position that all ranks count alike."""
        seconds = self._options.max_seconds
        if seconds is None:
            return
        now_s = clock.monotonic_s()
        if self._first_s is None:
            self._first_s = now_s
        is_over = now_s - self._first_s >= seconds
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if world_size > 1 and self._folder is not None:
            is_over = self._agree(position, is_over=is_over)
        if is_over:
            self._reach(Limit(MAX_SECONDS, seconds, num_steps), told)

    def _reach(self, limit: Limit, told: str, more: str = "") -> None:
        self.reached = limit
        self.reason = f"ended from outside after {told} ({limit}{more})"

    def _agree(self, num_steps: int, *, is_over: bool) -> bool:
        """Whether all ranks stop at this step.

        Rank 0 names the step after its own next one. The others can't be past it, as every backward waits for
        rank 0, and by then they see the file.
        """
        assert self._folder is not None  # noqa: S101  asked only with a folder
        agreed = self._folder / STOP_FILE
        with contextlib.suppress(OSError, ValueError):
            if is_over and os.environ.get("RANK") == "0" and not agreed.exists():
                draft = agreed.with_suffix(".draft")
                draft.write_text(str(num_steps + 1), encoding="ascii")
                draft.replace(agreed)
            return num_steps >= int(agreed.read_text(encoding="ascii"))
        return False


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ask_framework_to_stop() -> bool:
    """Asks a trainer that is running on this stack to stop after this step; False when there is none.

    Lightning's Trainer is told through `should_stop`, that of Hugging Face through its control object.
    """
    for trainer in _find_trainers():
        if hasattr(trainer, "should_stop") and hasattr(trainer, "fit_loop"):
            trainer.should_stop = True
            return True
        if hasattr(trainer, "control") and hasattr(trainer.control, "should_training_stop"):
            trainer.control.should_training_stop = True
            return True
    return False


def _find_trainers() -> Iterator[Any]:
    frame = sys._getframe()  # noqa: SLF001  the documented way to the stack
    while frame is not None:
        candidate = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        if any(kind.__name__ == "Trainer" for kind in type(candidate).__mro__):
            yield candidate
        frame = frame.f_back  # type: ignore[assignment]
