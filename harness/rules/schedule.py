"""Rules about the steps of learning rate schedulers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.rates import is_completed, list_rates, list_schedulers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.loader_observation import EpochObservation, LoaderObservation
    from harness.record.optimizer_observation import SchedulerObservation
    from harness.record.run import TrainingRun

MIN_STEPS = 6
MIN_IDLE = 3
BY_EVALUATION = ("ReduceLROnPlateau",)
ONE_CYCLE = "OneCycleLR"
LATE = ("SWALR",)
"""Schedulers that are there from the start and step late on purpose."""


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched"
    return None if list_schedulers(run) else "no scheduler was seen"


def _check_too_often(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    if observed.environments:
        return
    for scheduler in list_schedulers(run):
        num_counted = scheduler.num_steps - scheduler.num_before_first_optimizer_step
        if scheduler.num_idle < max(MIN_IDLE, bounds["max_idle_share"] * num_counted):
            continue
        num_real = num_counted - scheduler.num_idle
        ratio = num_counted / max(1, num_real)
        # Libraries step it once per process, so that it counts the steps of all of them.
        if observed.world_size > 1 and abs(ratio - observed.world_size) < 0.1 * observed.world_size:
            continue
        num_micro = max((step.num_micro_batches for step in observed.steps), default=0)
        per_micro_batch = num_micro > 1 and abs(ratio - num_micro) < 0.2 * num_micro
        where = f" once per micro-batch, of which a step has {num_micro}" if per_micro_batch else ""
        planned = _find_length(scheduler)
        fits = planned is not None and (scheduler.last_epoch or 0) <= planned and is_completed(run)
        is_planned = (
            fits and planned is not None and (scheduler.last_epoch or 0) >= bounds["planned_share"] * planned
        )
        yield Evidence(
            message=f"{scheduler.name} was stepped {num_counted} times, {scheduler.num_idle} of them with no optimizer "
            f"step since the one before{f':{where}' if where else ''}; the schedule runs {ratio:.3g} times as fast as "
            "the training.",
            cause="scheduler.step() inside the loop over micro-batches, or called in two places.",
            advice="call it right after optimizer.step(), once; or set up its length in the units it is stepped in.",
            subject=scheduler.name,
            severity=Severity.NOTE if is_planned else None,
        )
        return


def _find_length(scheduler: SchedulerObservation) -> float | None:
    """The number of steps that a scheduler was told the run has; None where it was not."""
    for name in ("T_max", "total_steps", "total_iters"):
        if isinstance(value := scheduler.hyperparameters.get(name), (int, float)) and value > 0:
            return float(value)
    return None


def _check_never(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    if not is_completed(run) or len(observed.steps) < MIN_STEPS:
        return
    # Where no pass over the data came to its end, one that steps per epoch had no occasion.
    training = [loader for loader in observed.loaders if loader.num_training_batches] or observed.loaders
    num_passes = sum(_is_whole(loader, epoch) for loader in training for epoch in loader.epochs)
    if training and not num_passes:
        return
    latest = max((deep.step for deep in observed.deep_steps), default=0)
    for scheduler in list_schedulers(run):
        others = [
            other
            for other in list_schedulers(run)
            if other is not scheduler and other.num_steps and other.optimizer == scheduler.optimizer
        ]
        is_late = scheduler.name in LATE or (scheduler.name in BY_EVALUATION and num_passes < 2)  # noqa: PLR2004
        is_there = scheduler.optimizer is not None and (scheduler.last_seen_step or -1) >= latest
        if scheduler.num_steps or others or is_late or not (is_there or _is_stuck(run, scheduler)):
            continue
        yield Evidence(
            message=f"{scheduler.name} is built and is never stepped in a run of {len(observed.steps)} steps that came "
            f"to its own end{f', over {num_passes} passes of the data' if num_passes else ''}; the learning rate stays "
            "what it was.",
            cause="a missing scheduler.step(), or one in a branch that is never taken.",
            advice="step it after optimizer.step(), or take it out.",
            subject=scheduler.name,
        )
        return


def _is_whole(loader: LoaderObservation, epoch: EpochObservation) -> bool:
    """Whether a pass over the data came to its end; some programs count batches and never ask for one too many."""
    num_samples, batch_size = loader.num_samples, loader.batch_size
    if epoch.is_complete or not num_samples or not batch_size:
        return epoch.is_complete
    return epoch.num_batches >= (
        num_samples // batch_size if loader.drop_last else -(-num_samples // batch_size)
    )


def _is_stuck(run: TrainingRun, scheduler: SchedulerObservation) -> bool:
    """Whether all steps had the rate that a one-cycle schedule begins with, which nobody wants to stay at."""
    bases = scheduler.hyperparameters.get("base_lrs", [])
    return scheduler.name == ONE_CYCLE and any(
        bases and len(set(rates.values)) == 1 and math.isclose(rates.values[0], max(bases))
        for rates in list_rates(run)
    )


def _check_before(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for scheduler in list_schedulers(run):
        num_before = scheduler.num_before_first_optimizer_step
        if not num_before or scheduler.name in BY_EVALUATION or scheduler.optimizer is None:
            continue
        is_replay = num_before > bounds["max_replay"]
        yield Evidence(
            message=f"{scheduler.name} was stepped {num_before} time{'s' * (num_before > 1)} before any optimizer had "
            f"stepped, and {scheduler.num_steps} times in all: the first of its learning rates are never used.",
            cause="scheduler.step() before optimizer.step(), as was right before PyTorch 1.1; or a schedule brought to "
            "where a resumed run left off by stepping it, which state_dict does better.",
            advice="call scheduler.step() after optimizer.step(), at the end of the step or of the epoch.",
            subject=scheduler.name,
            step=0,
            severity=Severity.NOTE if is_replay else None,
        )
        return


def _check_other_optimizer(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    constant = {rates.position for rates in list_rates(run) if len(set(rates.values)) == 1}
    for scheduler in list_schedulers(run):
        num_counted = scheduler.num_steps - scheduler.num_before_first_optimizer_step
        num_alone = scheduler.num_foreign + scheduler.num_idle
        bases = scheduler.hyperparameters.get("base_lrs", [])
        if num_counted < 2 or num_alone < bounds["min_share"] * num_counted:  # noqa: PLR2004
            continue
        if scheduler.optimizer is None and constant and _has_moved(scheduler, bases):
            rate = scheduler.last_rates[0] if scheduler.last_rates else None
            set_to = f" (it has set {rate:.3g})" if rate is not None else ""
            yield Evidence(
                message=f"{scheduler.name} was stepped {scheduler.num_steps} times on an optimizer that never "
                f"stepped{set_to}; the rate of the optimizer that trains stays "
                f"{next(r.values[0] for r in list_rates(run) if r.position in constant):.3g}.",
                cause="the optimizer was built again after the schedule, or the schedule was given another one.",
                advice="build the schedule last, with the optimizer whose step() is called.",
                subject=scheduler.name,
            )
            return
        if scheduler.optimizer is not None and scheduler.num_foreign >= max(
            MIN_IDLE, bounds["min_share"] * num_counted
        ):
            optimizer = observed_of(run).optimizers[scheduler.optimizer]
            later = observed_of(run).optimizers[scheduler.optimizer + 1 :]
            if not any(other.name == optimizer.name for other in later):
                continue
            yield Evidence(
                message=f"{scheduler.name} was stepped {scheduler.num_foreign} of {num_counted} times for an optimizer "
                f"that had not stepped since: {optimizer.name} stopped after {optimizer.num_steps} steps, and another "
                "one took its place without a schedule.",
                cause="the optimizer is built again in the loop, and the schedule still holds the first.",
                advice="keep one optimizer for the whole run, or build the schedule anew with it.",
                subject=scheduler.name,
            )
            return


def _has_moved(scheduler: SchedulerObservation, bases: list[float]) -> bool:
    return (
        not scheduler.last_rates
        or not bases
        or list(scheduler.last_rates) != list(bases)
        or scheduler.num_steps > MIN_STEPS
    )


def _check_end(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    if not is_completed(run):
        return
    for scheduler in list_schedulers(run):
        planned = _find_length(scheduler)
        if (
            scheduler.name not in {"CosineAnnealingLR", "OneCycleLR", "PolynomialLR"}
            or not scheduler.num_steps
        ):
            continue
        if planned is None or (scheduler.last_epoch or 0) >= bounds["min_share"] * planned:
            continue
        num_optimizer_steps = sum(scheduler.optimizer in step.optimizers for step in observed_of(run).steps)
        is_in_steps = abs(planned - num_optimizer_steps) <= bounds["near_share"] * planned
        yield Evidence(
            message=f"{scheduler.name} was set up for {planned:g} steps and made {scheduler.last_epoch} of them in a "
            "run that came to its own end: the decay that it was meant to make is still to come.",
            cause="a schedule in optimizer steps that is stepped once per epoch, or a run that was made shorter.",
            advice="set it up with as many steps as it makes.",
            subject=scheduler.name,
            severity=Severity.WARNING if is_in_steps else None,
        )
        return


STEPPED_TOO_OFTEN = Rule(
    code="T608",
    name="schedule-steps-too-often",
    severity=Severity.WARNING,
    summary="A schedule steps at most once per optimizer step.",
    explanation="""\
