"""What the families of hooks of one observer share: its options, its clock, its steps, its record."""

from __future__ import annotations

import collections
import threading
import weakref
from typing import TYPE_CHECKING, Any

from harness.record.observation import RunObservation
from harness.watch.options import Depth
from harness.watch.provenance import find_folder
from harness.watch.steps import StepLedger
from harness.watch.taps import TapSet
from harness.watch.timing import PhaseClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from harness.record.observation import StepObservation
    from harness.watch.options import ObserverOptions
    from harness.watch.steps import OpenStep

    Event = tuple[Callable[[float, Any], None], float, Any]

MAX_EVALUATED = 16
CALLS_TOGETHER = 64
"""Steps that are gone through together: one by one, each with a cold cache, they take three times as long."""
EVERY_STEP = 0
NEVER = 2**62


class Session:
    """The state of one observation, while it runs.

    Hooks that are called in every step only note what happened, with the time and the handler that knows what it
    means: an event. The handlers go through the events of many steps together; before that, whoever asks for the
    ledger, the clock or the record has them go through what there is. So hooks never see what is not up to date,
    and handlers, which run later, keep what they need of these themselves.

    Attributes:
        note: Takes an event: its handler, the time in seconds, and what the handler is told.
        events: Those that wait.
        is_direct: Whether none does, and each is handled at once.
        stays_direct: Whether that is so to the end.
        next_stop: Number of the first step at whose end more is to be done than to count it.
        num_calls: Of optimizers, those of pending events among them.
        num_turns: Calls of optimizers and of backward: what is called between two of them belongs together.
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
        self.events: collections.deque[Event] = collections.deque()
        self.note: Callable[[Event], None] = self.handle
        self.is_direct = True
        self.stays_direct = is_prompt
        self.next_stop = EVERY_STEP
        self.num_calls = self.num_turns = 0
        self._settle_at = 0
        self._is_settling = False
        self._lock = threading.RLock()
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
        self.evaluated: list[weakref.ref[nn.Module]] | None = [] if options.depth is Depth.DEEP else None

    @property
    def run(self) -> RunObservation:
        """The record, up to date."""
        if self.events:
            self.settle()
        return self._run

    @property
    def clock(self) -> PhaseClock:
        """The clock of phases, up to date."""
        if self.events:
            self.settle()
        return self._clock

    @property
    def ledger(self) -> StepLedger:
        """The steps, up to date."""
        if self.events:
            self.settle()
        return self._ledger

    def handle(self, event: Event) -> None:
        """Handles an event at once."""
        if self.events:
            self.settle(in_any_thread=True)
        handler, at_s, told = event
        try:
            handler(at_s, told)
        except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
            self.note_failure("step", error)

    def settle(self, *, in_any_thread: bool = False) -> None:
        """Has all events gone through.

        Args:
            in_any_thread: Also where this is not the thread that trains, as it may have the program ended: for the
                end of a step, wherever it is.
        """
        if not (in_any_thread or self.is_training_thread()):
            return
        with self._lock:
            if self._is_settling:
                return
            self._is_settling = True
            start_s = self._clock.read_s()
            try:
                while self.events:
                    handler, at_s, told = self.events.popleft()
                    try:
                        handler(at_s, told)
                    except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                        self.note_failure("step", error)
            finally:
                self._is_settling = False
                # What the watcher does here is no one's time.
                self._clock.leave_out_since(start_s)
                self._plan_settling()

    def end_call(self, event: Event) -> None:
        """Takes the end of an optimizer's call, and has what waits handled where that is due."""
        self.num_calls += 1
        self.num_turns += 1
        self.note(event)
        if self.num_calls >= self._settle_at and self.events:
            self.settle(in_any_thread=True)

    @property
    def num_steps(self) -> int:
        """Steps closed so far, skipped ones among them."""
        return self.ledger.open.number

    def is_training_thread(self) -> bool:
        """Whether this is the thread that trains: the first that ran a backward or a step."""
        return self.thread is None or self.thread == threading.get_ident()

    def note_thread(self) -> None:
        """Makes this thread the one that trains, if there is none yet."""
        if self.thread is None:
            self.thread = threading.get_ident()
        elif self.thread != threading.get_ident():
            self.stay_direct()
            if self.events:
                self.settle(in_any_thread=True)

    def stay_direct(self) -> None:
        """Has events handled at once from here on: another thread takes part, or an order that is not the usual one."""
        self.stays_direct = self.is_direct = True
        self.note = self.handle

    def plan_stop(self, step: int, *, is_direct: bool) -> None:
        """Says at the end of which step more is to be done again, and whether events are handled at once till then."""
        self.next_stop = step
        self.is_direct = is_direct or self.stays_direct
        self.note = self.handle if self.is_direct else self.events.append
        self._plan_settling()

    def _plan_settling(self) -> None:
        """Has events wait for the call that may end the next step at whose end there is more to do."""
        num_left = self.next_stop - self._ledger.open.number + 1
        self._settle_at = self.num_calls + max(1, min(CALLS_TOGETHER, num_left))

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
