"""Rules about what the steps change: updates rounded away, and updates of the wrong size."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    group_parameters,
    is_vector,
    list_deep,
    observed_of,
    tell_owners,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation, ParameterObservation
    from harness.record.run import TrainingRun


HALF_PRECISION = ("bfloat16", "float16")


MIN_STEPS = 2
MIN_MATRICES = 3


def _check_unmoved(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    pairs = list_deep(run)
    # A bias before a batch norm has a gradient of rounding alone.
    least = {deep.step: bounds["min_gradient"] * (deep.grad_norm or 0.0) for _, deep in pairs}
    moving = {s.step for s, deep in pairs if any(p.update_norm for p in deep.parameters)}
    still: list[str] = []
    for name, seen in group_parameters(pairs).items():
        told = [
            p
            for step, p in seen
            if step in moving and (p.grad_norm or 0.0) > least[step] and not p.is_stale and p.is_trainable
        ]
        known = [p for p in told if p.update_norm is not None]
        if len(known) >= MIN_STEPS and not any(p.update_norm for p in known):
            still.append(name)
    if not still:
        return
    rates = _find_rates(run, set(still))
    has_no_rate = bool(rates) and not any(rates)
    yield Evidence(
        message=f"{len(still)} parameters, those of {tell_owners(still)}, get a gradient and are not changed by one "
        "bit in "
        f"{tell_steps(sorted(moving))}, while others are"
        + ("; the learning rate of their group is 0." if has_no_rate else "."),
        cause="a learning rate of 0 in their group, left from another phase."
        if has_no_rate
        else "updates that are rounded away, or an optimizer that skips them.",
        advice="give their group a learning rate, or freeze them with requires_grad_(False)."
        if has_no_rate
        else "compare the size of the update with that of the weights, in their own precision.",
        subject=still[0],
        step=min(moving),
        severity=Severity.NOTE if has_no_rate else None,
    )


def _find_rates(run: TrainingRun, names: set[str]) -> list[float]:
    """The learning rates, on deep steps, of the groups that hold some of these parameters."""
    observed = observed_of(run)
    found: list[float] = []
    for step, _ in list_deep(run):
        for index, rates in zip(step.optimizers, step.learning_rates, strict=False):
            for group, rate in zip(observed.optimizers[index].groups, rates, strict=False):
                if rate is not None and not names.isdisjoint(group.parameters):
                    found.append(rate)
    return found


def _check_rounding(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    if _is_rising(run):
        return
    best: dict[str, float] = {}
    kinds: set[str] = set()
    for _, deep in list_deep(run):
        for parameter in deep.parameters:
            if (
                parameter.dtype not in HALF_PRECISION
                or parameter.share_changed is None
                or is_vector(parameter.shape)
            ):
                continue
            kinds.add(parameter.dtype)
            best[parameter.name] = max(best.get(parameter.name, 0.0), parameter.share_changed)
    if not best or statistics.median(best.values()) >= bounds["min_share"]:
        return
    worst = min(best, key=best.__getitem__)
    yield Evidence(
        message=f"most updates are rounded away: of the {'/'.join(sorted(kinds))} numbers with a gradient at most "
        f"{statistics.median(best.values()):.0%} change in a step, in the median of {len(best)} tensors "
        f"({best[worst]:.0%} in "
        f"`{worst}`; needed {bounds['min_share']:.0%}).",
        cause="weights kept in half precision, whose spacing is wider than the learning rate's steps.",
        advice="keep weights in float32 and use autocast, or raise the learning rate, or round stochastically.",
        subject=worst,
    )


def _list_rates(run: TrainingRun) -> list[float]:
    return [
        rate
        for step in observed_of(run).steps
        if (rate := next((r for group in step.learning_rates for r in group if r is not None), None))
        is not None
    ]


def _is_rising(run: TrainingRun) -> bool:
    """Whether the run ends while its learning rate still rises, as in a warm-up cut short, or a search for it."""
    rates = _list_rates(run)
    return len(rates) > 1 and rates[-1] >= max(rates) and rates[-1] > rates[len(rates) // 2]


def _check_size(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    if _is_rising(run):
        return
    large: list[tuple[int, float]] = []
    largest = 0.0
    num_looked_at = 0
    pairs = list_deep(run)
    started_at_zero = {p.name for _, deep in pairs[:1] for p in deep.parameters if not p.weight_norm}
    for step, deep in pairs:
        ratios = {name: ratio for name, ratio in _list_ratios(deep).items() if name not in started_at_zero}
        if not ratios:
            continue
        largest = max(largest, *ratios.values())
        num_looked_at += 1
        middle = statistics.median(ratios.values())
        # One or two matrices may start as small as they like, such as tables of embeddings.
        if len(ratios) >= MIN_MATRICES and middle > bounds["max_ratio"]:
            large.append((step.step, middle))
    is_jump = any(number > 0 and middle > 2 * bounds["max_ratio"] for number, middle in large)
    if len(large) >= MIN_STEPS or is_jump:
        number, middle = large[0]
        yield Evidence(
            message=f"a step changes the weights by {middle:.0%} of their own size in the median tensor at step "
            f"{number}, and "
            f"by as much in {tell_steps([step for step, _ in large])} (allowed {bounds['max_ratio']:.0%}).",
            cause="a learning rate that is too high by an order of magnitude or more.",
            advice="divide the learning rate by ten; about 0.1 % per step is usual.",
            subject="update_to_weight",
            step=number,
        )
    elif num_looked_at >= MIN_STEPS and 0 < largest < bounds["min_ratio"]:
        yield Evidence(
            message=f"no step that was watched in depth changes any weight matrix by more than {largest:.1g} of its "
            "size (needed "
            f"{bounds['min_ratio']:g}), in {num_looked_at} of them.",
            cause="a learning rate that is too low by orders of magnitude, or gradients that have all but vanished.",
            advice="compare the learning rate with what others use for this optimizer and this model.",
            subject="update_to_weight",
        )


def _list_ratios(deep: DeepObservation) -> dict[str, float]:
    """Size of the update over that of the weight, of every matrix that moved."""
    return {
        p.name: p.update_norm / p.weight_norm
        for p in deep.parameters
        if p.update_norm and p.weight_norm and not is_vector(p.shape) and _is_used(p)
    }


def _is_used(parameter: ParameterObservation) -> bool:
    return bool(parameter.grad_norm) and not parameter.is_stale


UNMOVED = Rule(
    code="T511",
    name="parameter-never-moves",
    severity=Severity.WARNING,
    summary="What gets a gradient is changed by the step.",
    explanation="""\