Counts the calls of a scheduler's `step` since which no optimizer had stepped; steps that a GradScaler skipped count as
optimizer steps, and calls before the first do not count. A warning where they are `max_idle_share` of all calls. A note
where the schedule was told its length, and came near it: then it was planned so.

Silent where each of several processes steps for all, as accelerate does, and in programs with an environment.""",
    cases=("scheduler.step() for every micro-batch (accelerate#963)",),
    bounds=(
        Bound("max_idle_share", 0.25, "share of the calls without an optimizer step since the one before"),
        Bound("planned_share", 0.8, "share of its own length at which a schedule was planned as it ran"),
    ),
    find_obstacle=_find_obstacle,
    check=_check_too_often,
    explains=("T610", "T606", "T607", "T1"),
)

NEVER_STEPPED = Rule(
    code="T609",
    name="schedule-never-stepped",
    severity=Severity.WARNING,
    summary="A schedule that was built is stepped.",
    explanation="""\
In a run of six steps or more that came to its own end, a scheduler of an optimizer that trains was there on the last
deep step and was never stepped, nor was any other of that optimizer.

One cycles that were thrown away count too, where every step had the rate they begin with.

Silent where no pass over the training data came to its end, as the schedule may step per epoch; about SWALR, which
starts late; about schedulers that were thrown away, or that another one steps; and in runs ended from outside.""",
    cases=(
        "a schedule that is built and forgotten",
        "a schedule whose step() hangs on a callback that is not there",
    ),
    find_obstacle=_find_obstacle,
    check=_check_never,
)

STEPPED_BEFORE = Rule(
    code="T610",
    name="schedule-steps-first",
    severity=Severity.WARNING,
    summary="A schedule does not step before the optimizer does.",
    explanation="""\
