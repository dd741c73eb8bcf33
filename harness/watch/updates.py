"""Sees optimizers step: closures, learning rates, skipped steps, and which optimizer holds what."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from harness.record.optimizer_observation import OptimizerObservation, ScalerObservation
from harness.watch.device_clock import build_cuda_clock
from harness.watch.gradients import list_parameters
from harness.watch.loss import find_classes
from harness.watch.optimizer_groups import describe_groups, describe_idle
from harness.watch.options import Depth
from harness.watch.timing import OPTIMIZER, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.hooks import RemovableHandle

    BeforeStep = Callable[
        [Optimizer, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None
    ]
    AfterStep = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], None]

    from harness.watch.gradients import GradientHooks
    from harness.watch.memory import ResidentSet
    from harness.watch.readings import Reading
    from harness.watch.session import Session
    from harness.watch.steps import OpenStep

MAX_PREDECESSORS = 8
MAX_IDLE = 64


class OptimizerHooks:
    """Listens to every optimizer's step and to `GradScaler.step`; tells the others when a step ended."""

    def __init__(self, session: Session, gradients: GradientHooks, resident: ResidentSet) -> None:
        self._session = session
        # For handlers, and where events are handled at once: what waits is not in them yet.
        self._clock, self._steps, self._run = session.clock, session.ledger, session.run
        self._gradients = gradients
        self._resident = resident
        self._measures_norms = session.options.depth is Depth.NORMS
        self._seen: list[tuple[weakref.ref[Optimizer], list[list[int]]]] = []
        self._first_parameters: list[weakref.ref[torch.Tensor] | None] = []
        self._idle: list[tuple[weakref.ref[Optimizer], OptimizerObservation | None]] = []
        self._handles: list[RemovableHandle] = []
        self._latest = 0
        self.on_close: list[Callable[[OpenStep], None]] = []
        self.on_build: list[Callable[[], None]] = []
        self.on_first_step: list[Callable[[], None]] = []

    def install(self) -> None:
        """Starts to listen."""
        self._session.list_held = self.list_held
        self._session.taps.on_method(Optimizer, "__init__", self._around_init)
        self._handles = [
            register_optimizer_step_pre_hook(self._build_before()),
            register_optimizer_step_post_hook(self._build_after()),
        ]
        for scaler in find_classes(torch.amp.GradScaler):
            if "step" in scaler.__dict__:
                self._session.taps.on_method(scaler, "step", self._around_scaler_step)

    def remove(self) -> None:
        """Stops to listen to optimizers; the taps go with the session's."""
        for handle in self._handles:
            handle.remove()

    def describe(self, names: dict[int, str], *, start: int = 0) -> None:
        """Fills in the names of the parameters that each optimizer holds; of one that is gone, they stay.

        Args:
            names: Of all parameters, by identity.
            start: Position of the first optimizer that is described, of those that stepped.
        """
        whole = zip(self._session.run.optimizers[start:], self._seen[start:], strict=True)
        for optimizer, (reference, ids) in whole:
            if reference() is None and any(group.parameters for group in optimizer.groups):
                continue
            for index, (group, members) in enumerate(zip(optimizer.groups, ids, strict=True)):
                group.parameters = [
                    names.get(member, f"?{index}.{position}") for position, member in enumerate(members)
                ]
        if start:
            return
        # Those that are gone stay as they were last described.
        self._idle = [
            (reference, describe_idle(built, names) if (built := reference()) is not None else described)
            for reference, described in self._idle
        ]
        described_ones = (described for _, described in self._idle)
        self._session.run.idle_optimizers = [found for found in described_ones if found is not None]

    def _around_init(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = call(*args, **kwargs)
        if len(self._idle) < MAX_IDLE:
            self._session.attempt("optimizer", lambda: self._idle.append((weakref.ref(args[0]), None)))
        for listener in self.on_build:
            self._session.attempt("optimizer", listener)
        return result

    def find_index(self, optimizer: Optimizer) -> int:
        """The position of an optimizer among those seen; a new one is described first."""
        for index, (reference, ids) in enumerate(self._seen):
            if reference() is optimizer:
                if len(ids) != len(optimizer.param_groups):
                    groups, ids[:] = describe_groups(optimizer)
                    self._session.run.optimizers[index].groups = groups
                return index
        self._idle = [entry for entry in self._idle if entry[0]() is not optimizer]
        groups, ids = describe_groups(optimizer)
        self._session.run.optimizers.append(OptimizerObservation(type(optimizer).__name__, groups))
        self._seen.append((weakref.ref(optimizer), ids))
        self._session.run.optimizers[-1].same_parameters_as = self._find_predecessor(optimizer, ids)
        self._use_device_clock(optimizer)
        for listener in self.on_first_step:
            listener()
        return len(self._seen) - 1

    def _use_device_clock(self, optimizer: Optimizer) -> None:
        """Has the phases timed by the GPU that the parameters are on."""
        clock = self._session.clock
        first = next((found for group in optimizer.param_groups for found in group["params"]), None)
        if clock.device is None and first is not None and first.is_cuda:
            clock.device = build_cuda_clock(first.device)

    def _find_predecessor(self, optimizer: Optimizer, ids: list[list[int]]) -> int | None:
        """The latest optimizer before this one with the very same parameters."""
        members = {member for group in ids for member in group}
        first = next((p for group in optimizer.param_groups for p in group["params"]), None)
        self._first_parameters.append(None if first is None else weakref.ref(first))
        newest = len(self._seen) - 2
        for index in range(newest, max(-1, newest - MAX_PREDECESSORS), -1):
            reference = self._first_parameters[index]
            # A parameter that is gone may have left its identity to another one.
            is_alive = reference is not None and reference() is not None
            if is_alive and {member for group in self._seen[index][1] for member in group} == members:
                return index
        return None

    def find_optimizers(self) -> list[Optimizer]:
        """The optimizers seen so far that are still alive."""
        return [optimizer for reference, _ in self._seen if (optimizer := reference()) is not None]

    def list_held(self) -> set[int]:
        """Identities of the parameters of all optimizers that are there, whether they have stepped or not."""
        built = [optimizer for reference, _ in self._idle if (optimizer := reference()) is not None]
        return {id(parameter) for parameter in list_parameters([*built, *self.find_optimizers()])}

    def find_position(self, optimizer: Optimizer) -> int | None:
        """The position of an optimizer among those that stepped, wrapped ones too; None when it never did."""
        groups = {id(group) for group in getattr(optimizer, "param_groups", ())}
        for index, (reference, _) in enumerate(self._seen):
            seen = reference()
            if seen is not None and (
                seen is optimizer or any(id(group) in groups for group in seen.param_groups)
            ):
                return index
        return None

    def finish_waiting(self) -> None:
        """Closes the step of optimizers that stepped inside a backward, now that it is over."""
        session = self._session
        if not session.waiting_optimizers:
            return
        waiting, session.waiting_optimizers = session.waiting_optimizers, []
        first, *others = dict.fromkeys(waiting)
        session.ledger.open.optimizers.extend(others)
        session.has_scaled_gradients = False
        self._close(first)

    def _build_before(self) -> BeforeStep:
        session, read_s, seen = self._session, self._clock.read_s, self._seen
        events, begin, read = session.events, self._begin_step, self._steps.readings.read

        def before_step(
            optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            at_s = read_s()
            try:
                if session.thread is None:
                    session.claim_thread()
                index, groups = self._latest, optimizer.param_groups
                if not seen or seen[index][0]() is not optimizer or len(seen[index][1]) != len(groups):
                    self._latest = index = self.find_index(optimizer)
                rates: list[Reading]
                # Most have one, and a loop takes long among a step's own work.
                if len(groups) == 1 and type(rate := groups[0].get("lr")) is float:
                    rates = [rate]
                else:
                    rates = [
                        rate if type(rate := group.get("lr")) is float else read(rate) for group in groups
                    ]
                if len(args) > 1 or kwargs:
                    closure = args[1] if len(args) > 1 else kwargs.get("closure")
                    if callable(closure):
                        session.clock.switch(OPTIMIZER, at_s)
                        self._steps.open.learning_rates.append(rates)
                        return self._replace_closure(optimizer, closure, args, kwargs)
                norm = self._measure_norm(optimizer) if self._measures_norms else None
                found_inf = self._read_found_inf(optimizer) if "found_inf" in vars(optimizer) else None
                events.note((begin, at_s, (index, rates, norm, found_inf)))
                if events.is_direct:
                    self._look_at_gradients(optimizer, self._steps.find_row(index))
            except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                session.note_failure("optimizer step", error)
            return None

        return before_step

    def _measure_norm(self, optimizer: Optimizer) -> Reading:
        return None if self._gradients.is_covered(optimizer) else self._gradients.measure(optimizer)

    def _read_found_inf(self, optimizer: Optimizer) -> Reading:
        found_inf = vars(optimizer).get("found_inf")
        return None if found_inf is None else self._steps.readings.read(found_inf)

    def _replace_closure(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The step's arguments with the closure watched; its backward is still to come, so it joins no other step."""
        watched = self._wrap_closure(optimizer, closure, self._steps.open)
        if len(args) > 1:
            return (args[0], watched, *args[2:]), kwargs
        return args, {**kwargs, "closure": watched}

    def _begin_step(self, at_s: float, told: tuple[int, list[Reading], Reading, Reading]) -> None:
        index, rates, norm, found_inf = told
        self._clock.switch(OPTIMIZER, at_s)
        row = self._steps.find_row(index)
        row.learning_rates.append(rates)
        _add_readings(row, norm, found_inf)

    def _look_at_gradients(self, optimizer: Optimizer, row: OpenStep) -> None:
        """Of a step that is watched in depth, or traced, at what the optimizer is about to use."""
        if row.deep is not None:
            row.deep.read_gradients(optimizer)
        if row.trace is not None:
            row.trace.read_gradients(optimizer)

    def _wrap_closure(
        self, optimizer: Optimizer, closure: Callable[[], Any], row: OpenStep
    ) -> Callable[[], Any]:
        """The closure, counted; of its calls only the first belongs to the parameters the step began with."""
        session = self._session

        def watched_closure() -> Any:
            row.num_closure_calls += 1
            session.clock.switch(OTHER)
            try:
                return closure()
            finally:
                session.clock.switch(OPTIMIZER)
                if row.num_closure_calls == 1:
                    session.attempt("gradients", self._note_gradients, optimizer, row)

        return watched_closure

    def _note_gradients(self, optimizer: Optimizer, row: OpenStep) -> None:
        """Takes what the first call of a closure computed."""
        norm = self._measure_norm(optimizer) if self._measures_norms else None
        _add_readings(row, norm, self._read_found_inf(optimizer))
        self._look_at_gradients(optimizer, row)

    def _build_after(self) -> AfterStep:
        session, read_s, seen = self._session, self._clock.read_s, self._seen
        events, resident = session.events, self._resident
        end, end_inside = self._end_step, self._end_inside_backward

        def after_step(optimizer: Optimizer, args: object, kwargs: object) -> None:
            del args, kwargs
            at_s = read_s()
            is_inside = session.num_nested_backwards > 0
            try:
                index = self._latest
                if seen[index][0]() is not optimizer:
                    index = self.find_index(optimizer)
                if at_s >= resident.next_s:
                    events.note((self._note_memory, at_s, (index, resident.read(at_s))))
                    self._clock.leave_out_since(at_s)
                if is_inside:
                    events.stay_direct()
                else:
                    session.has_scaled_gradients = False
                if events.is_direct:
                    self._look_at_updates(optimizer, index)
                    at_s = read_s()
            except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                session.note_failure("optimizer step", error)
                return
            events.end_call((end_inside if is_inside else end, at_s, index))
            if self._steps.open.num_closure_calls:
                # What comes behind it is not to be taken for another call of the closure.
                events.settle()

        return after_step

    def _note_memory(self, at_s: float, told: tuple[int, bytes | None]) -> None:
        self._clock.switch(OTHER, at_s)
        index, read = told
        if read is not None:
            self._steps.find_row(index).rss_bytes = self._resident.find_bytes(read)

    def _look_at_updates(self, optimizer: Optimizer, index: int) -> None:
        """Of a step that is watched in depth, or traced, at what the optimizer has done."""
        row = self._session.ledger.find_row(index)
        if row.is_looked_at:
            self._clock.switch(OTHER)
        if row.deep is not None:
            row.deep.read_updates(optimizer)
        if row.trace is not None:
            row.trace.read_updates(optimizer)

    def _end_step(self, at_s: float, index: int) -> None:
        self._clock.switch(OTHER, at_s)
        self._run.optimizers[index].num_steps += 1
        self._close(index)

    def _end_inside_backward(self, at_s: float, index: int) -> None:
        """Has the step wait for the end of the backward."""
        self._clock.switch(OTHER, at_s)
        self._run.optimizers[index].num_steps += 1
        self._session.waiting_optimizers.append(index)

    def _close(self, index: int) -> None:
        session = self._session
        row = self._steps.close(index, self._clock.take(), self._clock.device)
        if row is not None and row.number >= session.events.next_stop:
            for listener in self.on_close:
                listener(row)

    def _around_scaler_step(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        num_calls = self._session.ledger.num_calls
        result = call(*args, **kwargs)
        self._session.attempt("GradScaler", self._note_skip, args, kwargs, num_calls)
        return result

    def _note_skip(self, args: tuple[Any, ...], kwargs: dict[str, Any], num_calls: int) -> None:
        session = self._session
        scaler = args[0]
        if not scaler.is_enabled():
            return
        optimizer = args[1] if len(args) > 1 else kwargs["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)
        if session.run.scaler is None:
            session.run.scaler = ScalerObservation()
        session.run.scaler.num_steps += 1
        if session.ledger.num_calls == num_calls:
            index = self.find_index(optimizer)
            row = session.ledger.find_row(index)
            row.was_skipped = True
            read = self._steps.readings.read
            row.learning_rates.append([read(group.get("lr")) for group in optimizer.param_groups])
            session.clock.switch(session.clock.current)
            session.has_scaled_gradients = False
            self._close(index)


def _add_readings(row: OpenStep, norm: Reading, found_inf: Reading) -> None:
    if norm is not None:
        row.measured_norms = [*row.measured_norms, norm]
    if found_inf is not None:
        row.found_inf = found_inf
