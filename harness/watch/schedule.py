"""Sees learning rate schedulers step."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler

from harness.record.observation import SchedulerObservation
from harness.watch.loss import find_classes

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.session import Session


class ScheduleHooks:
    """Listens to `step` of every scheduler class there is, and to the construction of schedulers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: list[weakref.ref[LRScheduler]] = []
        self._num_inside = 0

    def install(self) -> None:
        """Starts to listen."""
        self._session.taps.on_method(LRScheduler, "__init__", self._around_construction)
        for scheduler in find_classes(LRScheduler):
            self._listen_to(scheduler)

    def _listen_to(self, scheduler: type) -> None:
        taps = self._session.taps
        if "step" in scheduler.__dict__ and not taps.is_on((scheduler, "step")):
            taps.on_method(scheduler, "step", self._around_step)

    def _around_construction(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # The constructor calls step() once itself; and only now is a class of the program's own known.
        self._session.attempt("scheduler", self._listen_to, type(args[0]))
        self._num_inside += 1
        try:
            return call(*args, **kwargs)
        finally:
            self._num_inside -= 1

    def _around_step(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._num_inside:
            return call(*args, **kwargs)
        self._num_inside += 1
        try:
            result = call(*args, **kwargs)
        finally:
            self._num_inside -= 1
        self._session.attempt("scheduler", self._count, args[0])
        return result

    def _count(self, scheduler: LRScheduler) -> None:
        found = self._find(scheduler)
        found.num_steps += 1
        found.num_before_first_optimizer_step += not self._session.num_steps
        found.last_epoch = int(scheduler.last_epoch)

    def _find(self, scheduler: LRScheduler) -> SchedulerObservation:
        schedulers = self._session.run.schedulers
        for index, seen in enumerate(self._seen):
            if seen() is scheduler:
                return schedulers[index]
        self._seen.append(weakref.ref(scheduler))
        schedulers.append(SchedulerObservation(type(scheduler).__name__))
        return schedulers[-1]
