"""Rules about a loss beside that of pure chance, which a classification loss tells by its number of classes."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from harness.rules.anomalies import has_rising_rate
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loss import find_obstacle_to_trend
from harness.rules.loss_calls import (
    HARD,
    count_classes,
    count_targets,
    find_obstacle_to_calls,
    has_labels,
    list_calls,
)
from harness.rules.targets import is_contrastive
from harness.rules.trend import measure_trend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import LossFunctionObservation
    from harness.record.loader_observation import EpochObservation
    from harness.record.run import TrainingRun
    from harness.rules.loss_calls import Call

MIN_TARGETS = 16
MARGIN = 1.0
MIN_STEPS = 50
MIN_EPOCHS = 2
LEVEL = 0.1
AT_CHANCE = 0.99
NEAR_CHANCE = 0.9
NO_LONGER_CHANCE = 1.5
SAME_LOSS = 0.05
TOO_GOOD = 0.01
EARLY = 30
LASTING = 1.25
IN_ROW = 4
NUM_DEVIATIONS = 8.0


def list_plain_calls(run: TrainingRun) -> list[Call]:
    """Calls whose value tells how far from chance a model is: means over enough labels, of a head with classes."""
    calls = [
        (step, call)
        for step, call in list_calls(run, *HARD)
        if has_labels(call)
        and call.reduction in ("mean", "sum")
        and not call.has_weight
        and call.value is not None
        and math.isfinite(call.value)
        and count_classes(call) > 1
        and count_targets(call) >= MIN_TARGETS
    ]
    return [] if not calls or is_contrastive(calls) else calls


def measure_mean(call: LossFunctionObservation) -> float:
    """The loss per label that a call returned."""
    value = call.value if call.value is not None else math.nan
    return value / count_targets(call) if call.reduction == "sum" else value


def _check_start(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = [(step, call) for step, call in list_plain_calls(run) if step == 0]
    if not calls:
        return
    _, first = calls[0]
    value = statistics.median(measure_mean(call) for _, call in calls)
    classes = count_classes(first)
    chance = math.log(classes)
    most = bounds["max_factor"] * chance + MARGIN
    if value > most:
        yield Evidence(
            message=f"{first.name} starts at {value:.4g}, where choosing among {classes} classes by chance gives "
            f"ln({classes}) = {chance:.4g} (allowed {most:.4g}): the untrained model is sure of wrong answers.",
            cause="an initialisation that is too wide, inputs that were not scaled, or labels that do not belong to "
            "the head of a trained model.",
            advice="look at the standard deviation of the inputs and of the logits, which should be about 1.",
            subject=first.name,
            step=0,
        )


LOSS_AT_START = Rule(
    code="T102",
    name="loss-at-start",
    severity=Severity.WARNING,
    summary="The first loss of a classification is near that of chance, or below it.",
    explanation="""\
A cross-entropy of untrained logits is about the logarithm of the number of classes. A warning when that of step 0
is above `max_factor` times that, plus 1. A model that starts from trained weights starts lower and is let through; one
whose head is all zeros starts exactly at chance, as is often done on purpose.

Judged by what the loss function returned, per label, over at least 16 labels without weights, whatever the program
multiplies it with. Silent about contrastive losses and scores with a temperature or a margin, where a sure start is
normal: their scores come from no linear layer.""",
    cases=(
        "weights initialised with standard deviation 1",
        "pixels from 0 to 255 into a network without norm layers",
    ),
    bounds=(Bound("max_factor", 2.0, "largest first loss, in units of that of chance"),),
    find_obstacle=find_obstacle_to_calls,
    check=_check_start,
)


def _find_obstacle_to_curve(run: TrainingRun) -> str | None:
    return find_obstacle_to_trend(run) or find_obstacle_to_calls(run)


def _is_the_loss(run: TrainingRun, calls: list[Call]) -> bool:
    """Whether the curve is that of the loss function: a step's loss is what its calls returned."""
    curve = dict(run.loss_curve)
    by_step: dict[int, list[float]] = {}
    for step, call in calls:
        by_step.setdefault(step, []).append(measure_mean(call))
    pairs = [(curve[step], statistics.fmean(values)) for step, values in by_step.items() if step in curve]
    return bool(pairs) and all(abs(loss - value) <= SAME_LOSS * abs(value) for loss, value in pairs)


