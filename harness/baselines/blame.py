"""Chooses the phase to blame for the differences of the first step that differs.

Differences of one step are read in the order in which a step passes its phases. That alone would blame the
consequences of a change that comes before the first step: another seed, a wider layer or an extra draw of random
numbers move the order of the data and the values of every parameter at once, and an optimizer that holds other
parameters shows in gradients and norms. So what a run was set up with is compared too, and streams of random numbers
are told from what is drawn from them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.batches import are_of_another_kind, has_other_given
from harness.baselines.draws import choose_drawn
from harness.baselines.holdings import HELD, is_step_of_another
from harness.baselines.pairs import LADDER, SAME_TENSORS
from harness.baselines.pass_differences import has_other_targets, has_same_outputs
from harness.baselines.ruler import measure_distance
from harness.baselines.run_settings import NOT_FINITE_BATCHES, ORDER
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.evidence import Evidence
    from harness.baselines.pairs import Pair
    from harness.baselines.setting_changes import SettingChange
    from harness.baselines.trajectory import TracePoint

STREAMS = frozenset((Phase.DATA, Phase.RNG))
LOSSES = ("loss", "value of")
"""Beginnings of what tells that a loss differs, and not in which phase it came to be."""
COMPUTING = ("precision", "torch.compile")
"""Beginnings of settings of the forward pass that hold for the backward pass as well."""
SAME_FACTOR, OTHER_FACTOR = 1e-3, 1e-2


def choose_phase(evidence: Evidence) -> Phase:
    """The phase to blame for the differences of the first step that differs."""
    pair, moved = evidence.pair, evidence.moved
    holds_others = _holds_others(evidence)
    if is_step_of_another(pair) or (holds_others and pair.index > 0):
        # Nothing else of the step can be compared, or it follows from updates of other parameters before.
        return Phase.OPTIMIZER
    if _is_poisoned(evidence):
        return Phase.DATA
    if pair.index == 0 and moved is Phase.INITIALISATION:
        return _choose_before_start(evidence)
    if evidence.seen & STREAMS and _is_reached(evidence):
        return _choose_before_start(evidence) if pair.index == 0 else _choose_stream(evidence)
    if pair.index == 0 and moved is Phase.FORWARD and list_other_parameters(evidence):
        return Phase.INITIALISATION
    if holds_others and LADDER.index(moved) >= LADDER.index(Phase.GRADIENTS):
        return Phase.OPTIMIZER
    if moved is Phase.FORWARD and _is_loss_alone(evidence):
        return Phase.LOSS if _is_scaled_as_a_whole(pair) else _choose_by_settings(evidence)
    return _explain_gradients(evidence) if moved is Phase.GRADIENTS else moved


def _holds_others(evidence: Evidence) -> bool:
    return any(found.item.startswith(HELD) for found in evidence.differences)


def _is_poisoned(evidence: Evidence) -> bool:
    """Whether numbers are not finite any more, and a loader is known to have given such ones."""
    point = evidence.pair.now
    is_finite = all(math.isfinite(number) for number in (point.loss, point.grad_norm) if number is not None)
    return not is_finite and any(
        change.name.endswith(NOT_FINITE_BATCHES) and change.observed is not None
        for change in evidence.list_changes(Phase.DATA)
    )


def _is_reached(evidence: Evidence) -> bool:
    """Whether what the model was given, or drew, can be what moved the training: something before its gradients did."""
    moved = {found.phase for found in evidence.differences if found.moves}
    if moved & {Phase.DATA, Phase.INITIALISATION, Phase.FORWARD}:
        return True
    if Phase.LOSS not in moved:
        return False
    # A field of the batch that no module used, of the same batch, does not reach the loss either.
    pair = evidence.pair
    is_unused = has_same_outputs(pair) and not has_other_targets(pair) and not has_other_given(pair)
    return Phase.RNG in evidence.seen or not is_unused


def _choose_stream(evidence: Evidence) -> Phase:
    """In a later step a batch and the generators differ together where draws have moved, or epochs end elsewhere."""
    seen = evidence.seen
    # A batch from elsewhere, given to a model in another mode, is a step at another place: no draw leads to it.
    is_elsewhere = evidence.pair.is_in_other_mode
    has_other_data = Phase.RNG not in seen or is_elsewhere or bool(evidence.list_changes(Phase.DATA))
    return Phase.DATA if Phase.DATA in seen and has_other_data else Phase.RNG


def _choose_before_start(evidence: Evidence) -> Phase:
    """What differs when the first step begins: data, parameters, streams of random numbers, or all of them."""
    pair, seen = evidence.pair, evidence.seen
    has_moved_stream = Phase.RNG in seen
    if has_moved_stream and evidence.list_changes(Phase.RNG):
        return Phase.RNG
    if Phase.DATA in seen and (evidence.list_changes(Phase.DATA) or are_of_another_kind(pair)):
        return Phase.DATA
    if list_other_parameters(evidence):
        return Phase.INITIALISATION
    if not has_moved_stream:
        return Phase.DATA if Phase.DATA in seen else Phase.INITIALISATION
    if _holds_others(evidence):
        # A module that was built anew draws; what the optimizer holds tells of it.
        return Phase.OPTIMIZER
    if Phase.INITIALISATION in seen:
        return choose_drawn(pair)
    return Phase.DATA if Phase.DATA in seen and _has_same_order(pair) else Phase.RNG


def list_other_parameters(evidence: Evidence) -> list[SettingChange]:
    """Parameters that only one of the models has, or that have another shape or type.

    Not those that are frozen, nor those that are only called otherwise, as behind a module that was put in between.
    """

    def describe(value: object) -> str:
        return str(value).replace(" frozen", "")

    changes = evidence.list_changes(Phase.INITIALISATION)
    gone, new = (
        sorted(describe(value) for value, other in values if other is None)
        for values in (
            [(change.baseline, change.observed) for change in changes],
            [(change.observed, change.baseline) for change in changes],
        )
    )
    return [
        change
        for change in changes
        if describe(change.baseline) != describe(change.observed)
        and (gone != new or None not in (change.baseline, change.observed))
    ]


def _has_same_order(pair: Pair) -> bool:
    """Whether loaders drew the same samples in the same order, so that only their contents differ."""
    before, now = pair.baseline.settings.get(Phase.DATA, {}), pair.observed.settings.get(Phase.DATA, {})
    orders = {name for name in before.keys() & now.keys() if ORDER in name}
    return bool(orders) and all(before[name] == now[name] for name in orders)


def _is_loss_alone(evidence: Evidence) -> bool:
    """Whether of the forward pass nothing is known but that the loss differs."""
    return all(
        found.item.startswith(LOSSES) for found in evidence.differences if found.phase is Phase.FORWARD
    )


def _is_scaled_as_a_whole(pair: Pair) -> bool:
    """Whether loss and gradients are those of the baseline, times one factor."""
    factors = [
        other / one
        for one, other in ((pair.before.loss, pair.now.loss), (pair.before.grad_norm, pair.now.grad_norm))
        if one and other and math.isfinite(one) and math.isfinite(other)
    ]
    return (
        len(factors) == 2  # noqa: PLR2004  both
        and measure_distance(*factors) < SAME_FACTOR
        and abs(factors[0] - 1) > OTHER_FACTOR
    )


def _choose_by_settings(evidence: Evidence) -> Phase:
    """A loss differs, and nothing that it is computed from is known: the first phase whose settings differ."""
    phases = [Phase.FORWARD, Phase.LOSS]
    if _may_have_other_parameters(evidence):
        phases += [Phase.CLIPPING, Phase.OPTIMIZER, Phase.SCHEDULE]
    return next((phase for phase in phases if evidence.list_changes(phase)), Phase.FORWARD)


def _may_have_other_parameters(evidence: Evidence) -> bool:
    """Whether updates before the step may have differed: between machines, without traces, or by rounding."""
    pair = evidence.pair
    if pair.index == 0:
        return False
    if not evidence.is_exact or not pair.baseline.points[pair.index - 1].updates:
        return True
    return _is_rounding(pair.before, pair.now)


def _is_rounding(before: TracePoint, now: TracePoint) -> bool:
    """Whether loss and gradients differ by no more than another order of summation makes of them."""
    numbers = ((before.loss, now.loss), (before.grad_norm, now.grad_norm))
    return all(
        measure_distance(one, other) <= SAME_TENSORS
        for one, other in numbers
        if one is not None and other is not None
    )


def _explain_gradients(evidence: Evidence) -> Phase:
    """Gradients differ, and nothing before them: clipping, or how everything is computed, may have been set anew."""
    if evidence.list_changes(Phase.CLIPPING):
        return Phase.CLIPPING
    if any(change.name.startswith(COMPUTING) for change in evidence.list_changes(Phase.FORWARD)):
        return Phase.FORWARD
    if _may_have_other_parameters(evidence) and evidence.list_changes(Phase.OPTIMIZER):
        return Phase.OPTIMIZER
    return Phase.GRADIENTS
