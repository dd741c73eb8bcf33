"""Rules about the course of the learning rate over a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.rates import (
    MIN_STEPS,
    find_obstacle_to_rates,
    is_completed,
    list_rates,
    list_schedulers,
    tell_optimizer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun

CYCLIC = ("CyclicLR", "OneCycleLR", "CosineAnnealingWarmRestarts")
MIN_SCHEDULED_STEPS = 8
FAR_BELOW = 0.5
PEAK = 0.999


def _check_warm_up(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    if not is_completed(run):
        return
    for rates in list_rates(run):
        last, base = rates.values[-1], rates.base
        if base is None or not rates.is_rising or rates.is_search or len(rates.values) < MIN_SCHEDULED_STEPS:
            continue
        if any(scheduler.name in CYCLIC for scheduler in list_schedulers(run, rates.position)):
            continue
        share = last / base if base else 1.0
        if share >= FAR_BELOW:
            continue
        yield Evidence(
            message=f"the learning rate of {tell_optimizer(rates, run)} rises over all {len(rates.values)} steps and "
            f"ends at {last:.3g}, {share:.2%} of its base {base:.3g}: the run is over before its warm-up is.",
            cause="a warm-up counted in other units than the steps, or set up for a much longer run.",
            advice="make it a share of the run's steps, such as 5 %, and count it in optimizer steps.",
            subject="learning_rate",
            step=rates.steps[-1],
            severity=None if share < bounds["min_share"] else Severity.NOTE,
        )
        return


def _check_swing(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for rates in list_rates(run):
        schedulers = [found for found in list_schedulers(run, rates.position) if found.num_steps]
        if (
            any(scheduler.name in CYCLIC for scheduler in schedulers)
            or len(rates.values) < MIN_SCHEDULED_STEPS
        ):
            continue
        low, height = find_swing(rates.values, bounds["min_rise"])
        if low is None:
            continue
        overrun = next(
            (
                scheduler
                for scheduler in observed_of(run).schedulers
                if scheduler.name == "CosineAnnealingLR"
                and scheduler.optimizer == rates.position
                and (scheduler.last_epoch or 0) > scheduler.hyperparameters.get("T_max", float("inf"))
            ),
            None,
        )
        if overrun is None and not (schedulers and is_mirrored(rates.values, low)):
            continue
        seen = (
            f"{overrun.name} was stepped {overrun.last_epoch} times with T_max {overrun.hyperparameters['T_max']}: a "
            "cosine goes up again after that"
            if overrun is not None
            else f"the way up mirrors the way down, as a {schedulers[0].name} does that is stepped past its end"
        )
        yield Evidence(
            message=f"the learning rate of {tell_optimizer(rates, run)} falls to {rates.values[low]:.3g} at step "
            f"{rates.steps[low]} and swings back up to {height:.3g}; {seen}.",
            cause="a schedule set up for fewer steps than it makes: counted in epochs and stepped with every batch, "
            "stepped once per micro-batch, or built before the number of steps was known.",
            advice="give it the number of its own steps in the whole run, or clamp its progress at 1; where the swing "
            "is wanted, say so with CosineAnnealingWarmRestarts or CyclicLR.",
            subject="learning_rate",
            step=rates.steps[low],
        )
        return


def find_swing(values: list[float], min_rise: float) -> tuple[int | None, float]:
    """Where a rate that had come down is lowest before it rises again by a share of its peak, and how far it rises."""
    peak = max(values)
    start = lowest = next(position for position, value in enumerate(values) if value >= PEAK * peak)
    for position in range(start, len(values)):
        if values[position] < values[lowest]:
            lowest = position
        is_low = values[lowest] <= FAR_BELOW * peak
        if is_low and values[position] - values[lowest] > min_rise * peak:
            return lowest, max(values[lowest:])
    return None, 0.0


def is_mirrored(values: list[float], low: int) -> bool:
    """Whether a series comes up from its lowest point as it went down, and not at one blow."""
    peak = max(values)
    # A flat bottom mirrors around its middle.
    end = low
    while end + 1 < len(values) and values[end + 1] - values[low] < 1e-9 * peak:
        end += 1
    width = min(low, len(values) - 1 - end)
    # As far as the first turn.
    while width > 1 and values[end + width] < values[end + width - 1]:
        width -= 1
    near = 0.05 * peak
    return width >= MIN_STEPS and all(
        min(abs(values[end + away] - values[low - away + shift]) for shift in (0, 1)) <= near
        for away in range(1, width + 1)
    )


def _check_fade(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for rates in list_rates(run):
        schedulers = list_schedulers(run, rates.position)
        if any(scheduler.name == "ReduceLROnPlateau" for scheduler in schedulers):
            continue
        peak = max(rates.values)
        start = len(rates.values) - 1 - rates.values[::-1].index(peak)
        num_gone = sum(rate < bounds["min_factor"] * peak for rate in rates.values[start:])
        if len(rates.values) < MIN_SCHEDULED_STEPS or num_gone <= bounds["max_share"] * len(rates.values):
            continue
        first = next(
            position
            for position in range(start, len(rates.values))
            if rates.values[position] < bounds["min_factor"] * peak
        )
        yield Evidence(
            message=f"the learning rate of {tell_optimizer(rates, run)} is below {bounds['min_factor']:g} of its peak "
            f"{peak:.3g} from step {rates.steps[first]} on, for {num_gone} of {len(rates.values)} steps: they change "
            f"next to nothing (at the end it is {rates.values[-1]:.3g}).",
            cause="a decay that is applied more often than it was meant to be, such as one per epoch in every step, or "
            "a factor that is far too small.",
            advice="print the rate over the run's steps before training, and choose the factor by its end.",
            subject="learning_rate",
            step=rates.steps[first],
        )
        return


WARM_UP_NEVER_ENDS = Rule(
    code="T605",
    name="warm-up-never-ends",
    severity=Severity.WARNING,
    summary="The warm-up ends before the run does.",
    explanation="""\
