"""Rules about what layers pass on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import find_obstacle_to_deep, list_deep, tell_names
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun

MIN_UNITS = 8


def _check_units(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    shares: dict[str, list[tuple[int, float, int]]] = {}
    for _, deep in list_deep(run):
        for module in deep.modules:
            if (
                module.num_units is not None
                and module.num_dead_units is not None
                and module.num_units >= MIN_UNITS
            ):
                share = module.num_dead_units / module.num_units
                shares.setdefault(module.name, []).append((deep.step, share, module.num_units))
    dead = {
        name: seen
        for name, seen in shares.items()
        # One batch may miss a unit; the first may see a layer that starts at zero.
        if len(seen) > 1 and min(share for _, share, _ in seen) >= bounds["max_share"]
    }
    if not dead:
        return
    shut = [name for name, seen in dead.items() if min(share for _, share, _ in seen) == 1.0]
    names = shut or list(dead)
    step, share, num_units = dead[names[0]][0]
    how = "nothing but zeros" if shut else f"zeros from at least {share:.0%} of the units before"
    yield Evidence(
        message=f"{tell_names(names)} got {how}, for whole batches and in all {len(dead[names[0]])} steps watched in "
        f"depth ({num_units} units, at most {bounds['max_share']:.0%} dead allowed): no gradient passes.",
        cause="a ReLU that was pushed below zero for good: a step that was too large, or a bias far below zero.",
        advice="look at the bias and the norm of the layer before; lower the learning rate, or use a leaky activation.",
        subject=names[0],
        step=step,
        severity=Severity.WARNING if shut else None,
    )


DEAD_UNITS = Rule(
    code="T408",
    name="dead-units",
    severity=Severity.NOTE,
    summary="Layers after a ReLU are given more than zeros.",
    explanation="""\
Where none of a linear or convolutional layer's inputs is below zero, as after a ReLU, the units that are zero for
every sample (and position) of a batch are counted. A warning when all of them are, on every step watched in depth,
of which there are two or more; a note from `max_share` on, as sparse codes do that on purpose.

Data themselves are left out: inputs that no gradient flows through. Normalisation between ReLU and layer hides it.""",
    cases=("a learning rate that kills a ReLU network in its first steps",),
    bounds=(Bound("max_share", 0.95, "largest share of a layer's units that may be dead"),),
    find_obstacle=find_obstacle_to_deep,
    check=_check_units,
    explains=("T401", "T402", "T403", "T1", "T5"),
)

RULES = (DEAD_UNITS,)
