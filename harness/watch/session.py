"""What the families of hooks of one observer share: its options, its clock, its steps, its record."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from harness.record.observation import RunObservation
from harness.watch.compilation import count_graphs
from harness.watch.events import EventLog
from harness.watch.options import Depth
from harness.watch.provenance import find_folder
from harness.watch.steps import StepLedger
from harness.watch.taps import TapSet
from harness.watch.timing import PhaseClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from harness.record.step_observation import StepObservation
    from harness.watch.options import ObserverOptions
    from harness.watch.steps import OpenStep

MAX_EVALUATED = 16


class Session:
    """The state of one observation, while it runs.

    Its record, ledger and clock are up to date for whoever asks: what hooks have noted is gone through before.
    """

    def __init__(
        self,
        options: ObserverOptions,
        emit: Callable[[StepObservation, OpenStep], None],
        *,
        is_prompt: bool = False,
    ) -> None:
        self.options = options
        # The program may change to another folder.
        self.folder = find_folder()
        self._run = RunObservation()
        self._clock = PhaseClock()
        self._ledger = StepLedger(self._hand_on, is_prompt=is_prompt)
        self.events = EventLog(
            self._ledger,
            self._clock,
            self.note_failure,
            is_prompt=is_prompt,
        )
        self._emit = emit
        self.taps = TapSet()
        self.num_nested_backwards = 0
        self.has_scaled_gradients = False
        self.sees_forward = False
        self.waiting_optimizers: list[int] = []
        self.thread: int | None = None
        self.first_fingerprints: dict[int, str] = {}
        self.list_held: Callable[[], set[int]] = set
        self.called: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
        self.num_called = 0
        self.foreign_graphs = (0, 0)
        """Graphs and graph breaks that this process counts and that are not the training's."""
        self.evaluated: list[weakref.ref[nn.Module]] | None = [] if options.depth is Depth.DEEP else None

    @property
    def run(self) -> RunObservation:
        """The record."""
        if self.events.waiting or self.events.is_settling:
            self.settle()
        return self._run

    @property
    def clock(self) -> PhaseClock:
        """The clock of phases."""
        if self.events.waiting or self.events.is_settling:
            self.settle()
        return self._clock

    @property
    def ledger(self) -> StepLedger:
        """The steps."""
        if self.events.waiting or self.events.is_settling:
            self.settle()
        return self._ledger

    def settle(self) -> None:
        """Goes through what hooks have noted; handlers that ask have it as far as they are."""
        self.events.settle(is_own_time=self.is_training_thread())

    @property
    def num_steps(self) -> int:
        """Steps closed so far, skipped ones among them."""
        return self.ledger.open.number

    def is_training_thread(self) -> bool:
        """Whether this is the thread that trains: the first that ran a backward or a step."""
        return self.thread is None or self.thread == threading.get_ident()

    def claim_thread(self) -> None:
        """Makes this thread the one that trains, if there is none yet."""
        if self.thread is None:
            self.thread = threading.get_ident()

    def add_blind_spot(self, text: str) -> None:
        """Notes, once, what could not be seen and why."""
        if text not in self.run.not_seen:
            self.run.not_seen.append(text)

    def attempt(self, family: str, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a part of the watcher; its own failure is noted and never reaches the program."""
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
            self.note_failure(family, error)
            return None

    def leave_out_graphs(self, before: tuple[int, int]) -> None:
        """Has graphs and graph breaks since `before` not count as the training's."""
        graphs, breaks = count_graphs()
        left_out, breaks_left_out = self.foreign_graphs
        self.foreign_graphs = left_out + graphs - before[0], breaks_left_out + breaks - before[1]

    def find_position(self, model: nn.Module) -> int:
        """The position of a model among all that were called, also of those that are gone."""
        position = self.called.get(model)
        if position is None:
            position = self.called[model] = self.num_called
            self.num_called += 1
        return position

    def note_evaluated(self, module: nn.Module) -> None:
        """Remembers a model that was called in eval mode or without gradients; of many, the first ones."""
        if self.evaluated is None or any(reference() is module for reference in self.evaluated):
            return
        if len(self.evaluated) < MAX_EVALUATED:
            self.evaluated.append(weakref.ref(module))

    def _hand_on(self, step: StepObservation, row: OpenStep) -> None:
        try:
            self._emit(step, row)
        except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
            self.note_failure("record", error)

    def note_failure(self, family: str, error: Exception) -> None:
        """Notes that a part of the watcher itself failed."""
        self.add_blind_spot(f"{family}: the watcher itself failed with {type(error).__name__}: {error}")
