"""Rules about gradients that are missing or zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    group_parameters,
    is_stranger,
    is_vector,
    list_deep,
    observed_of,
    owner_of,
    tell_owners,
    tell_steps,
)
from harness.rules.finding import Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.record.deep import ParameterObservation
    from harness.record.run import TrainingRun

    Seen = list[tuple[int, ParameterObservation]]


MIN_ZERO_STEPS = 2


LATE_STEP = 5


def has_fresh_gradient(parameter: ParameterObservation) -> bool:
    """Whether a backward of the step gave it a gradient."""
    return parameter.grad_norm is not None and not parameter.is_stale


def _find_empty_handed(run: TrainingRun) -> Iterator[Evidence]:
    """Optimizers that step in turns with others, and never get a gradient when it is their turn."""
    optimizers = observed_of(run).optimizers
    for index, optimizer in enumerate(optimizers):
        turns = [(step, deep) for step, deep in list_deep(run) if step.optimizers == [index]]
        names = {p.name for _, deep in turns for p in deep.parameters if not is_stranger(p.name)}
        has_none = not any(has_fresh_gradient(p) for _, deep in turns for p in deep.parameters)
        if len(turns) >= MIN_ZERO_STEPS and len(optimizers) > 1 and names and has_none:
            yield Evidence(
                message=f"{optimizer.name} over {tell_owners(sorted(names))} steps without a single gradient in "
                f"{tell_steps([step.step for step, _ in turns])}.",
                cause="its loss is cut off from these parameters: a detach() that belongs to the other network's "
                "step.",
                advice="look at what the loss before this optimizer's step is computed from.",
                subject=min(names),
                step=turns[0][0].step,
                severity=Severity.ERROR,
            )
            return


def _check_missing(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    empty_handed = list(_find_empty_handed(run))
    if empty_handed:
        yield from empty_handed
        return
    groups = group_parameters(list_deep(run))
    took_part: dict[str, Seen] = {}
    for name, seen in groups.items():
        if part := [(s, p) for s, p in seen if p.is_trainable and (p.took_part or p.ran_without_gradient)]:
            took_part[name] = part
    missing = [
        name
        for name, seen in took_part.items()
        if not any(has_fresh_gradient(p) for _, p in groups[name]) and not any(p.grad_norm for _, p in seen)
    ]
    if not missing:
        return
    steps = sorted({step for name in missing for step, _ in took_part[name]})
    told = f"{len(missing)} of {len(took_part)} parameters that the optimizer trains, those of {tell_owners(missing)}"
    where = f"the forward of {tell_steps(steps)}"
    if len(missing) == len(took_part):
        yield Evidence(
            message=f"{told}, took part in {where}, and not one of them got a gradient.",
            cause="the loss is cut off from the model: .item(), torch.tensor(...) or .detach() on the way to it, or a "
            "forward under torch.no_grad().",
            advice="print loss.grad_fn before backward and follow the tensors back to the model's output.",
            subject=missing[0],
            step=steps[0],
            severity=Severity.ERROR,
        )
        return
    blind = [name for name in missing if all(p.ran_without_gradient for _, p in took_part[name])]
    if len(blind) == len(missing):
        yield Evidence(
            message=f"{told}, ran with gradients switched off in {where}, and never got one.",
            cause="torch.no_grad() or inference_mode() around a part of the model that should train; or a frozen part "
            "whose parameters are still in the optimizer.",
            advice="take the no_grad away; if the part is to stay as it is, set requires_grad_(False) on it.",
            subject=missing[0],
            step=steps[0],
        )
        return
    first_missing, is_first = _find_cut(missing, took_part)
    is_cut = is_first or _is_repeated(missing)
    after = [name for name in took_part if name not in missing]
    if blind:
        cause = f"torch.no_grad() around {tell_owners(blind)}, which cuts off what comes before them too."
    elif is_cut:
        cause = "a detach(), .data, .item() or a conversion to NumPy between them and the loss."
    else:
        cause = "their output does not reach the loss: an unused head or pooler, or a detach() behind them."
    yield Evidence(
        message=f"{told}, took part in {where} and never got a gradient; those of {tell_owners(after)} did.",
        cause=cause,
        advice=f"look at what happens to the output of `{owner_of(first_missing)}`; if it is not to train, freeze it "
        "or leave it out of the optimizer.",
        subject=first_missing,
        step=steps[0],
        severity=None if is_cut or blind else Severity.NOTE,
    )


def _find_cut(missing: Sequence[str], took_part: Mapping[str, Seen]) -> tuple[str, bool]:
    """The first of the parameters without gradient, and whether none that has one runs before it."""
    places = {
        name: min((p.call_position for _, p in seen if p.call_position is not None), default=None)
        for name, seen in took_part.items()
    }
    known = {name: place for name, place in places.items() if place is not None}
    first = min(missing, key=lambda name: known.get(name, len(known)))
    others = [place for name, place in known.items() if name not in missing]
    return first, first in known and all(known[first] < place for place in others)


def _is_repeated(missing: Sequence[str]) -> bool:
    """Whether the same parameters of several layers of one kind are among them, such as those of two blocks."""
    patterns: dict[str, set[str]] = {}
    for name in missing:
        pattern = ".".join("#" if part.isdigit() else part for part in name.split("."))
        # A list of heads ends in its numbers; a list of blocks has layers with names below them.
        if "#" in pattern.split(".")[:-2]:
            patterns.setdefault(pattern, set()).add(name)
    return any(len(names) > 1 for names in patterns.values())


def _check_zero(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    pairs = list_deep(run)
    seen: dict[str, Seen] = {}
    for name, found in group_parameters(pairs).items():
        if fresh := [(step, p) for step, p in found if has_fresh_gradient(p) and p.is_trainable]:
            seen[name] = fresh
    zero = [
        name
        for name, found in seen.items()
        if len(found) >= MIN_ZERO_STEPS and all(p.grad_norm == 0 for _, p in found)
    ]
    if not zero:
        return
    steps = sorted({step for name in zero for step, _ in seen[name]})
    if len(zero) == len(seen):
        has_loss = all(step.loss for step, _ in pairs if step.loss is not None)
        was_there = any(norm for _, deep in pairs for norm in deep.grad_norms_after_backward)
        if has_loss and not was_there:
            yield Evidence(
                message=f"every gradient is exactly 0 in {tell_steps(steps)}: of all {len(zero)} parameters.",
                cause="the loss does not depend on the parameters: dead units before the output, weights that are all "
                "zero, a clamp or round in the way, or a loss multiplied by 0.",
                advice="look at the outputs of the layers one after the other: from where on are they constant?",
                subject=zero[0],
                step=steps[0],
                severity=Severity.ERROR,
            )
        return
    weights = [name for name in zero if not is_vector(seen[name][0][1].shape)]
    if not weights or steps[-1] < LATE_STEP:
        return
    first, is_first = _find_cut(zero, seen)
    yield Evidence(
        message=f"the gradient of {len(zero)} of {len(seen)} parameters, those of {tell_owners(zero)}, is exactly 0 "
        f"in {tell_steps(steps)}.",
        cause="dead units: a ReLU, or another function that saturates, behind them gives the same for every input; "
        "weights set to zero behind them do so too."
        if is_first
        else "a part that adds nothing to the loss: units that are dead, a gate or a loss weight of 0.",
        advice=f"look at the outputs of `{owner_of(first)}` and of the layers behind it: are they all zero?",
        subject=first,
        step=steps[0],
        severity=None if is_first else Severity.NOTE,
    )


MISSING_GRADIENT = Rule(
    code="T401",
    name="missing-gradient",
    severity=Severity.WARNING,
    summary="Every trainable parameter of the optimizer that takes part in the forward gets a gradient.",
    explanation="""\
