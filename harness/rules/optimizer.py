"""Rules about what the optimizer holds, against what the model in use has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    is_stranger,
    list_deep,
    observed_of,
    tell_owners,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.record.deep import DeepObservation, ParameterObservation, UnheldParameter
    from harness.record.run import TrainingRun
    from harness.record.step_observation import StepObservation


MIN_NEVER_USED = 3


def _list_settled(run: TrainingRun) -> list[tuple[StepObservation, DeepObservation]]:
    """The deep steps by which every optimizer of the run had stepped."""
    first_steps: dict[int, int] = {}
    for step in observed_of(run).steps:
        for index in step.optimizers:
            first_steps.setdefault(index, step.step)
    # Optimizers built anew over the same parameters add nothing.
    settled = max(
        (
            first_steps[index]
            for index, optimizer in enumerate(observed_of(run).optimizers)
            if index in first_steps and optimizer.same_parameters_as is None
        ),
        default=0,
    )
    return [(step, deep) for step, deep in list_deep(run) if step.step >= settled]


def _list_held(run: TrainingRun) -> set[str]:
    return {
        name
        for optimizer in observed_of(run).optimizers
        for group in optimizer.groups
        for name in group.parameters
        if not is_stranger(name)
    }


def _is_held(name: str, held: set[str]) -> bool:
    # The name of the model goes before that of its parameter once there are several models.
    return name in held or any(known.endswith(f".{name}") or name.endswith(f".{known}") for known in held)


def _list_idle_strangers(deep: DeepObservation) -> list[ParameterObservation]:
    return [p for p in deep.parameters if is_stranger(p.name) and (not p.grad_norm or p.is_stale)]


def _check_unheld(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    held = _list_held(run)
    found: dict[str, UnheldParameter] = {}
    steps: list[int] = []
    strangers: list[ParameterObservation] = []
    num_trained = 0
    for step, deep in _list_settled(run):
        left_out = [p for p in deep.unheld if p.is_trainable and p.grad_norm and not _is_held(p.name, held)]
        if not left_out:
            continue
        steps.append(step.step)
        found |= {p.name: p for p in left_out}
        strangers = _list_idle_strangers(deep) or strangers
        num_trained = max(
            num_trained, sum(p.num_elements for p in deep.parameters if p.is_trainable and p.grad_norm)
        )
    if not found:
        return
    num_left_out = sum(math.prod(p.shape) for p in found.values())
    share = num_left_out / max(num_left_out + num_trained, 1)
    first = next(iter(found.values()))
    told = (
        f"{len(found)} trainable parameters of the model that runs, those of {tell_owners(found)} ({share:.1%} of "
        "what "
        f"gets a gradient), get one in {tell_steps(steps)} and belong to no optimizer"
    )
    if strangers:
        yield Evidence(
            message=f"{told}; the optimizer holds {len(strangers)} others, of shapes "
            f"{_tell_shapes([p.shape for p in strangers])}, that no model in use owns and that never get a gradient.",
            cause="the optimizer was built with another copy of the model, or a layer was replaced after it was "
            "built.",
            advice="build the optimizer last, from the parameters of the very model that is called.",
            subject=first.name,
            step=steps[0],
            severity=Severity.ERROR,
        )
        return
    idle = _find_idle(run, set(found))
    if idle is not None:
        yield Evidence(
            message=f"{told} that steps; {idle} holds them, was built, and never stepped.",
            cause="the step() of that optimizer is missing, or stands where it is never reached.",
            advice="call its step() after the backward that is meant for it.",
            subject=first.name,
            step=steps[0],
        )
        return
    is_small = share < bounds["max_share"] and all(
        p.is_model_held or p.is_model_training for p in found.values()
    )
    yield Evidence(
        message=f"{told}: they stay as they are.",
        cause="a filter that leaves them out of the parameter groups, or a layer that was added after the optimizer "
        "was built."
        if is_small
        else "the optimizer was given a part of the model, maybe on purpose.",
        advice="add them to the optimizer; if they are to stay as they are, set requires_grad_(False), which saves "
        "their "
        "gradients.",
        subject=first.name,
        step=steps[0],
        severity=Severity.WARNING if is_small else Severity.NOTE,
    )


def _find_idle(run: TrainingRun, names: set[str]) -> str | None:
    """The class of an optimizer that holds all of these and never stepped; None without one."""
    for idle in observed_of(run).idle_optimizers:
        if names <= {name for group in idle.groups for name in group.parameters}:
            return idle.name
    return None


def _tell_shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    shown = ", ".join(str(list(shape)) for shape in shapes[:3])
    return f"{shown}, ..." if len(shapes) > 3 else shown  # noqa: PLR2004  as many as are shown


def _check_strangers(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    pairs = _list_settled(run)
    if not pairs:
        return
    step, deep = pairs[-1]
    strangers = _list_idle_strangers(deep)
    if (
        strangers
        and len(strangers) == len(deep.parameters)
        and all(len(_list_idle_strangers(other)) == len(other.parameters) for _, other in pairs)
    ):
        yield Evidence(
            message=f"none of the {len(strangers)} parameters of the optimizer belongs to a model that is called, "
            "and none "
            f"gets a gradient, in {tell_steps([s.step for s, _ in pairs])}.",
            cause="the optimizer was built with another copy of the model.",
            advice="build the optimizer from the parameters of the very model that is called.",
            subject="optimizer",
            step=pairs[0][0].step,
            severity=Severity.ERROR,
        )
        return
    idle: dict[str, int] = {}
    for _, other in pairs:
        for parameter in other.parameters:
            is_idle = parameter.is_trainable and not parameter.grad_norm and parameter.took_part is False
            if is_idle and not parameter.ran_without_gradient:
                idle[parameter.name] = idle.get(parameter.name, 0) + 1
    names = [name for name, number in idle.items() if number == len(pairs)]
    if names and len(pairs) >= MIN_NEVER_USED:
        known = [name for name in names if not is_stranger(name)]
        told = f", such as those of {tell_owners(known)}," if known else ""
        yield Evidence(
            message=f"{len(names)} of the optimizer's {len(deep.parameters)} parameters{told} take part in no "
            "forward and "
            f"get no gradient, in {tell_steps([s.step for s, _ in pairs])}.",
            cause="a layer that is built and not used, or one that was replaced after the optimizer was built.",
            advice="take the layer out, or look why the forward does not call it.",
            subject=known[0] if known else "optimizer",
            step=step.step,
        )


UNHELD_PARAMETER = Rule(
    code="T501",
    name="parameter-in-no-optimizer",
    severity=Severity.WARNING,
    summary="Every trainable parameter that gets a gradient is held by an optimizer.",
    explanation="""\
