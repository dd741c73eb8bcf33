"""Rules about the size of gradients: over the run, and from the last layer to the first."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    find_obstacle_to_single,
    is_vector,
    list_deep,
    observed_of,
    owner_of,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation
    from harness.record.run import TrainingRun


MIN_ZERO_STEPS = 2


def _check_stability(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    steps = [
        s for s in observed_of(run).steps if s.grad_norm and not s.was_skipped and s.num_closure_calls <= 1
    ]
    norms = [step.grad_norm or 0.0 for step in steps]
    if len(norms) < bounds["min_steps"]:
        return
    quarter = len(norms) // 4
    first, last = statistics.median(norms[:quarter]), statistics.median(norms[-quarter:])
    if last > bounds["max_growth"] * max(norms[:quarter]):
        yield Evidence(
            message=f"the gradient norm explodes: median {first:.3g} in the first {quarter} steps seen, {last:.3g} "
            "in the "
            f"last {quarter} (allowed x{bounds['max_growth']:g}).",
            cause="a learning rate that is too high, or a recurrence that amplifies.",
            advice="lower the learning rate, warm it up, or clip the gradient's norm.",
            subject="grad_norm",
            step=steps[-quarter].step,
            severity=Severity.WARNING,
        )
        return
    middle = statistics.median(norms)
    highest = max(range(len(norms)), key=norms.__getitem__)
    if norms[highest] > bounds["max_spike"] * middle and highest >= quarter:
        yield Evidence(
            message=f"the gradient norm is {norms[highest]:.3g} at step {steps[highest].step}, "
            f"x{norms[highest] / middle:.3g} its median (allowed x{bounds['max_spike']:g}).",
            cause="one batch with odd data, or a loss that is not bounded.",
            advice="look at the batch of that step; clipping the norm keeps such a step from doing harm.",
            subject="grad_norm",
            step=steps[highest].step,
        )


def _check_vanishing(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    ratios: list[tuple[int, float, str, str]] = []
    pairs = list_deep(run)
    for step, deep in pairs:
        found = _compare_ends(deep)
        if found is not None and found[0] < bounds["min_ratio"]:
            ratios.append((step.step, *found))
    if len(ratios) < MIN_ZERO_STEPS or len(ratios) < len(pairs):
        return
    number, ratio, early, late = ratios[-1]
    yield Evidence(
        message=f"the gradient fades on its way back: relative to its weights, that of `{owner_of(early)}` is "
        f"{ratio:.1g} times that of `{owner_of(late)}` at step {number} (bound {bounds['min_ratio']:g}), and as "
        "little in "
        f"{tell_steps([step for step, *_ in ratios])}.",
        cause="many layers without residual connections or normalisation, saturated activations, or a narrow "
        "initialisation.",
        advice="look at the gradient norm layer by layer; try residual connections, normalisation, or another "
        "activation.",
        subject=early,
        step=ratios[0][0],
    )


def _compare_ends(deep: DeepObservation) -> tuple[float, str, str] | None:
    """How the relative gradient of the first matrix compares with the last one's; None where it can't be told."""
    weights = [
        (p.call_position, p.grad_norm / p.weight_norm, p.name)
        for p in deep.parameters
        if p.call_position is not None
        and p.grad_norm
        and p.weight_norm
        and not is_vector(p.shape)
        and not p.is_stale
    ]
    if len(weights) < MIN_LAYERS:
        return None
    (_, early, first), (_, late, last) = min(weights), max(weights)
    return (early / late, first, last)


MIN_LAYERS = 3


GRADIENT_NORM = Rule(
    code="T406",
    name="gradient-norm-unstable",
    severity=Severity.NOTE,
    summary="The gradient norm neither explodes nor jumps.",
    explanation="""\
The norms before clipping, of the steps that tell one: all steps where the program clips or norms are asked for, else
the deep ones. A warning when the median of the last quarter is more than `max_growth` times the largest of the
first quarter; a note for a single value of more than `max_spike` times the median.""",
    cases=("a recurrent network without clipping",),
    bounds=(
        Bound("min_steps", 12, "fewest steps with a norm that are judged"),
        Bound(
            "max_growth",
            100.0,
            "how many times the first quarter's largest norm the last quarter's median may be",
        ),
        Bound("max_spike", 100.0, "how many times the median a single norm may be"),
    ),
    find_obstacle=find_obstacle_to_single,
    check=_check_stability,
)


VANISHING_GRADIENT = Rule(
    code="T407",
    name="vanishing-gradient",
    severity=Severity.NOTE,
    summary="The first layers get a gradient of about the size that the last ones get.",
    explanation="""\
The norm of the gradient over that of the weight, of the first and of the last matrix in the order of the forward,
on every deep step. Exact zeros are T402's.""",
    cases=("a deep network with sigmoids",),
    bounds=(
        Bound(
            "min_ratio", 1e-5, "smallest relative gradient of the first matrix, as a share of the last one's"
        ),
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_vanishing,
)


RULES = (VANISHING_GRADIENT, GRADIENT_NORM)