A scheduler was stepped before any optimizer had. Its first learning rate is lost; with a warm-up or a decay per epoch
that is a whole epoch. A note for more than `max_replay` calls: they bring a schedule to where a resumed run left off.
A first step that a GradScaler skipped counts as a step.""",
    cases=("scheduler.step() at the start of an epoch, as was right before PyTorch 1.1",),
    bounds=(Bound("max_replay", 3, "calls before the first step above which they are taken for a replay"),),
    find_obstacle=_find_obstacle,
    check=_check_before,
)

OTHER_OPTIMIZER = Rule(
    code="T611",
    name="schedule-of-another-optimizer",
    severity=Severity.WARNING,
    summary="A schedule moves the learning rate of the optimizer that trains.",
    explanation="""\
A scheduler that is stepped holds an optimizer that never stepped, while the rate of the one that trains never changes;
or one that stopped stepping when another of its class took its place. Optimizers that wrap the one they step are told
by the groups they share.""",
    cases=("the optimizer is built again after the schedule, as by a library that prepares it",),
    bounds=(Bound("min_share", 0.5, "share of the calls without a step of its own optimizer"),),
    find_obstacle=_find_obstacle,
    check=_check_other_optimizer,
)

ENDS_EARLY = Rule(
    code="T612",
    name="schedule-far-from-its-end",
    severity=Severity.NOTE,
    summary="A schedule comes near the end it was set up for.",
    explanation="""\
In a run that came to its own end, a CosineAnnealingLR, OneCycleLR or PolynomialLR made less than `min_share` of the
steps it was set up for. A note, as runs are made shorter on purpose, above all in tests; a warning where its length
is, up to `near_share`, the number of optimizer steps, so that it was meant to step with them.""",
    cases=("T_max in steps, stepped once per epoch",),
    bounds=(
        Bound("min_share", 0.3, "share of its length that a schedule has to make"),
        Bound("near_share", 0.05, "difference to the number of optimizer steps, as a share, that is none"),
    ),
    find_obstacle=_find_obstacle,
    check=_check_end,
)

RULES = (OTHER_OPTIMIZER, STEPPED_TOO_OFTEN, NEVER_STEPPED, STEPPED_BEFORE, ENDS_EARLY)
