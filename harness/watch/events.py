"""What hooks of every step have noted, and when it is gone through.

Hooks only note what happened: an event, with its time and the handler that knows what it means. Among a step's own work
the processor's caches are cold, and code that runs there takes two to three times as long; so handlers go through the
events of many steps together, or as soon as someone wants to know. Whoever asks the session for its ledger, its clock
or its record has them do so. Handlers themselves, which run later, keep what they need of these.
"""

from __future__ import annotations

import collections
import math
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.steps import StepLedger
    from harness.watch.timing import PhaseClock

    Event = tuple[Callable[[float, Any], None], float, Any]
    """A handler, the time in seconds on the clock of phases, and what the handler is told."""

CALLS_TOGETHER = 64
PROMPT_CALLS = 64
LONGEST_WAIT_S = 0.1
"""Where a crash is to leave what came before it: so many calls are handled at once, and later ones
together with the first that ends after this time."""
EVERY_STEP = 0
NEVER = 2**62


class EventLog:
    """Events that wait, or that are handled at once.

    At once, while a step is looked at closely; and to the end where optimizers step inside a backward. Any thread may
    note events and have them gone through; the end of a step, which may end the program or open the next step, is
    always gone through by the thread that stepped.

    Args:
        ledger: The steps, which tell how far the training is.
        clock: The clock of phases.
        note_failure: Takes the name of a handler, and what it raised.
        is_prompt: Whether the record has to survive a crash: then nothing waits at first, and while steps go on,
            later nothing long.

    Attributes:
        note: Takes an event.
        waiting: Those that wait, in order.
        is_direct: Whether events are handled at once.
        is_settling: Whether events are being gone through.
        next_stop: Number of the first step at whose end more is to be done than to count it.
        num_calls: Optimizer calls that have ended.
        num_turns: Optimizer calls and backwards that have ended: what is called between two of them belongs together.
    """

    def __init__(
        self,
        ledger: StepLedger,
        clock: PhaseClock,
        note_failure: Callable[[str, Exception], None],
        *,
        is_prompt: bool,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._note_failure = note_failure
        self.waiting: collections.deque[Event] = collections.deque()
        self.note: Callable[[Event], None] = self._handle_at_once
        self.is_direct = True
        self._stays_direct = False
        self._num_prompt = PROMPT_CALLS if is_prompt else 0
        self._longest_wait_s = LONGEST_WAIT_S if is_prompt else math.inf
        self._settle_before_s = math.inf
        self.next_stop = EVERY_STEP
        self.num_calls = self.num_turns = 0
        self._settle_at = 0
        self.is_settling = False
        self._lock = threading.RLock()

    def end_call(self, event: Event) -> None:
        """Takes the end of an optimizer's call, and goes through what waits where that is due.

        Raises:
            TrainingStopped: The program is to be ended.
        """
        if self.num_calls + 1 < self._settle_at and event[1] < self._settle_before_s and not self.is_direct:
            # Noted before it is counted: what another thread that plans meanwhile counts is in a step, or waits.
            self.note(event)
            self.num_calls += 1
            self.num_turns += 1
            return
        # Another thread that asks meanwhile must not be the one that goes through the end of a step that is due.
        with self._lock:
            self.num_calls += 1
            self.num_turns += 1
            self.note(event)
            if self.waiting:
                self.settle()

    def settle(self, *, is_own_time: bool = True) -> None:
        """Goes through all that waits.

        Args:
            is_own_time: Whether the training waits for it: then it is no time of a step.
        """
        with self._lock:
            if self.is_settling:
                return
            self.is_settling = True
            start_s = self._clock.read_s()
            take = self.waiting.popleft
            try:
                while self.waiting:
                    # As `_handle`, without a call for each of some five hundred.
                    handler, at_s, told = take()
                    try:
                        handler(at_s, told)
                    except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                        self._fail(handler, error)
            finally:
                self.is_settling = False
                if is_own_time:
                    self._clock.leave_out_since(start_s)
                self._plan_settling()

    def stay_direct(self) -> None:
        """Has events handled at once from here on."""
        self._stays_direct = self.is_direct = True
        self.note = self._handle_at_once

    def plan_stop(self, step: int, *, is_direct: bool) -> None:
        """Says at the end of which step more is to be done, and whether events are handled at once till then."""
        is_early = self.num_calls < self._num_prompt
        self.next_stop = EVERY_STEP if is_early else step
        self.is_direct = is_direct or is_early or self._stays_direct
        self.note = self._handle_at_once if self.is_direct else self.waiting.append
        self._plan_settling()

    def _plan_settling(self) -> None:
        """Has events wait, at most, for the call that may end the next step at whose end there is more to do."""
        self._settle_before_s = self._clock.read_s() + self._longest_wait_s
        num_left = self.next_stop - self._ledger.open.number + 1
        num_calls = self.num_calls
        # What another thread has noted since the last look is in no step yet.
        num_together = 1 if self.waiting else max(1, min(CALLS_TOGETHER, num_left))
        self._settle_at = num_calls + num_together

    def _handle_at_once(self, event: Event) -> None:
        if self.waiting:
            self.settle()
        self._handle(event)

    def _handle(self, event: Event) -> None:
        handler, at_s, told = event
        try:
            handler(at_s, told)
        except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
            self._fail(handler, error)

    def _fail(self, handler: Callable[[float, Any], None], error: Exception) -> None:
        self._note_failure(getattr(handler, "__name__", "event").strip("_").replace("_", " "), error)