In a run that came to its own end, the rate rose from the first step to the last and stayed below half of the base rate
its schedule was built with. A warning below `min_share` of the base, else a note: a short run of a long
configuration ends within its warm-up, and shows little of what the training would do.

Silent in runs ended by `max_steps`, in a search for a learning rate, and where the base rate is not known, as with
rates set by hand.""",
    cases=("warm-up steps counted in samples", "warmup_steps meant for a run a hundred times as long"),
    bounds=(Bound("min_share", 0.02, "share of the base rate that a run may end its warm-up at"),),
    find_obstacle=find_obstacle_to_rates,
    check=_check_warm_up,
    explains=("T1", "T513", "T512"),
)

SCHEDULE_SWINGS_BACK = Rule(
    code="T606",
    name="schedule-swings-back",
    severity=Severity.WARNING,
    summary="A rate that has come down does not swing back up by accident.",
    explanation="""\
The rate falls to half of its peak or lower and rises again by more than `min_rise` of it, and either a
CosineAnnealingLR was stepped more often than its T_max, or the way up mirrors the way down step by step, as a cosine
without a clamp does past its end.

Silent about CyclicLR, OneCycleLR and warm restarts; about restarts that jump up at one blow, whatever makes them; about
a rate that is warmed up again in another shape; and about rates set by hand.""",
    cases=(
        "T_max counted in epochs and stepped per batch",
        "accelerate#963",
        "a cosine of LambdaLR without min(1, ...)",
    ),
    bounds=(
        Bound("min_rise", 0.2, "rise after the lowest point, as a share of the highest rate, that counts"),
    ),
    find_obstacle=find_obstacle_to_rates,
    check=_check_swing,
    explains=("T1",),
)

RATE_FADES = Rule(
    code="T607",
    name="learning-rate-fades",
    severity=Severity.WARNING,
    summary="The learning rate does not fade to nothing long before the end.",
    explanation="""\
After its peak, the rate is below `min_factor` of it for more than `max_share` of all steps. A cosine to 0 spends less
than one step in a hundred there, and a usual step decay none. Silent about ReduceLROnPlateau, which lowers the rate
because nothing is left to gain.""",
    cases=(
        "ExponentialLR with a factor for epochs, stepped per batch",
        "schedule through too early (accelerate#963)",
    ),
    bounds=(
        Bound("min_factor", 1e-4, "share of the highest rate below which a step changes next to nothing"),
        Bound("max_share", 0.5, "share of the steps that may be so low"),
    ),
    find_obstacle=find_obstacle_to_rates,
    check=_check_fade,
    explains=("T1", "T511", "T513", "T512"),
)

RULES = (WARM_UP_NEVER_ENDS, SCHEDULE_SWINGS_BACK, RATE_FADES)