The parameters of the models that are called, against those that the optimizers hold, on deep steps from the one on by
which every optimizer had stepped. An error when the optimizer holds strangers instead: parameters that no model in
use owns and that get no gradient, as after a copy of the model or a replaced layer. A warning when an optimizer that
was built for them never steps. A warning when less than
`max_share` of what gets a gradient is left out, as norms or a new layer are. A note for more: to give the optimizer
a head, an adapter or an input alone is often meant.

Silent about frozen parameters, teachers and targets that run without gradients, and networks with an optimizer of
their own.""",
    cases=(
        "an optimizer built over a deep copy (accelerate#2665, pytorch#149205)",
        "a head replaced after the optimizer was built",
        "norms in none of the parameter groups",
    ),
    bounds=(
        Bound(
            "max_share",
            0.3,
            "share of the numbers with a gradient up to which leaving them out is taken for a slip",
        ),
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_unheld,
    explains=("T502", "T511", "T1", "A106"),
)


STRANGERS = Rule(
    code="T502",
    name="optimizer-holds-strangers",
    severity=Severity.NOTE,
    summary="What the optimizer holds takes part in the training.",
    explanation="""\
An error when no parameter of the optimizer belongs to a model that is called and none gets a gradient on any deep
step. A note for parameters that take part in no forward of three deep steps or more. Parameters made by hand, which
belong to no module, have gradients and are silent.""",
    cases=("an optimizer over a copy of the model", "a layer that the forward no longer calls"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_strangers,
    explains=("T511", "T1"),
)


RULES = (
    UNHELD_PARAMETER,
    STRANGERS,
)
