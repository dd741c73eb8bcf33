"""Sees learning rate schedulers step."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler

from harness.record.optimizer_observation import SchedulerObservation
from harness.watch.loss import find_classes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from harness.watch.session import Session

PLAIN = (bool, int, float, str)
MAX_SCHEDULERS = 256


@dataclass(slots=True)
class _Seen:
    """A scheduler with its record, and the steps there had been when it last stepped: all, and its optimizer's."""

    reference: weakref.ref[LRScheduler]
    found: SchedulerObservation
    num_steps: int
    num_own: int = -1


class ScheduleHooks:
    """Listens to `step` of every scheduler class there is, and to the construction of schedulers.

    Args:
        session: Of the observer.
        find_optimizer: The position of an optimizer among those that stepped; None for one that never did.
    """

    def __init__(self, session: Session, find_optimizer: Callable[[Optimizer], int | None]) -> None:
        self._session = session
        # For handlers: what waits is not in them yet.
        self._steps, self._run = session.ledger, session.run
        self._find_optimizer = find_optimizer
        self._seen: list[_Seen] = []
        self._latest: _Seen | None = None
        self._num_inside = 0

    def install(self) -> None:
        """Starts to listen."""
        self._session.taps.on_method(LRScheduler, "__init__", self._around_construction)
        for scheduler in find_classes(LRScheduler):
            self._listen_to(scheduler)

    def _listen_to(self, scheduler: type) -> None:
        taps = self._session.taps
        if "step" in scheduler.__dict__ and not taps.is_on((scheduler, "step")):
            taps.wrap_method(scheduler, "step", self._build_step)

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
            if len(self._seen) < MAX_SCHEDULERS:
                self._session.attempt("scheduler", self._find, args[0])

    def look(self, step: int) -> None:
        """At the end of a deep step: what schedulers there are, what they are set to, and which step others."""
        alive = [
            (seen.found, scheduler) for seen in self._seen if (scheduler := seen.reference()) is not None
        ]
        inner = {id(part) for _, scheduler in alive for part in _list_parts(scheduler)}
        for found, scheduler in alive:
            found.is_part |= id(scheduler) in inner
            found.last_seen_step = step
            found.hyperparameters = found.hyperparameters or _describe(scheduler)
            found.optimizer = self._find_optimizer(scheduler.optimizer)
            rates = getattr(scheduler, "_last_lr", None) or []
            found.last_rates = [float(rate) for rate in rates]

    def _build_step(self, call: Callable[..., Any]) -> Callable[..., Any]:
        session, events, count = self._session, self._session.events, self._count

        def watch_step(*args: Any, **kwargs: Any) -> Any:
            # The first of those inside another scheduler is made by that one's constructor.
            if self._num_inside or getattr(args[0], "_is_initial", False):
                return call(*args, **kwargs)
            self._num_inside += 1
            try:
                result = call(*args, **kwargs)
            finally:
                self._num_inside -= 1
            try:
                scheduler, seen = args[0], self._latest
                if seen is None or seen.reference() is not scheduler:
                    self._latest = seen = self._find(scheduler)
                if seen.found.optimizer is None:
                    seen.found.optimizer = self._find_optimizer(scheduler.optimizer)
                events.note((count, 0.0, (seen, scheduler.last_epoch)))
            except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                session.note_failure("scheduler", error)
            return result

        return watch_step

    def _count(self, at_s: float, told: tuple[_Seen, int]) -> None:
        """Counts a step, and whether optimizers have stepped since the one before."""
        del at_s
        seen, epoch = told[0], int(told[1])
        found = seen.found
        found.num_steps += 1
        found.last_epoch = epoch
        num_steps, num_own = self._steps.open.number, 0
        if not num_steps and epoch > 0:
            found.num_before_first_optimizer_step += 1
        if found.optimizer is not None:
            num_own = self._run.optimizers[found.optimizer].num_steps
        if num_steps == seen.num_steps:
            found.num_idle += num_steps > 0
        elif num_own == seen.num_own:
            found.num_foreign += 1
        seen.num_steps, seen.num_own = num_steps, num_own

    def _find(self, scheduler: LRScheduler) -> _Seen:
        """What was seen of a scheduler; a new one is described first."""
        # Newest first: most programs have one, and some make a new one for every phase.
        for seen in reversed(self._seen):
            if seen.reference() is scheduler:
                return seen
        found = SchedulerObservation(type(scheduler).__name__, hyperparameters=_describe(scheduler))
        self._session.run.schedulers.append(found)
        self._seen.append(_Seen(weakref.ref(scheduler), found, self._session.ledger.open.number - 1))
        return self._seen[-1]


def _describe(scheduler: LRScheduler) -> dict[str, Any]:
    """The numbers, flags and names that a scheduler was built with, and its base rates."""
    passed = ("last_epoch", "verbose")
    return {
        name: list(value) if isinstance(value, (list, tuple)) else value
        for name, value in vars(scheduler).items()
        if not name.startswith("_")
        and name not in passed
        and (
            isinstance(value, PLAIN)
            or (isinstance(value, (list, tuple)) and all(isinstance(part, PLAIN) for part in value))
        )
    }


def _list_parts(scheduler: LRScheduler) -> list[object]:
    """The schedulers that another one holds."""
    parts: list[object] = []
    for value in vars(scheduler).values():
        parts += [
            part
            for part in (value if isinstance(value, (list, tuple)) else (value,))
            if isinstance(part, LRScheduler)
        ]
    return parts
