"""Rules about what happens on the way down: a loss that comes up again, spikes, restarts."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loss import find_obstacle_to_trend
from harness.rules.trend import measure_trend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.record.run import TrainingRun

MIN_LOSSES = 12
FELL = 0.9
"""A lowest level below this share of the start shows that the loss did fall."""
FINDER_FACTOR = 30.0
NEIGHBOURS = 10
MIN_NEIGHBOURS = 5
MAD_TO_DEVIATION = 1.4826
MIN_NOISE = 0.01
NUM_HEAD = 5
NOTED_SPIKE = 3.0
MIN_RESTARTS = 2
MIN_EPOCH = 6
NUM_EDGE = 3
SAME_AS_START = 0.1
MIN_GAPS = 2
NUM_DEVIATIONS = (2.0, 5.0)
"""Smallest jump in units of the noise, at regular distances and at others."""


def _find_obstacle(run: TrainingRun) -> str | None:
    if (obstacle := find_obstacle_to_trend(run)) is not None:
        return obstacle
    losses = run.losses
    if len(losses) < MIN_LOSSES:
        return f"it needs {MIN_LOSSES} losses, the run has {len(losses)}"
    if min(losses) < 0:
        return "the loss is below 0, and no size of it can be called large"
    if has_rising_rate(run):
        return "the learning rate rises all through the run, as that of a search for the best one does"
    return None


def has_rising_rate(run: TrainingRun) -> bool:
    """Whether the run looks like a search for a learning rate: it never falls, and grows many times over."""
    steps = run.observed.steps if run.observed else []
    rates = [rate for step in steps for group in step.learning_rates[:1] for rate in group[:1] if rate]
    if len(rates) < MIN_LOSSES:
        return False
    is_growing = all(after >= before for before, after in itertools.pairwise(rates))
    # A warm-up ends; a search goes on to the end.
    return is_growing and rates[-1] > FINDER_FACTOR * rates[0] and rates[-1] > rates[len(rates) * 3 // 4]


def _check_divergence(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    curve = run.loss_curve
    losses = [loss for _, loss in curve]
    if measure_trend(losses).is_rising():
        # The rule of the loss that does not fall says so.
        return
    num_edge = max(NUM_EDGE, len(losses) // 10)
    start, end = statistics.median(losses[:num_edge]), statistics.median(losses[-num_edge:])
    levels = [
        statistics.median(losses[position : position + num_edge])
        for position in range(len(losses) - num_edge + 1)
    ]
    lowest = min(levels)
    place = levels.index(lowest) + num_edge // 2
    noise = _measure_noise(losses[: place + 1])
    if (
        start <= 0
        or lowest > FELL * start
        or end < bounds["min_factor"] * start
        or end - lowest < bounds["min_z"] * noise
    ):
        return
    yield Evidence(
        message=f"the loss falls from {start:.4g} to {lowest:.4g} by step {curve[place][0]}, and then comes up to "
        f"{end:.4g}, {end / start:.3g} times its start (allowed {bounds['min_factor']:g}; {run.source}).",
        cause="a learning rate that is too high once warm-up is over, or gradients that nothing bounds.",
        advice="look at learning rate and gradient norm at that step; lower the one, clip the other.",
        subject=run.loss_name or "loss",
        step=curve[place][0],
    )


def _measure_noise(values: Sequence[float]) -> float:
    """Deviation of a value from the one before it, robustly."""
    steps = [abs(after - before) for before, after in itertools.pairwise(values)]
    return MAD_TO_DEVIATION * statistics.median(steps) if steps else 0.0


LOSS_DIVERGES = Rule(
    code="T103",
    name="loss-diverges",
    severity=Severity.WARNING,
    summary="A loss that has fallen stays down.",
    explanation="""\
An error when the loss fell by a tenth or more, and its end is above `min_factor` times its start and `min_z`
deviations above its lowest level; levels are medians of a tenth of the run. A loss that only rises is T101's.

