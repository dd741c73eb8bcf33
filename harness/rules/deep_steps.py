"""What several rules read off the steps that were watched in depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.record.deep import DeepObservation, ParameterObservation
    from harness.record.observation import RunObservation
    from harness.record.run import TrainingRun
    from harness.record.step_observation import StepObservation

MAX_NAMES = 4


def find_obstacle_to_deep(run: TrainingRun) -> str | None:
    """Why nothing can be read off deep steps; None when something can."""
    if run.observed is None:
        return "nothing was watched"
    if not list_deep(run):
        return "no step was watched in depth"
    return None


def find_obstacle_to_single(run: TrainingRun) -> str | None:
    """Why nothing can be read off deep steps of one optimizer that steps alone; None when something can."""
    obstacle = find_obstacle_to_deep(run)
    if obstacle is not None or run.observed is None:
        return obstacle
    if has_several_optimizers(run.observed):
        return "several optimizers take turns, and their backwards can't be told apart"
    return None


def find_obstacle_to_optimizers(run: TrainingRun) -> str | None:
    """Why nothing is known of the optimizers; None when something is."""
    if run.observed is None:
        return "nothing was watched"
    return None if run.observed.optimizers else "no optimizer stepped"


def has_distinct_batches(step: StepObservation, deep: DeepObservation) -> bool:
    """Whether the model was called with as many different batches as the step has backwards."""
    prints = deep.batch_fingerprints
    return step.num_closure_calls <= 1 and len(prints) == step.num_micro_batches == len(set(prints))


def list_deep(run: TrainingRun) -> list[tuple[StepObservation, DeepObservation]]:
    """The steps watched in depth, with what was seen on them; those that a GradScaler skipped are left out."""
    if run.observed is None:
        return []
    deep_steps = {deep.step: deep for deep in run.observed.deep_steps}
    return [
        (step, deep_steps[step.step])
        for step in run.observed.steps
        if step.step in deep_steps and not step.was_skipped
    ]


def observed_of(run: TrainingRun) -> RunObservation:
    """What the watcher saw of a run that was watched."""
    if run.observed is None:
        raise ValueError("nothing was watched")
    return run.observed


def group_parameters(
    pairs: Sequence[tuple[StepObservation, DeepObservation]],
) -> dict[str, list[tuple[int, ParameterObservation]]]:
    """Every parameter the optimizers held, by name, with what was seen of it on each deep step."""
    found: dict[str, list[tuple[int, ParameterObservation]]] = {}
    for _, deep in pairs:
        for parameter in deep.parameters:
            # A parameter that no model owns has no name but its place, and may be another one each time.
            if not is_stranger(parameter.name):
                found.setdefault(parameter.name, []).append((deep.step, parameter))
    return found


def is_stranger(name: str) -> bool:
    """Whether no model that was called owns the parameter of that name."""
    return name.startswith("?")


def owner_of(name: str) -> str:
    """The module that a parameter belongs to; the model itself is `the model`."""
    return name.rpartition(".")[0] or "the model"


def tell_owners(names: Iterable[str]) -> str:
    """The modules of some parameters, at most four of them, each in backquotes."""
    return tell_names(dict.fromkeys(owner_of(name) for name in names))


def tell_names(names: Iterable[str]) -> str:
    """At most four names in backquotes, and how many more there are."""
    listed = list(names)
    told = ", ".join(f"`{name}`" for name in listed[:MAX_NAMES])
    return f"{told} and {len(listed) - MAX_NAMES} more" if len(listed) > MAX_NAMES else told


def tell_steps(steps: Sequence[int]) -> str:
    """Step numbers in words, such as `steps 0, 1 and 10`."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    shown = [str(step) for step in steps[:MAX_NAMES]]
    if len(steps) > MAX_NAMES:
        return f"{len(steps)} deep steps ({', '.join(shown)}, ...)"
    return f"steps {', '.join(shown[:-1])} and {shown[-1]}"


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a parameter has one dimension at most, as biases and the weights of norms have."""
    return len(shape) <= 1
