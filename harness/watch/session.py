"""What the families of hooks of one observer share: its options, its clock, its steps, its record."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from harness.record.observation import RunObservation
from harness.watch.steps import StepLedger
from harness.watch.taps import TapSet
from harness.watch.timing import PhaseClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.observation import StepObservation
    from harness.watch.options import ObserverOptions
    from harness.watch.steps import OpenStep


class Session:
    """The state of one observation, while it runs."""

    def __init__(self, options: ObserverOptions, emit: Callable[[StepObservation, OpenStep], None]) -> None:
        self.options = options
        self.run = RunObservation()
        self.clock = PhaseClock()
        self.ledger = StepLedger(lambda step, row: self.attempt("record", emit, step, row))
        self.taps = TapSet()
        self.num_nested_backwards = 0
        self.has_scaled_gradients = False
        self.sees_forward = False
        self._thread: int | None = None

    @property
    def num_steps(self) -> int:
        """Steps closed so far, skipped ones among them."""
        return self.ledger.open.number

    def is_training_thread(self) -> bool:
        """Whether this is the thread that trains: the first that ran a backward or a step."""
        return self._thread is None or self._thread == threading.get_ident()

    def claim_thread(self) -> None:
        """Makes this thread the one that trains, if there is none yet."""
        if self._thread is None:
            self._thread = threading.get_ident()

    def add_blind_spot(self, text: str) -> None:
        """Notes, once, what could not be seen and why."""
        if text not in self.run.not_seen:
            self.run.not_seen.append(text)

    def attempt(self, family: str, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a part of the watcher; its own failure is noted and never reaches the program."""
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
            self.add_blind_spot(f"{family}: the watcher itself failed with {type(error).__name__}: {error}")
            return None
