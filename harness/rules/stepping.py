"""Rules about trainings that never step, and about layers that begin without any difference between their units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import find_obstacle_to_deep, list_deep, observed_of, tell_names
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun


def _find_obstacle_to_backwards(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched"
    if run.observed.steps:
        return None
    return (
        None if run.observed.num_compared_gradients else "no parameters could be compared between backwards"
    )


def _check_never_stepped(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    is_still = not observed.num_updates_by_hand and observed.num_compared_gradients >= bounds["min_backwards"]
    if observed.steps or not is_still:
        return
    yield Evidence(
        message=f"{observed.num_backwards} backward passes were made and no optimizer stepped; before "
        f"{observed.num_compared_gradients} of them the parameters were compared, and not one bit of them had changed.",
        cause="optimizer.step() is never reached: it was taken out, or stands in a branch that is never taken.",
        advice="call optimizer.step() after backward, and look at the condition around it.",
        subject="optimizer",
        step=0,
    )


def _check_alike(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for step, deep in list_deep(run):
        alike = [parameter.name for parameter in deep.parameters if parameter.are_rows_equal]
        if step.step or not alike:
            continue
        yield Evidence(
            message=f"all rows of {len(alike)} matrices are one and the same, and not 0, before the first step: "
            f"{tell_names(alike)}. Their units compute the same, get the same gradient, and stay the same.",
            cause="weights that are initialised to a constant.",
            advice="draw them at random, as nn.init.kaiming_uniform_ or normal_ do; zeros are for last layers only.",
            subject=alike[0],
            step=step.step,
        )


NEVER_STEPS = Rule(
    code="T510",
    name="optimizer-never-steps",
    severity=Severity.ERROR,
    summary="A program that computes gradients also uses them.",
    explanation="""\
No optimizer of torch stepped in the whole run, and from one backward to the next not one bit of the parameters below
the loss changed, so that nothing updated them by hand either. Where parameters could not be compared, as inside
torch.func, the rule is not applied.""",
    cases=("optimizer.step() lost in a merge, or put into the branch of an accumulation that never ends",),
    bounds=(Bound("min_backwards", 3.0, "backwards between which the parameters must have stayed the same"),),
    find_obstacle=_find_obstacle_to_backwards,
    check=_check_never_stepped,
    explains=("T1", "A1", "A2", "R1"),
)

UNITS_ALIKE = Rule(
    code="T409",
    name="units-alike",
    severity=Severity.WARNING,
    summary="The units of a layer begin different from each other.",
    explanation="""\
Before the first step all rows of a matrix are equal, and not 0. Such units can't become different by gradients alone.
Matrices of zeros are silent: last layers, adapters and gates begin so on purpose. So are norms and biases, which are
no matrices.""",
    cases=("nn.init.constant_ over all parameters", "a meta tensor filled with ones when it was made real"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_alike,
    explains=("T1", "T402", "T407", "T903", "T904"),
)

RULES = (NEVER_STEPS, UNITS_ALIKE)
