"""The calls of loss functions that trained, for the rules that look at what these were given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.record.deep import LossFunctionObservation
    from harness.record.run import TrainingRun

    Call = tuple[int, LossFunctionObservation]

HARD = ("cross_entropy", "nll_loss")
"""Loss functions of classes."""


def list_calls(run: TrainingRun, *names: str) -> list[Call]:
    """The calls that recorded a graph, each with its step; of the named functions alone where names are given."""
    deep_steps = run.observed.deep_steps if run.observed else []
    return [
        (deep.step, call)
        for deep in deep_steps
        for call in deep.loss_functions
        if call.is_training and (not names or call.name in names)
    ]


def find_obstacle_to_calls(run: TrainingRun) -> str | None:
    """Why a rule about the inputs of loss functions can't be applied."""
    if run.observed is None:
        return "the run was not watched"
    if not list_calls(run):
        return "no loss function of torch.nn.functional was seen in a step watched in depth"
    return None


def group_calls(calls: list[Call]) -> Iterator[list[Call]]:
    """The calls of one kind: the same function with the same number of classes, in order."""
    groups: dict[tuple[str, int], list[Call]] = {}
    for step, call in calls:
        groups.setdefault((call.name, count_classes(call)), []).append((step, call))
    yield from groups.values()


def count_classes(call: LossFunctionObservation) -> int:
    """Classes that a classification loss chooses from; 0 without a dimension for them."""
    shape = call.input_shape
    return (shape[1] if len(shape) > 1 else shape[0]) if shape else 0


def count_targets(call: LossFunctionObservation) -> int:
    """Targets that count."""
    return round(math.prod(call.target_shape) * (1.0 - (call.share_ignored or 0.0)))


def has_labels(call: LossFunctionObservation) -> bool:
    """Whether targets are classes, as whole numbers."""
    return call.share_ignored is not None


def tell_place(calls: list[Call], of: int) -> str:
    """Where calls were seen, in words."""
    steps = list(dict.fromkeys(step for step, _ in calls))
    shown = ", ".join(map(str, steps[:4])) + (f" and {len(steps) - 4} more" if len(steps) > 4 else "")  # noqa: PLR2004
    word = "step" if len(steps) == 1 else "steps"
    return f"{len(calls)} of the {of} calls watched, {word} {shown}"


def is_held(calls: list[Call], holds: Callable[[LossFunctionObservation], bool], least: float = 1.0) -> bool:
    """Whether something holds for at least a share of the calls, of which there is one."""
    return bool(calls) and sum(holds(call) for _, call in calls) >= least * len(calls)


def tell_shape(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def tell_counts(counts: Mapping[str, int], limit: int = 4) -> str:
    """Names with how often each occurs, the first few."""
    shown = ", ".join(f"{name} ({number})" for name, number in list(counts.items())[:limit])
    return shown + (f" and {len(counts) - limit} more" if len(counts) > limit else "")