Parameters with a gradient that not one bit of changes, on two deep steps or more on which others move. A note when the
learning rate of their group is 0 on all of them, which may be a phase of the training. When nothing at all moves,
other rules say so.""",
    cases=("a group with learning rate 0", "steps smaller than half a unit in the last place"),
    bounds=(
        Bound(
            "min_gradient",
            1e-5,
            "smallest norm of its gradient that counts, as a share of that of all gradients",
        ),
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_unmoved,
)


ROUNDED_AWAY = Rule(
    code="T512",
    name="update-rounded-away",
    severity=Severity.WARNING,
    summary="Weights kept in half precision are changed by most updates.",
    explanation="""\
Of the numbers with a gradient in every bfloat16 or float16 weight, the share that a deep step changes; the best deep
step of each tensor counts, and the median tensor is judged. Silent under autocast, where weights are float32, and
where the run ends while the learning rate still rises. An optimizer that gathers what is lost (Kahan summation) or
rounds stochastically changes few numbers on purpose: ignore the rule there.""",
    cases=("pure bfloat16 training with a small learning rate (torchtitan#600)",),
    bounds=(Bound("min_share", 0.5, "share of the numbers with a gradient that a step should change"),),
    find_obstacle=find_obstacle_to_deep,
    check=_check_rounding,
    explains=("T511", "T513", "T1"),
)


UPDATE_SIZE = Rule(
    code="T513",
    name="update-size",
    severity=Severity.WARNING,
    summary="A step changes weights by a small part of their size, and not by next to nothing.",
    explanation="""\
Norm of the change over norm of the weight, of every matrix, on deep steps. Too large when the median matrix changes by
more than `max_ratio` on two of them, or by twice that on one after the first; too small when none ever changes by
`min_ratio`. Vectors are passed over, and so are matrices that start at zero, and fewer than three for what is too
large. Silent where the run ends while the learning rate still rises: a warm-up cut short, or a search for the
learning rate.""",
    cases=("a learning rate a hundred times too high", "a learning rate in the wrong unit"),
    bounds=(
        Bound("max_ratio", 0.5, "largest change of the median matrix in a step, as a share of its norm"),
        Bound("min_ratio", 1e-6, "smallest change that counts, as a share of a matrix's norm"),
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_size,
    explains=("T511", "T1"),
)


RULES = (ROUNDED_AWAY, UPDATE_SIZE, UNMOVED)