On the steps watched in depth: which parameters of the optimizers belong to a module that was called, and have no
gradient when the optimizer steps. One finding names their modules. An error when no parameter gets one, or none of an
optimizer that takes turns with others when it steps; a warning
when the first layers of the model are cut off while later ones learn, when the same layers of several blocks are,
or when a part runs under `no_grad` inside a model that is called with gradients; a note for a part in the middle or
at the end, which may be an unused head or pooler.

Silent about parameters that get a gradient on any of the deep steps (experts, stochastic depth, heads that take
turns), that are frozen, that no optimizer holds (T501), and about modules that were not called. Under torch.compile
it is not seen which modules ran, and the rule is silent.""",
    cases=(
        "a backbone cut off by a detach (transformers#21381)",
        "a loss built anew with torch.tensor(...)",
        "torch.no_grad() around layers that should train",
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_missing,
    explains=("T402", "T404", "T407", "T5", "T1"),
)


ZERO_GRADIENT = Rule(
    code="T402",
    name="zero-gradient",
    severity=Severity.WARNING,
    summary="Gradients of parameters that take part are not exactly zero.",
    explanation="""\
Gradients that are there and are exactly 0 on every deep step, of two at least. An error when all of them are while
the loss is not 0; a warning when the first layers get nothing but zeros up to step 5 or later, as behind a dead
ReLU; a note for weights elsewhere.

Layers that start at zero on purpose (LoRA, residual branches) give zeros in the first steps only. Biases and other
vectors alone are passed over: one before a normalisation has no gradient by its nature. A margin loss that has
reached 0 is silent.""",
    cases=("a bias far below zero in front of a ReLU", "all weights initialised to zero"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_zero,
    explains=("T1", "T5", "T407"),
)


RULES = (MISSING_GRADIENT, ZERO_GRADIENT)
