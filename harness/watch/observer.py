"""Watches a program train, in this process, without a change to it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from harness import clock
from harness.record.observation import NonFiniteObservation, Outcome, RunObservation
from harness.watch.autocast import AutocastHooks
from harness.watch.by_hand import UpdatesByHand
from harness.watch.checkpoints import CheckpointHooks
from harness.watch.close_looks import CloseLooks
from harness.watch.contention import OwnClock
from harness.watch.data import DataHooks
from harness.watch.describing import RunDescription
from harness.watch.gradients import GradientHooks
from harness.watch.kept_steps import KeptSteps
from harness.watch.limits import StepLimit, TrainingStopped
from harness.watch.loss import LossHooks
from harness.watch.memory import ResidentSet, read_peak_memory_bytes
from harness.watch.modules import ModuleHooks
from harness.watch.options import Depth, ObserverOptions
from harness.watch.origin import note_non_finite_parameters, note_origin
from harness.watch.schedule import ScheduleHooks
from harness.watch.session import Session
from harness.watch.trace import TracedStep
from harness.watch.turns import STOP_REASON
from harness.watch.updates import OptimizerHooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from harness.record.deep import DeepObservation
    from harness.record.step_observation import StepObservation
    from harness.watch.steps import OpenStep
    from harness.watch.turns import TurnTaker


# Steps 1, 8, 64, ...: describing the run takes as long as many steps are watched.
LOOK_FACTOR = 8


class Sink(Protocol):
    """Takes what is seen as it is seen, so that it outlives a crash."""

    def write_step(self, step: StepObservation, deep: DeepObservation | None) -> None:
        """Takes one step."""

    def write_run(self, run: RunObservation, *, is_last: bool) -> None:
        """Takes what is known of the run; a later one replaces it."""


class Observer:
    """Watches everything that trains between enter and exit; `observation` is what it saw.

    Observers nest and may be left in any order. A program that ran into the limit of this observer is ended
    by `TrainingStopped`, which `__exit__` keeps to itself: the code after the block goes on.

    Args:
        options: How to watch.
        sink: Takes steps as they are seen; they are then not kept in `observation.steps`.
        folder: Where the ranks of one run agree on a common end; only with `max_seconds`.
    """

    def __init__(
        self, options: ObserverOptions | None = None, *, sink: Sink | None = None, folder: Path | None = None
    ) -> None:
        self.options = options or ObserverOptions()
        self._turns: TurnTaker | None = None
        self._sink = sink
        self._session = session = Session(self.options, self._emit, is_prompt=sink is not None)
        self._limit = StepLimit(self.options, self, folder)
        has_limit = self.options.max_steps is not None or self.options.max_seconds is not None
        looks_by_hand = has_limit or self.options.depth is Depth.DEEP
        self._by_hand = UpdatesByHand(session, self._limit) if looks_by_hand else None
        self._kept = KeptSteps(self.options.max_kept_steps)
        gradients = GradientHooks(session)
        self._loss = LossHooks(session)
        self._modules = ModuleHooks(session)
        self._resident = ResidentSet()
        self._optimizers = OptimizerHooks(session, gradients, self._resident)
        self._schedules = ScheduleHooks(session, self._optimizers.find_position)
        self._data = DataHooks(session)
        self._description = RunDescription(session, self._modules, self._optimizers, self._data, self._loss)
        self._looks = CloseLooks(
            session,
            self._loss,
            self._modules,
            self._optimizers,
            self._schedules,
            self._description,
        )
        self._families = (
            self._loss,
            gradients,
            self._optimizers,
            self._schedules,
            self._data,
            self._modules,
            CheckpointHooks(session, self._modules, self._optimizers),
            AutocastHooks(session),
        )
        self._started_s = 0.0
        self._is_open = False
        self._next_look = 1

    @property
    def observation(self) -> RunObservation:
        """What has been seen; complete after exit."""
        return self._session.run

    def take_turns(self, turns: TurnTaker) -> None:
        """Makes the program wait after its steps while another one has its turn.

        Its times are then its own: what it waits for a processor that others have is no one's time.
        """
        self._turns = turns
        self._session.clock.read_s = OwnClock().read_s

    def __enter__(self) -> Self:
        session = self._session
        run = session.run
        run.process_id = os.getpid()
        run.argv = list(sys.argv)
        run.started_at = clock.now_utc()
        run.torch = str(torch.__version__)
        self._started_s = clock.monotonic_s()
        self._description.begin()
        self._loss.after_backward.append(self._optimizers.finish_waiting)
        if self.options.depth is Depth.DEEP:
            self._loss.on_non_finite.append(self._note_non_finite)
        self._optimizers.on_close.append(self._after_close)
        self._optimizers.on_build.append(self._begin_stage)
        self._optimizers.on_first_step.append(self._plan_stop)
        self._modules.on_give_way.append(self._looks.give_way)
        self._is_open = True
        try:
            for family in self._families:
                family.install()
            if self._by_hand is not None:
                self._by_hand.install()
            self._looks.install()
            if self.options.traced_steps:
                self._session.ledger.open.trace = TracedStep(self._session)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not self._is_open:
            return False
        session = self._session
        try:
            # Before the hooks go, as it may open more of them; whatever thread trained.
            while session.events.waiting:
                with contextlib.suppress(TrainingStopped):
                    session.events.settle()
        finally:
            self._remove()
        run = session.run
        run.outcome, run.error = _judge_end(error, self._limit.reason)
        if self._limit.reason is not None:
            run.notes.append(self._limit.reason)
            run.ended_by = self._limit.reached
        session.attempt("last numbers", session.ledger.finish)
        self._looks.drop()
        run.wall_clock_s = clock.monotonic_s() - self._started_s
        run.peak_memory_bytes = read_peak_memory_bytes()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            run.cuda_peak_bytes = int(torch.cuda.max_memory_allocated())
            run.cuda_reserved_bytes = int(torch.cuda.max_memory_reserved())
        self._description.take_all()
        for family in self._families:
            if isinstance(family, CheckpointHooks):
                session.attempt("checkpoints", family.check_files)
        run.steps = self._kept.list_steps()
        if self._kept.num_dropped:
            session.add_blind_spot(f"{self._kept.num_dropped} steps in the middle were not kept")
        self._resident.close()
        self._looks.finish(is_complete=run.outcome.is_complete)
        if self._sink is not None:
            session.attempt("record", self._write_last, self._sink)
        return isinstance(error, TrainingStopped) and error.owner is self

    def _write_last(self, sink: Sink) -> None:
        sink.write_run(self._session.run, is_last=True)

    def _remove(self) -> None:
        self._is_open = False
        self._looks.remove()
        self._modules.remove()
        self._optimizers.remove()
        if self._by_hand is not None:
            self._by_hand.remove()
        self._session.taps.remove_all()

    def _note_non_finite(self, loss: torch.Tensor) -> None:
        """Looks, once, at where it comes from while its graph is there; the step after it is watched in depth."""
        session = self._session
        if session.run.non_finite is not None:
            return
        number = session.ledger.open.number
        session.run.non_finite = found = NonFiniteObservation(number)
        self._looks.add(number + 1)
        self._plan_stop()
        names = self._modules.names.name_parameters()
        note_non_finite_parameters(found, self._modules.list_parameters(), names)
        note_origin(found, loss, names)

    def _after_close(self, row: OpenStep) -> None:
        session, number = self._session, row.number
        if (
            self._looks.is_open
            or self._looks.is_wanted(number + 1)
            or number + 1 == self._next_look
            or self._description.find_naming(number) == number
        ):
            session.attempt("end of step", self._turn_over, row)
        if number + 1 < self.options.traced_steps:
            session.ledger.open.trace = TracedStep(session)
        if self.options.max_steps is not None or self.options.max_seconds is not None:
            self._limit.check(session.ledger.num_steps)
        if self._turns is not None:
            if session.attempt("turns", self._turns.wait, number + 1):
                self._limit.reason = STOP_REASON
            session.clock.skip()
            if self._limit.reason is not None:
                self._limit.check(session.ledger.num_steps)
        self._plan_stop()

    def _plan_stop(self) -> None:
        """Finds the next step at whose end this has anything to do; until then hooks only note what happens."""
        session, options = self._session, self.options
        ledger = session.ledger
        number = ledger.open.number
        is_direct = (
            # Other optimizers may still join the step that has ended.
            any(row is not None and row.is_looked_at for row in (ledger.open, ledger.last))
            or self._looks.is_open
            or self._turns is not None
            or options.max_seconds is not None
            or self._limit.reason is not None
            or session.clock.device is not None
        )
        stops = [self._next_look - 1, self._description.find_naming(number)]
        stops += [step - 1 for step in self._looks.list_wanted_after(number)]
        if options.max_steps is not None:
            stops.append(number + options.max_steps - ledger.num_steps - 1)
        session.events.plan_stop(number if is_direct else max(number, min(stops)), is_direct=is_direct)

    def _turn_over(self, row: OpenStep) -> None:
        """What there is to do between a step and the next one."""
        if row.number == 0:
            self._note_first_step(row)
        was_deep = self._looks.close(row)
        if row.number + 1 == self._next_look:
            self._next_look *= LOOK_FACTOR
            self._look_around()
        else:
            self._description.name_new_optimizers()
        self._looks.open(row.number + 1, is_after_deep=was_deep)
        # What the watcher did between two steps is no one's time.
        self._session.clock.skip()

    def _note_first_step(self, row: OpenStep) -> None:
        self._session.run.first_step_at_s = clock.monotonic_s()
        self._modules.note_closed(row)

    def _look_around(self) -> None:
        """At ever longer intervals: packages imported since, names while models live, a record against a crash."""
        for family in self._families:
            if isinstance(family, CheckpointHooks):
                family.install_late()
        if self._sink is None:
            self._description.take_living()
            return
        self._description.take_all()
        self._sink.write_run(self._session.run, is_last=False)

    def _begin_stage(self) -> None:
        if self._looks.begin_stage():
            self._plan_stop()

    def _emit(self, step: StepObservation, row: OpenStep) -> None:
        deep = None
        if step.was_skipped and self._session.run.scaler is not None:
            self._session.run.scaler.num_skipped += 1
        if row.deep is not None:
            deep = row.deep.finish(
                self._modules.names.name_parameters(),
                self._modules.names.name_models(),
                self._optimizers.find_optimizers(),
            )
            _add_deep_numbers(step, deep)
        if self._sink is not None:
            self._sink.write_step(step, deep)
            return
        self._kept.add(step)
        if deep is not None:
            self._session.run.deep_steps.append(deep)


def observe_call(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: ObserverOptions | None = None,
) -> tuple[Any, RunObservation]:
    """Calls a training function and returns its result with what was seen of it.

    A call that the limits of `options` ended has the result None. What the function raises is raised.
    """
    result = None
    observer = Observer(options)
    with observer:
        result = function(*args, **(kwargs or {}))
    return result, observer.observation


def _judge_end(error: BaseException | None, limit: str | None) -> tuple[Outcome, str | None]:
    if isinstance(error, TrainingStopped) or (error is None and limit is not None):
        return Outcome.STOPPED, None
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return Outcome.COMPLETED, None
    return Outcome.RAISED, f"{type(error).__name__}: {error}"


def _add_deep_numbers(step: StepObservation, deep: DeepObservation) -> None:
    """Completes a deep step's row from what was measured tensor by tensor."""
    if deep.grad_norm is not None:
        step.clipped_grad_norm = deep.grad_norm
        if step.grad_norm is None and not step.clipping:
            step.grad_norm = deep.grad_norm
    updates = [parameter.update_norm for parameter in deep.parameters if parameter.update_norm is not None]
    weights = [parameter.weight_norm for parameter in deep.parameters if parameter.weight_norm is not None]
    if updates and not step.was_skipped:
        step.update_norm = math.sqrt(sum(update * update for update in updates))
        weight = math.sqrt(sum(norm * norm for norm in weights))
        step.update_to_weight = step.update_norm / weight if weight else None
