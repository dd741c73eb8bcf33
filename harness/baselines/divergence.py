"""Finds where two runs part: the phase, the step in which it shows first, and what is still the same there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.baselines.blame import choose_phase, list_other_parameters
from harness.baselines.calls_in_order import has_other_inputs
from harness.baselines.differences import list_differences
from harness.baselines.evidence import Evidence
from harness.baselines.pairs import LADDER, VALUES_OF, Pair
from harness.baselines.pass_differences import LOSS
from harness.baselines.setting_changes import list_changes
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import TracePoint, Trajectory


def find_evidence(baseline: Trajectory, observed: Trajectory, ruler: Ruler) -> Evidence | None:
    """Where two runs part; None where they go the same way as far as both go."""
    used = find_used_generators(baseline, observed)
    changes = tuple(list_changes(baseline.settings, observed.settings))
    num_common = min(len(baseline.points), len(observed.points))
    for index in range(num_common):
        pair = Pair(baseline, observed, index)
        differences = list_differences(pair, ruler, used)
        if any(difference.moves for difference in differences):
            draft = Evidence(pair, index, tuple(differences), changes, is_exact=ruler.is_exact)
            phase = choose_phase(draft)
            return replace(draft, phase=phase, first_index=_find_first(pair, phase, ruler, used))
        if index == 0:
            used -= _list_idle(pair)
    return None


def find_used_generators(baseline: Trajectory, observed: Trajectory) -> frozenset[str]:
    """Generators besides torch's that move while the run trains: the others are often not even seeded."""
    return frozenset(
        name
        for trajectory in (baseline, observed)
        for name in (trajectory.points[0].generators if trajectory.points else {})
        if len({point.generators.get(name) for point in trajectory.points if point.generators}) > 1
    )


def _list_idle(first: Pair) -> set[str]:
    """Generators in another state in a first step that goes the same way: the training does not draw from them."""
    before, now = first.before.generators, first.now.generators
    return {name for name in before.keys() & now.keys() if before[name] != now[name]}


def _find_first(pair: Pair, phase: Phase, ruler: Ruler, used: frozenset[str]) -> int:
    """The first of the steps before a divergence in which what is blamed already differs."""
    index = pair.index
    while index > 0:
        earlier = Pair(pair.baseline, pair.observed, index - 1)
        if not any(found.phase is phase for found in list_differences(earlier, ruler, used)):
            break
        index -= 1
    return index


def list_identical(evidence: Evidence) -> list[str]:
    """What is still the same in the step that differs first, before the phase to blame."""
    pair = Pair(evidence.pair.baseline, evidence.pair.observed, evidence.first_index)
    before, now = pair.before, pair.now
    # Where more is not known, it belongs to the forward pass.
    is_other_loss = any(found.item == LOSS for found in evidence.differences)
    known: list[tuple[Phase, str, bool]] = [
        (Phase.DATA, "batch", bool(before.batch and now.batch) and not has_other_inputs(pair)),
        (Phase.RNG, "random generators", bool(before.generators and now.generators)),
        (Phase.INITIALISATION, "parameters", _knows_parameters(evidence)),
        (Phase.FORWARD, "forward pass", _knows_outputs(pair)),
        (Phase.LOSS, "loss", before.loss is not None and now.loss is not None and not is_other_loss),
        (Phase.GRADIENTS, "gradients", bool(before.gradients and now.gradients)),
        (Phase.SCHEDULE, "learning rate", bool(before.learning_rates and now.learning_rates)),
    ]
    differing = {found.phase for found in evidence.differences}
    if any(found.item.startswith(VALUES_OF) for found in evidence.differences):
        differing.add(Phase.INITIALISATION)
    if list_other_parameters(evidence):
        differing.add(Phase.INITIALISATION)
    limit = LADDER.index(evidence.phase)
    return [
        name
        for phase, name, is_known in known
        if is_known and LADDER.index(phase) < limit and phase not in differing
    ]


def _knows_parameters(evidence: Evidence) -> bool:
    pair = evidence.pair
    if evidence.first_index:
        return bool(pair.baseline.points[evidence.first_index - 1].updates)
    return pair.deep is not None and bool(pair.deep[0].tensors) and bool(pair.deep[1].tensors)


def _knows_outputs(pair: Pair) -> bool:
    if pair.deep is not None and pair.deep[0].outputs and pair.deep[1].outputs:
        return True
    return pair.before.loss is not None and pair.before.loss == pair.now.loss


def count_different(baseline: Sequence[TracePoint], observed: Sequence[TracePoint], ruler: Ruler) -> int:
    """The number of common steps whose losses differ."""
    return sum(
        not ruler.is_same_loss(one.loss, other.loss, index)
        for index, (one, other) in enumerate(zip(baseline, observed, strict=False))
    )
