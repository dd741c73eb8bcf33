"""Steps that are looked at closer than the others: in depth, operation by operation, or for what they ask of a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.watch.deep import DeepStep
from harness.watch.held_graphs import HeldGraphs
from harness.watch.host_syncs import HostSyncs
from harness.watch.options import Depth
from harness.watch.structure import StructureWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.watch.counters import StepCounter
    from harness.watch.describing import RunDescription
    from harness.watch.kernel_launches import KernelLaunches
    from harness.watch.loss import LossHooks
    from harness.watch.modules import ModuleHooks
    from harness.watch.schedule import ScheduleHooks
    from harness.watch.session import Session
    from harness.watch.steps import OpenStep
    from harness.watch.updates import OptimizerHooks

MAX_STAGES = 4


class CloseLooks:
    """What is open for the step under way, and which steps are still to be looked at."""

    def __init__(
        self,
        session: Session,
        loss: LossHooks,
        modules: ModuleHooks,
        optimizers: OptimizerHooks,
        schedules: ScheduleHooks,
        description: RunDescription,
    ) -> None:
        self._session = session
        self._loss = loss
        self._modules = modules
        self._optimizers = optimizers
        self._schedules = schedules
        self._description = description
        self._held_graphs = HeldGraphs()
        options = session.options
        is_deep = options.depth is Depth.DEEP
        self._structure = StructureWatch(session, modules) if is_deep else None
        self._counted_steps = frozenset(options.counted_steps)
        self._deep_steps = frozenset(options.deep_steps if is_deep else ()) - self._counted_steps
        self._deep: DeepStep | None = None
        self._syncs: HostSyncs | None = None
        self._counter: StepCounter | None = None
        self._kernels: KernelLaunches | None = None
        self._num_stages = 0

    @property
    def is_open(self) -> bool:
        """Whether the step under way is looked at."""
        return self._deep is not None or self._syncs is not None or self._counter is not None

    def install(self) -> None:
        """Starts to listen, and opens the first step where it is to be watched in depth."""
        self._loss.before_deep_backward.append(self._before_backward)
        if self._structure is not None:
            self._loss.held_graphs = self._held_graphs
            self._structure.install()
        if self._session.options.counts_kernels:
            from harness.watch.kernel_launches import KernelLaunches  # noqa: PLC0415  for those that count

            self._kernels = self._session.attempt("kernel launches", KernelLaunches, self._session.taps)
        if 0 in self._deep_steps:
            self._open_deep()

    def remove(self) -> None:
        """Takes off what is open; the record of a deep step stays open for the numbers of its optimizers."""
        if self._deep is not None:
            self._deep.close()
        if self._syncs is not None:
            self._syncs.close()
        if self._kernels is not None:
            self._kernels.close()
        if self._counter is not None and self._counter.close():
            # Of a step that did not end.
            self._counter = None

    def drop(self) -> None:
        """Forgets a deep step that was never ended: it still holds modules and batches."""
        self._deep = self._session.ledger.open.deep = None

    def finish(self, *, is_complete: bool) -> None:
        """After the run, when nothing is listened to any more."""
        if self._structure is not None:
            self._structure.finish(is_complete=is_complete)

    def add(self, step: int) -> None:
        """Has one more step watched in depth."""
        self._deep_steps |= {step}

    def is_wanted(self, step: int) -> bool:
        """Whether a step is to be looked at from its beginning."""
        return step in self._counted_steps or step in self._deep_steps

    def list_wanted_after(self, step: int) -> Iterator[int]:
        """The steps behind this one that are to be looked at."""
        return (later for later in (*self._deep_steps, *self._counted_steps) if later > step)

    def close(self, row: OpenStep) -> bool:
        """At the end of a step: closes what is open; whether the step was watched in depth."""
        self._close_counter(row.number)
        if self._syncs is not None:
            self._syncs.close()
            row.num_host_syncs, row.first_host_sync = self._syncs.num, self._syncs.first
            self._syncs = None
        if self._deep is None:
            return False
        self._close_deep(self._deep, row)
        return True

    def open(self, number: int, *, is_after_deep: bool) -> None:
        """At the beginning of a step: opens what it is to be looked at with."""
        if number in self._deep_steps:
            self._open_deep()
        elif is_after_deep and self._session.clock.device is not None:
            self._count_host_syncs()
        self._open_counter(number)

    def begin_stage(self) -> bool:
        """Watches the first step of a later optimizer in depth where runs are compared: it begins another training.

        Returns:
            Whether it does.
        """
        session = self._session
        row = session.ledger.open
        is_between_steps = row.number > 0 and not row.batches and not row.num_micro_batches
        options = session.options
        is_wanted = options.depth is Depth.DEEP and row.number < options.traced_steps
        can_begin = (
            is_wanted
            and is_between_steps
            and not self.is_open
            and self._num_stages < MAX_STAGES
            and session.is_training_thread()
        )
        if can_begin:
            self._num_stages += 1
            self._open_deep()
        return can_begin

    def give_way(self, compiler: str) -> None:
        """Takes the hooks of a deep step off what a compiler would build them into."""
        if self._deep is not None:
            self._deep.give_way(compiler)

    def _before_backward(self, tensors: object) -> None:
        row = self._session.ledger.open
        if row.deep is not None:
            row.deep.note_backward(self._optimizers.find_optimizers(), tensors)

    def _after_deep_backward(self) -> None:
        row = self._session.ledger.open
        if row.deep is not None:
            self._session.attempt("gradients", row.deep.note_backward_end, self._optimizers.find_optimizers())

    def _open_deep(self) -> None:
        session = self._session
        row = session.ledger.open
        row.deep = self._deep = DeepStep(session, row.number, self._modules.find_roots)
        self._deep.open(self._optimizers.find_optimizers())
        # Before the optimizers that wait for the end of a backward get their turn.
        self._loss.after_backward.insert(0, self._after_deep_backward)
        self._modules.search()

    def _close_deep(self, deep: DeepStep, row: OpenStep) -> None:
        session = self._session
        self._deep = None
        self._loss.after_backward.remove(self._after_deep_backward)
        deep.close()
        session.attempt("schedulers", self._schedules.look, row.number)
        if self._structure is not None:
            session.attempt("structure", self._structure.look, deep, self._optimizers.find_optimizers())
        deep.note_resources(self._session.foreign_graphs[0], self._held_graphs)
        self._modules.note_closed(row)
        # Optimizers that take turns are looked at one after the other.
        if len(session.run.optimizers) > 1 and row.number in session.options.deep_steps:
            self.add(row.number + 1)

    def _open_counter(self, number: int) -> None:
        """Counts the operations of the step that begins, where that was asked for; it is then not timed."""
        if number not in self._counted_steps or self._counter is not None:
            return
        from harness.watch.counters import StepCounter  # noqa: PLC0415  for those that count

        row = self._session.ledger.open
        row.is_partly_timed = True
        self._counter = StepCounter(number, self._session.clock)
        self._counter.open()
        if self._kernels is not None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._session.attempt("kernel launches", self._open_kernels, self._kernels)

    def _open_kernels(self, kernels: KernelLaunches) -> None:
        if not kernels.open():
            self._session.add_blind_spot(
                "kernel launches: the program has a profiler of its own, and there can be only one"
            )

    def _close_counter(self, number: int) -> None:
        counter = self._counter
        if counter is None:
            return
        if self._kernels is not None:
            counter.counted.num_kernels = self._session.attempt("kernel launches", self._kernels.close)
        is_closed = counter.close()
        if is_closed:
            self._counter = None
        if is_closed and counter.counted.step == number:
            self._session.run.counted_steps.append(counter.counted)
            return
        # Below a mode of the program's own it stays until that is left; nothing else is counted meanwhile.
        self._session.add_blind_spot(
            "operations: the program has a mode of its own open at the end of a step, so they were not counted"
        )

    def _count_host_syncs(self) -> None:
        """Counts those of the step that begins, which is not watched in depth but is not timed either."""
        syncs = HostSyncs()
        if syncs.open():
            self._syncs = syncs
            self._session.ledger.open.is_partly_timed = True
        else:
            self._session.add_blind_spot(
                "host synchronisations: the program uses CUDA's debug mode for them itself"
            )