Silent about a search for the learning rate (never falling, more than 30 times its first at the end), where several
optimizers take turns, in reinforcement learning, and about losses below 0.""",
    cases=("a learning rate a hundred times too high", "divergence at the end of warm-up"),
    bounds=(
        Bound("min_factor", 2.0, "smallest end of a loss that diverged, in units of its start"),
        Bound("min_z", 8.0, "smallest rise, in units of the noise from step to step"),
    ),
    find_obstacle=_find_obstacle,
    check=_check_divergence,
    explains=("T105",),
)


def _check_spikes(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    curve = run.loss_curve
    losses = [loss for _, loss in curve]
    highest_at_start = max(losses[:NUM_HEAD])
    spikes = []
    for position in range(NUM_HEAD, len(losses)):
        level, noise = _measure_level(losses, position)
        rise = losses[position] - level
        is_large = losses[position] > max(NOTED_SPIKE * level, highest_at_start)
        if level > 0 and is_large and rise > bounds["min_z"] * max(noise, MIN_NOISE * level):
            spikes.append((position, level))
    if not spikes:
        return
    position, level = max(spikes, key=lambda spike: losses[spike[0]] / spike[1])
    factor = losses[position] / level
    is_loud = factor > bounds["loud_factor"] and losses[position] > NOTED_SPIKE * highest_at_start
    others = f", the highest of {len(spikes)} spikes," if len(spikes) > 1 else ""
    yield Evidence(
        message=f"the loss jumps to {losses[position]:.4g} at step {curve[position][0]}{others} {factor:.3g} times "
        f"the {level:.4g} before it (a warning above {bounds['loud_factor']:g} times that, where it is also above "
        f"{NOTED_SPIKE * highest_at_start:.4g}, {NOTED_SPIKE:g} times the highest loss of the start; {run.source}).",
        cause="one bad batch, a division by a count that was wrong once, or a step that was too large just before.",
        advice="look at the batch of that step, and clip gradients so that one batch can't undo the others.",
        subject=run.loss_name or "loss",
        step=curve[position][0],
        severity=Severity.WARNING if is_loud else None,
    )


def _measure_level(losses: Sequence[float], position: int) -> tuple[float, float]:
    """Median and robust deviation of the losses before one of them."""
    before = losses[max(0, position - NEIGHBOURS) : position]
    level = statistics.median(before)
    return level, MAD_TO_DEVIATION * statistics.median(abs(loss - level) for loss in before)


LOSS_SPIKES = Rule(
    code="T105",
    name="loss-spike",
    severity=Severity.NOTE,
    summary="No single step has a loss far above those before it.",
    explanation="""\
A loss that is three times the median of the ten before it, more than `min_z` robust deviations above, and above
the losses of the start, is a note: small batches do that. A warning above `loud_factor` times that median and three
times the highest loss of the start, which no batch of ordinary data reaches.""",
    cases=("one batch with a corrupt sample", "a batch divided by a count of zero or one"),
    bounds=(
        Bound("min_z", 10.0, "smallest spike, in robust deviations of the losses before it"),
        Bound("loud_factor", 20.0, "smallest spike that is a warning, in units of the losses before it"),
    ),
    find_obstacle=_find_obstacle,
    check=_check_spikes,
    explains=("T101",),
)


def _check_restarts(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    curve = run.loss_curve
    losses = [loss for _, loss in curve]
    if len({tuple(step.optimizers) for step in (run.observed.steps if run.observed else [])}) > 1:
        # With another optimizer another training begins, as for each fold of a cross-validation.
        return
    start = losses[0]
    noise = _measure_noise(losses)
    restarts = _find_restarts(losses, start, NUM_DEVIATIONS[0] * noise)
    gaps = [later - earlier for earlier, later in itertools.pairwise(restarts)]
    if len(gaps) < MIN_GAPS or max(gaps) - min(gaps) > 1:
        # What comes back at no regular distance has to be clearer.
        restarts = _find_restarts(losses, start, NUM_DEVIATIONS[1] * noise)
    if len(restarts) < MIN_RESTARTS or start <= 0:
        return
    before = statistics.median(losses[position - 1] for position in restarts)
    yield Evidence(
        message=f"the loss jumps back to where it began {len(restarts)} times, first at step "
        f"{curve[restarts[0]][0]}: from {before:.4g} to {statistics.median(losses[p] for p in restarts):.4g}, where "
        f"the very first step had {start:.4g} ({run.source}).",
        cause="a model that is built, or loaded from its first weights, again and again, as in every epoch.",
        advice="build model and optimizer once, before the loop, and load weights only to resume.",
        subject=run.loss_name or "loss",
        step=curve[restarts[0]][0],
    )


def _find_restarts(losses: Sequence[float], start: float, least: float) -> list[int]:
    """The positions at which the loss is back, the first of neighbouring ones."""
    found: list[int] = []
    for position in range(MIN_EPOCH, len(losses) - NUM_EDGE):
        if _is_restart(losses, position, start, least) and not (found and position - found[-1] <= NUM_EDGE):
            found.append(position)
    return found


def _is_restart(losses: Sequence[float], position: int, start: float, least: float) -> bool:
    before = statistics.median(losses[position - NUM_EDGE : position])
    after = losses[position]
    is_back = abs(after - start) <= SAME_AS_START * start and before < FELL * start
    is_lasting = statistics.median(losses[position : position + NUM_EDGE]) >= (before + start) / 2
    return is_back and is_lasting and after - before > least


LOSS_RESTARTS = Rule(
    code="T106",
    name="loss-restarts",
    severity=Severity.WARNING,
    summary="The loss does not go back to where it began.",
    explanation="""\
A warning when the loss jumps, at least twice, from below nine tenths of its first value to within a tenth of it, by
more than five times the noise from step to step (twice, where it does so at regular distances), and then comes down
gradually: it is the first weights again. A spike does not last, warm restarts of a schedule do not lead back to the
start, and harder data rarely to that very number. Silent where an optimizer is replaced by another, as for each fold
of a cross-validation.""",
    cases=("weights loaded again in every epoch", "a model built inside the loop over epochs"),
    find_obstacle=_find_obstacle,
    check=_check_restarts,
    explains=("T105", "T101"),
)

RULES = (LOSS_RESTARTS, LOSS_DIVERGES, LOSS_SPIKES)
