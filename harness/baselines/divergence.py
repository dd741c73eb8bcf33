"""Decides where two runs part: the phase, and the step in which it shows first.

Differences of one step are read in the order in which a step passes its phases. That alone would blame the
consequences of a change that comes before the first step: another seed, a wider layer or an extra draw of random
numbers move the order of the data and the values of every parameter at once. So what a run was set up with is
compared too, and streams of random numbers are told from what is drawn from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.baselines.differences import LADDER, VALUES_OF, Difference, Pair, list_differences
from harness.baselines.run_settings import ORDER, SettingChange, list_changes
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import TensorPoint, TracePoint, Trajectory

SPREAD = 5.0
"""How many standard deviations the norms of two draws of one distribution may differ by."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of how two runs part.

    Attributes:
        pair: The first step that goes another way.
        first_index: The first step in which what is blamed differs; before that one or the same.
        differences: What differs in that step, in order.
        changes: Settings in which the runs differ.
        phase: What is blamed.
        is_exact: Whether every bit was compared.
    """

    pair: Pair
    first_index: int
    differences: tuple[Difference, ...]
    changes: tuple[SettingChange, ...]
    phase: Phase
    is_exact: bool = True

    @property
    def is_from_start(self) -> bool:
        """Whether the runs part before or in the first step."""
        return self.first_index == 0

    def find(self, phase: Phase) -> Difference | None:
        """The first difference of a phase."""
        return next((found for found in self.differences if found.phase is phase), None)

    def list_changes(self, phase: Phase) -> list[SettingChange]:
        """The settings of a phase that differ; the order of samples, which follows from others, aside."""
        return [change for change in self.changes if change.phase is phase and ORDER not in change.name]


def find_evidence(baseline: Trajectory, observed: Trajectory, ruler: Ruler) -> Evidence | None:
    """Where two runs part; None where they go the same way as far as both go."""
    used = find_used_generators(baseline, observed)
    changes = tuple(list_changes(baseline.settings, observed.settings))
    num_common = min(len(baseline.points), len(observed.points))
    for index in range(num_common):
        pair = Pair(baseline, observed, index)
        differences = list_differences(pair, ruler, used)
        if any(difference.moves for difference in differences):
            draft = Evidence(
                pair, index, tuple(differences), changes, differences[0].phase, is_exact=ruler.is_exact
            )
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


def choose_phase(evidence: Evidence) -> Phase:
    """The phase to blame for the differences of the first step that differs."""
    seen = {found.phase for found in evidence.differences}
    moved = next(found.phase for found in evidence.differences if found.moves)
    if evidence.pair.index == 0 and (
        moved is Phase.INITIALISATION or (seen & STREAMS and _is_reached(evidence))
    ):
        return _choose_before_start(evidence, seen)
    if seen & STREAMS and _is_reached(evidence):
        # In a later step a batch and the generators differ together where draws have moved, or epochs end elsewhere.
        has_other_data = Phase.RNG not in seen or bool(evidence.list_changes(Phase.DATA))
        return Phase.DATA if Phase.DATA in seen and has_other_data else Phase.RNG
    # Clipping hides what it does from the norms of single tensors, unless the program tells the norm before.
    if moved is Phase.GRADIENTS and evidence.list_changes(Phase.CLIPPING) and not _tells_norms(evidence.pair):
        return Phase.CLIPPING
    if moved is Phase.FORWARD and all(
        found.item.startswith(LOSSES) for found in evidence.differences if found.phase is Phase.FORWARD
    ):
        return _choose_by_settings(evidence)
    return moved


LOSSES = ("loss", "value of")
"""Beginnings of what tells that a loss differs, and not in which phase it came to be."""


def _choose_by_settings(evidence: Evidence) -> Phase:
    """A loss differs, and nothing that it is computed from is known: the first phase whose settings differ."""
    phases = [Phase.FORWARD, Phase.LOSS]
    before = evidence.pair.baseline.points[evidence.pair.index - 1] if evidence.pair.index else None
    # Between machines, or without traces, the updates before it may have differed.
    if before is not None and not (evidence.is_exact and before.updates):
        phases += [Phase.CLIPPING, Phase.OPTIMIZER, Phase.SCHEDULE]
    return next((phase for phase in phases if evidence.list_changes(phase)), Phase.FORWARD)


STREAMS = frozenset((Phase.DATA, Phase.RNG))


def _is_reached(evidence: Evidence) -> bool:
    """Whether what the model was given, or drew, can be what moved the training: something before its gradients did."""
    return any(
        found.moves and found.phase in (Phase.DATA, Phase.INITIALISATION, Phase.FORWARD, Phase.LOSS)
        for found in evidence.differences
    )


def _choose_before_start(evidence: Evidence, seen: set[Phase]) -> Phase:
    """What differs when the first step begins: data, parameters, streams of random numbers, or all of them."""
    has_moved_stream = Phase.RNG in seen
    if has_moved_stream and evidence.list_changes(Phase.RNG):
        return Phase.RNG
    if Phase.DATA in seen and (evidence.list_changes(Phase.DATA) or _has_other_range(evidence)):
        return Phase.DATA
    if evidence.list_changes(Phase.INITIALISATION):
        return Phase.INITIALISATION
    if not has_moved_stream:
        return Phase.DATA if Phase.DATA in seen else Phase.INITIALISATION
    if Phase.INITIALISATION in seen:
        return _choose_drawn(evidence.pair)
    return Phase.DATA if Phase.DATA in seen and _has_same_order(evidence.pair) else Phase.RNG


def _has_other_range(evidence: Evidence) -> bool:
    """Whether batches are of another kind: shape or type differ, or token ids reach further."""
    found = evidence.find(Phase.DATA)
    if found is None:
        return False
    if found.moves or found.change.startswith("type"):
        return True
    if evidence.pair.deep is None:
        return False
    before, now = evidence.pair.deep
    return any(
        one.dtype.startswith("float") and _is_scaled(one.std, other.std, KIND_FACTOR)
        for one, other in zip(before.inputs, now.inputs, strict=False)
    )


KIND_FACTOR = 1.5


def _is_scaled(one: float | None, other: float | None, factor: float) -> bool:
    """Whether two sizes are further apart than by a factor; not where one of them is nothing."""
    if not one or not other:
        return False
    return not 1 / factor <= other / one <= factor


def _has_same_order(pair: Pair) -> bool:
    """Whether loaders drew the same samples in the same order, so that only their contents differ."""
    before, now = pair.baseline.settings.get(Phase.DATA, {}), pair.observed.settings.get(Phase.DATA, {})
    orders = {name for name in before.keys() & now.keys() if ORDER in name}
    return bool(orders) and all(before[name] == now[name] for name in orders)


def _choose_drawn(pair: Pair) -> Phase:
    """Parameters and generators differ: another distribution, or other draws of the same one.

    Draws of one distribution have norms that differ by chance only, and all of them differ: a tensor that is
    drawn, and is the same, was drawn before the streams parted.
    """
    if pair.deep is None:
        return Phase.RNG
    before = {tensor.name: tensor for tensor in pair.deep[0].tensors}
    drawn = [
        (before[tensor.name], tensor)
        for tensor in pair.deep[1].tensors
        if tensor.name in before and not _is_constant(tensor, pair)
    ]
    if any(one.contents == other.contents for one, other in drawn):
        return Phase.INITIALISATION
    if any(_has_other_scale(one, other, pair) for one, other in drawn):
        return Phase.INITIALISATION
    return Phase.RNG


def _is_constant(tensor: TensorPoint, pair: Pair) -> bool:
    """Whether a tensor was filled with zeros or ones."""
    norm, count = tensor.weight_norm, count_elements(pair.observed, tensor.name)
    return not norm or (count is not None and abs(norm * norm - count) <= CONSTANT_TOLERANCE * count)


CONSTANT_TOLERANCE = 1e-5


def _has_other_scale(one: TensorPoint, other: TensorPoint, pair: Pair) -> bool:
    count = count_elements(pair.observed, other.name) or 1
    if not one.weight_norm or not other.weight_norm:
        return bool(one.weight_norm) != bool(other.weight_norm)
    # The norm of n draws varies by about one part in the root of 2 n.
    return _is_scaled(one.weight_norm, other.weight_norm, math.exp(SPREAD / math.sqrt(2 * count)))


def count_elements(trajectory: Trajectory, name: str) -> int | None:
    """The numbers in a parameter; None where its shape is not known."""
    text = str(trajectory.settings.get(Phase.INITIALISATION, {}).get(name, "")).partition(" ")[0]
    if text == "scalar":
        return 1
    try:
        return math.prod(int(size) for size in text.split("x"))
    except ValueError:
        return None


def _tells_norms(pair: Pair) -> bool:
    """Whether both runs tell the gradient norm before clipping."""
    return pair.before.grad_norm is not None and pair.now.grad_norm is not None


def list_identical(evidence: Evidence) -> list[str]:
    """What is still the same in the step that differs first, before the phase to blame."""
    pair = Pair(evidence.pair.baseline, evidence.pair.observed, evidence.first_index)
    before, now = pair.before, pair.now
    known: list[tuple[Phase, str, bool]] = [
        (Phase.DATA, "batch", bool(before.batch and now.batch)),
        (Phase.RNG, "random generators", bool(before.generators and now.generators)),
        (Phase.INITIALISATION, "parameters", _knows_parameters(evidence)),
        (Phase.FORWARD, "forward pass", _knows_outputs(pair)),
        (Phase.LOSS, "loss", before.loss is not None and now.loss is not None),
        (Phase.GRADIENTS, "gradients", bool(before.gradients and now.gradients)),
        (Phase.SCHEDULE, "learning rate", bool(before.learning_rates and now.learning_rates)),
    ]
    differing = {found.phase for found in evidence.differences}
    if any(found.item.startswith(VALUES_OF) for found in evidence.differences):
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
        not ruler.is_same(one.loss, other.loss, index)
        for index, (one, other) in enumerate(zip(baseline, observed, strict=False))
    )
