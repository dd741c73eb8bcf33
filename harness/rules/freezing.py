"""Rules about layers that are frozen and should not be."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    group_parameters,
    is_vector,
    list_deep,
    tell_owners,
)
from harness.rules.finding import Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation, ParameterObservation, UnheldParameter
    from harness.record.run import TrainingRun
    from harness.record.step_observation import StepObservation


def _check_frozen(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    pairs = list_deep(run)
    yield from _find_frozen_later(pairs)
    found = [(step.step, layer) for step, deep in pairs if (layer := _find_odd_layer(deep)) is not None]
    if found and _is_always_frozen(pairs, found[-1][1][0]):
        number, (frozen, siblings) = found[-1]
        yield Evidence(
            message=f"`{frozen}` is the only part of the model that does not train (requires_grad is False), "
            f"between layers that do; beside it {siblings} of its kind train.",
            cause="a line that froze it, left over from another experiment.",
            advice="take requires_grad_(False) away, or ignore this rule with the reason why that one is frozen.",
            subject=frozen,
            step=number,
        )


def _find_frozen_later(pairs: list[tuple[StepObservation, DeepObservation]]) -> Iterator[Evidence]:
    """Parameters that trained at first and are frozen from some deep step on, while others train on."""
    groups = group_parameters(pairs)
    changed: dict[str, int] = {}
    for name, seen in groups.items():
        states = [parameter.is_trainable for _, parameter in seen]
        if any(not before and after for before, after in itertools.pairwise(states)):
            return
        if states[0] and not states[-1] and not is_vector(seen[0][1].shape):
            changed[name] = seen[states.index(False)][0]
    trained = [name for name, seen in groups.items() if seen[-1][1].is_trainable]
    if not changed or not trained:
        return
    number = min(changed.values())
    yield Evidence(
        message=f"{tell_owners(changed)} trained at first and {'is' if len(changed) == 1 else 'are'} frozen by step "
        f"{number} "
        f"(requires_grad is False) to the end; {len(trained)} other parameters train on.",
        cause="requires_grad_(False) inside the loop, with nothing that takes it back.",
        advice="look for requires_grad_ and freeze in the loop over epochs and in what it calls.",
        subject=next(iter(changed)),
        step=number,
    )


def _is_always_frozen(pairs: list[tuple[StepObservation, DeepObservation]], layer: str) -> bool:
    return not any(
        parameter.is_trainable
        for _, deep in pairs
        for parameter in _list_everything(deep)
        if parameter.name.startswith(f"{layer}.")
    )


def _list_everything(deep: DeepObservation) -> list[ParameterObservation | UnheldParameter]:
    return [*deep.parameters, *deep.unheld]


def _find_model(name: str) -> str:
    """The class of the model that goes before a name where there are several models; else nothing."""
    first = name.partition(".")[0]
    return first if first[:1].isupper() else ""


def _find_odd_layer(deep: DeepObservation) -> tuple[str, int] | None:
    """The one frozen layer of a container whose other layers of its kind train, and how many these are.

    There must be no other frozen parameter at all, and trained ones before and after it.
    """
    everything = [
        (p.model_position, p.name, p.shape, p.is_trainable)
        for p in _list_everything(deep)
        if p.model_position is not None
    ]
    frozen = [
        (position, name, shape) for position, name, shape, is_trainable in everything if not is_trainable
    ]
    models = {_find_model(name) for _, name, _ in frozen}
    trained = [
        (position, name, shape)
        for position, name, shape, is_trainable in everything
        if is_trainable and _find_model(name) in models
    ]
    layers = {match.group(1, 2) for _, name, _ in frozen if (match := re.match(r"(.*?)\.(\d+)\.", name))}
    if len(layers) != 1 or not trained or len(frozen) >= len(trained):
        return None
    ((container, index),) = layers
    prefix = f"{container}.{index}."
    if any(not name.startswith(prefix) for _, name, _ in frozen):
        return None
    places = [position for position, _, _ in frozen]
    if not any(position < min(places) for position, _, _ in trained):
        return None
    if not any(position > max(places) for position, _, _ in trained):
        return None
    kind = {(name.removeprefix(prefix), len(shape)) for _, name, shape in frozen}
    siblings: dict[str, set[tuple[str, int]]] = {}
    for _, name, shape in trained:
        if (match := re.match(rf"{re.escape(container)}\.(\d+)\.(.*)", name)) is not None:
            siblings.setdefault(match[1], set()).add((match[2], len(shape)))
    num = sum(found == kind for other, found in siblings.items() if other != index)
    return (f"{container}.{index}", num) if num else None


FROZEN_LAYER = Rule(
    code="T507",
    name="layer-frozen",
    severity=Severity.WARNING,
    summary="No single layer is frozen between others that train, and none is frozen for good on the way.",
    explanation="""\
A numbered layer (`blocks.0`, `features.3`) with `requires_grad` False that is the only frozen part of all models, with
trained parameters before and after it and a sibling with parameters of the same names beside it that trains. And
weights that train on the first deep steps and are frozen on the later ones, while others train on.

A frozen backbone, embedding, adapter base or first half is more than one layer, or has nothing trained before it, and
is silent; so are all norms frozen together, and layers that are thawed on the way.""",
    cases=("requires_grad_(False) on one block, left from another experiment",),
    find_obstacle=find_obstacle_to_deep,
    check=_check_frozen,
)


RULES = (FROZEN_LAYER,)
