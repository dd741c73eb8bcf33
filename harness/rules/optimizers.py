"""Rules about several optimizers over the same parameters: side by side, and one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_optimizers,
    is_stranger,
    observed_of,
    tell_names,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.optimizer_observation import OptimizerObservation
    from harness.record.run import TrainingRun


def _check_shared(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    optimizers = observed_of(run).optimizers[:MAX_COMPARED]
    names = [
        {name for group in optimizer.groups for name in group.parameters if not is_stranger(name)}
        for optimizer in optimizers
    ]
    spans = _find_spans(run)
    for second in range(len(optimizers)):
        for first in range(second):
            both = names[first] & names[second]
            if not both or first not in spans or second not in spans:
                continue
            is_interleaved = spans[second][0] <= spans[first][1]
            if not is_interleaved:
                continue
            is_same = names[first] == names[second] and optimizers[first].name == optimizers[second].name
            is_whole_model = _is_model_beside_another(names[first], names[second])
            yield Evidence(
                message=f"two optimizers that both step, {optimizers[first].name} and {optimizers[second].name}, "
                "hold the "
                f"same {len(both)} parameters ({tell_names(sorted(both))}) of {len(names[first])} and "
                f"{len(names[second])}.",
                cause="both were built from the same model, as the second one's parameters were mistaken."
                if is_same or is_whole_model
                else "groups that overlap, or a shared part that both are meant to train.",
                advice="give each optimizer the parameters of its own model.",
                subject=min(both),
                severity=Severity.WARNING if is_same or is_whole_model else Severity.NOTE,
            )
            return


MAX_COMPARED = 16


def _is_model_beside_another(first: set[str], second: set[str]) -> bool:
    """Whether one optimizer holds a whole model alone, and the other one the same and another model."""
    less, more = sorted((first, second), key=len)
    return less < more and {_find_model(name) for name in less}.isdisjoint(map(_find_model, more - less))


def _find_model(name: str) -> str:
    # Where there are several models, the class of each goes before the names of its parameters.
    return name.partition(".")[0]


def _find_spans(run: TrainingRun) -> dict[int, tuple[int, int]]:
    """The first and the last step of each optimizer."""
    spans: dict[int, tuple[int, int]] = {}
    for step in observed_of(run).steps:
        for index in step.optimizers:
            first, _ = spans.get(index, (step.step, step.step))
            spans[index] = (first, step.step)
    return spans


def _check_rebuilt(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    optimizers = observed_of(run).optimizers
    spans = _find_spans(run)
    rebuilt = [
        index
        for index, optimizer in enumerate(optimizers)
        if (before := optimizer.same_parameters_as) is not None
        and index in spans
        and before in spans
        and optimizers[before].name == optimizer.name
        and spans[before][1] < spans[index][0]
        and _has_state(optimizer)
    ]
    if len(rebuilt) < bounds["max_rebuilt"]:
        return
    name = optimizers[rebuilt[0]].name
    rest = "" if spans[rebuilt[-1]][1] > spans[rebuilt[0]][0] + len(rebuilt) else ", at every step"
    shown = [spans[index][0] for index in rebuilt]
    yield Evidence(
        message=f"{name} is built anew over the same parameters {len(rebuilt)} times during the run{rest}: first at "
        f"{tell_steps(shown)}; each time its moments and its step count are gone.",
        cause="the optimizer is built inside the loop.",
        advice="build it once, before the loop; to change its learning rate, set it in its groups or use a scheduler.",
        subject=name,
        step=shown[0],
    )


def _has_state(optimizer: OptimizerObservation) -> bool:
    return optimizer.name != "SGD" or any(group.hyperparameters.get("momentum") for group in optimizer.groups)


SHARED_PARAMETER = Rule(
    code="T503",
    name="parameter-in-two-optimizers",
    severity=Severity.WARNING,
    summary="No two optimizers that take turns hold the same parameters.",
    explanation="""\
A warning when two optimizers of one class that step in turns hold just the same parameters, as when both networks of
a GAN were mixed up, or when one holds the other's whole model beside its own; a note when they overlap
otherwise. Optimizers that follow one another, as in two stages, are silent.""",
    cases=("both optimizers of a GAN over the generator",),
    find_obstacle=find_obstacle_to_optimizers,
    check=_check_shared,
    explains=("T401", "T501", "T502"),
)


REBUILT = Rule(
    code="T504",
    name="optimizer-rebuilt",
    severity=Severity.WARNING,
    summary="The optimizer keeps its state over the run.",
    explanation="""\
Optimizers of one class over the very same parameters that follow one another, `max_rebuilt` times or more. Those
without state (SGD without momentum) are silent, and so are the stages of a training, and new models.""",
    cases=("an optimizer built inside the loop over epochs",),
    bounds=(Bound("max_rebuilt", 2, "how often an optimizer may be built anew, this number not included"),),
    find_obstacle=find_obstacle_to_optimizers,
    check=_check_rebuilt,
    explains=("T6",),
)


RULES = (
    SHARED_PARAMETER,
    REBUILT,
)