def _check_chance(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = list_plain_calls(run)
    losses = run.losses
    if not calls or len(losses) < bounds["min_steps"] or not _is_the_loss(run, calls):
        return
    loaders = run.observed.loaders if run.observed else []
    num_epochs = max((_count_epochs(loader.epochs) for loader in loaders), default=0)
    if num_epochs < MIN_EPOCHS:
        return
    _, first = calls[0]
    used = 1 + max(call.label_range[1] for _, call in calls if call.label_range is not None)
    chance = math.log(max(used, 2))
    trend = measure_trend(losses)
    knowledge = trend.end / chance
    # Wrong certainty of the start may still have been unlearned.
    is_at_chance = knowledge >= AT_CHANCE or (trend.is_level(LEVEL) and knowledge >= NEAR_CHANCE)
    if not is_at_chance or knowledge > NO_LONGER_CHANCE:
        return
    yield Evidence(
        message=f"after {len(losses)} steps and {num_epochs} epochs the loss is {trend.end:.4g}, and choosing among "
        f"{used} classes by chance gives {chance:.4g} ({run.source}).",
        cause="labels that do not belong to their inputs, inputs that carry nothing, or steps that are far too small.",
        advice="try to learn one single batch by heart; if that works, look at labels beside their inputs.",
        subject=first.name,
    )


def _count_epochs(epochs: list[EpochObservation]) -> int:
    batches = [epoch.num_batches for epoch in epochs]
    most = max(batches, default=0)
    return sum(number == most for number in batches) if most > 1 else 0


LOSS_AT_CHANCE = Rule(
    code="T107",
    name="loss-at-chance",
    severity=Severity.WARNING,
    summary="A classifier that has seen its data more than once knows more than chance.",
    explanation="""\
A warning when, after `min_steps` steps and two whole epochs of a DataLoader, the loss is that of chance or above it
by up to a half; or within a tenth below it, and shown not to have fallen by 10 %. Fewer steps may be too few; T101
has a note for them.""",
    cases=("labels shuffled against their inputs", "a learning rate a hundred thousand times too small"),
    bounds=(Bound("min_steps", MIN_STEPS, "fewest steps after which chance is no excuse"),),
    find_obstacle=_find_obstacle_to_curve,
    check=_check_chance,
    explains=("T101",),
)


def _check_floor(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = list_plain_calls(run)
    losses = run.losses
    if not calls or not _is_the_loss(run, calls):
        return
    _, first = calls[0]
    chance = math.log(count_classes(first))
    end = statistics.median(losses[-max(3, len(losses) // 10) :])
    loaders = run.observed.loaders if run.observed else []
    sizes = [loader.num_samples for loader in loaders if loader.num_samples]
    num_seen = sum(step.num_samples or 0 for step in (run.observed.steps if run.observed else []))
    is_first_pass = bool(sizes) and 0 < num_seen <= max(sizes)
    if losses[0] < chance / 2 or end > TOO_GOOD * chance or not is_first_pass:
        return
    yield Evidence(
        message=f"the loss falls from {losses[0]:.4g} to {end:.3g} within the first pass over the data: "
        f"{num_seen} samples, none seen twice, and hardly an error among {count_classes(first)} classes left.",
        cause="a very easy task, or an answer that is among the inputs.",
        advice="look for the label in the inputs: in a feature, a file name, a token that is not masked.",
        subject=first.name,
    )


LOSS_TOO_GOOD = Rule(
    code="T104",
    name="loss-too-good",
    severity=Severity.NOTE,
    summary="A loss does not reach its floor on data it has never seen.",
    explanation="""\
A note when a cross-entropy that started near chance is below a hundredth of it within the first pass over the data.
Easy tasks do that, and leaked answers do.""",
    cases=("a label among the features", "a language model that sees the next token"),
    find_obstacle=_find_obstacle_to_curve,
    check=_check_floor,
)


def _find_obstacle_to_overshoot(run: TrainingRun) -> str | None:
    if has_rising_rate(run):
        return "the learning rate rises all through the run, as that of a search for the best one does"
    return _find_obstacle_to_curve(run)


def _check_overshoot(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = list_calls(run)
    is_plain = all(
        call.name in HARD
        and has_labels(call)
        and call.reduction != "none"
        and count_targets(call) >= MIN_TARGETS
        for _, call in calls
    )
    if not is_plain or is_contrastive(calls):
        return
    curve = run.loss_curve
    losses = [loss for _, loss in curve]
    start = losses[0]
    if start < math.log(max(count_classes(calls[0][1]), 2)) / 2:
        return
    early = losses[1 : EARLY + 1]
    high = [loss > LASTING * start for loss in early]
    num_in_row = max(
        (sum(1 for _ in group) for is_high, group in itertools.groupby(high) if is_high), default=0
    )
    peak = max(early)
    half = losses[len(losses) // 2 :]
    noise = statistics.median(abs(after - before) for before, after in itertools.pairwise(half))
    if num_in_row < IN_ROW or peak < bounds["min_factor"] * start or peak - start < NUM_DEVIATIONS * noise:
        return
    yield Evidence(
        message=f"the loss starts at {start:.4g} and is thrown up to {peak:.4g} at step "
        f"{curve[1 + early.index(peak)][0]}, {peak / start:.3g} times as much (allowed {bounds['min_factor']:g}), and "
        f"above {LASTING:g} times its start for {num_in_row} steps on end ({run.source}).",
        cause="first steps that are far too large: a learning rate that is too high, or no warm-up.",
        advice="train with a tenth of the learning rate, or warm it up.",
        subject=run.loss_name or "loss",
        step=curve[1 + early.index(peak)][0],
    )


LOSS_OVERSHOOTS = Rule(
    code="T108",
    name="loss-overshoots",
    severity=Severity.WARNING,
    summary="The first steps of a classification do not make it worse than it was untrained.",
    explanation="""\
A warning when the loss, within its first thirty steps, is above 1.25 times its first value for four steps on end and
reaches `min_factor` times it, well above the noise of its end. That is what steps that are too large do even where
training recovers. Told of classification losses that start near chance alone: a loss of reinforcement or
contrastive learning may rise, and one that starts low may fall back.""",
    cases=("a learning rate a hundred times too high, which ends as slow learning",),
    bounds=(Bound("min_factor", 1.75, "smallest peak, in units of the first loss"),),
    find_obstacle=_find_obstacle_to_overshoot,
    check=_check_overshoot,
    explains=("T103", "T105", "T107", "T101"),
)

RULES = (LOSS_AT_START, LOSS_OVERSHOOTS, LOSS_AT_CHANCE, LOSS_TOO_GOOD)
