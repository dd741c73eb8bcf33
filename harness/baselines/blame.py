"""Chooses the phase to blame for the differences of the first step that differs.

Differences of one step are read in the order in which a step passes its phases. That alone would blame the
consequences of a change that comes before the first step: another seed, a wider layer or an extra draw of random
numbers move the order of the data and the values of every parameter at once, and an optimizer that holds other
parameters shows in gradients and norms. So what a run was set up with is compared too, and streams of random numbers
are told from what is drawn from them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.baselines.batches import LATER, are_of_another_kind, has_other_given, has_same_order
from harness.baselines.draws import choose_drawn
from harness.baselines.holdings import (
    begins_to_train,
    has_other_shapes,
    holds_other_number,
    is_step_of_another,
)
from harness.baselines.pairs import HELD, LADDER, MODE, VALUES_OF, is_rounding
from harness.baselines.pass_differences import has_other_targets, has_same_outputs
from harness.baselines.ruler import measure_distance
from harness.baselines.run_settings import NOT_FINITE_BATCHES
from harness.baselines.trajectory import TORCH_GENERATORS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.evidence import Evidence
    from harness.baselines.pairs import Pair
    from harness.baselines.setting_changes import SettingChange

STREAMS = frozenset((Phase.DATA, Phase.RNG))
LOSSES = ("loss", "value of")
"""Beginnings of what tells that a loss differs, and not in which phase it came to be."""
COMPUTING = ("precision", "torch.compile")
"""Beginnings of settings of the forward pass that hold for the backward pass as well."""
SAME_FACTOR, OTHER_FACTOR, SAME_WEIGHTS = 1e-3, 1e-2, 1e-6


def choose_phase(evidence: Evidence) -> Phase:
    """The phase to blame for the differences of the first step that differs: what the first rule says that applies."""
    found = (rule(evidence) for rule in RULES)
    return next((phase for phase in found if phase is not None), evidence.moved)


def _judge_other_step(evidence: Evidence) -> Phase | None:
    """Nothing else of a step can be compared that another optimizer made, or behind updates of other parameters."""
    pair = evidence.pair
    if pair.index > 0 and begins_to_train(pair) and has_other_shapes(evidence):
        # Of a model that is built later only the numbers are known that its optimizer holds.
        return Phase.INITIALISATION
    is_behind = pair.index > 0 and (_holds_others(evidence) or holds_other_number(evidence))
    return Phase.OPTIMIZER if is_behind or is_step_of_another(pair) else None


def _judge_poison(evidence: Evidence) -> Phase | None:
    """Numbers are not finite any more, and a loader is known to have given such ones."""
    point = evidence.pair.now
    is_finite = all(math.isfinite(number) for number in (point.loss, point.grad_norm) if number is not None)
    is_given = any(
        change.name.endswith(NOT_FINITE_BATCHES) and change.observed is not None
        for change in evidence.list_changes(Phase.DATA)
    )
    return Phase.DATA if is_given and not is_finite else None


def _judge_streams(evidence: Evidence) -> Phase | None:
    """What the model was given, drew, or started from."""
    is_drawn = bool(evidence.seen & STREAMS) and _is_reached(evidence)
    if evidence.pair.index > 0:
        if evidence.moved is Phase.INITIALISATION and is_drawn:
            # Written to since the step before, by what may draw for it: a reset. Or draws of a model built since.
            is_new = Phase.RNG in evidence.seen and begins_to_train(evidence.pair)
            return choose_drawn(evidence.pair) if is_new else Phase.INITIALISATION
        return _choose_stream(evidence) if is_drawn else None
    if is_drawn or evidence.moved is Phase.INITIALISATION:
        return _choose_set_up(evidence) or _choose_start(evidence)
    if evidence.moved is Phase.FORWARD and list_other_parameters(evidence):
        return Phase.INITIALISATION
    return None


def _judge_beside(evidence: Evidence) -> Phase | None:
    """A model that no optimizer holds takes part in another mode, has other parameters, or gives something else."""
    if Phase.DATA in evidence.seen or evidence.moved not in (Phase.FORWARD, Phase.LOSS):
        return None
    beside = [found for found in evidence.differences if found.is_beside]
    if any(found.item.startswith(MODE) for found in beside) or _is_one_in_other_mode(evidence.pair):
        return Phase.FORWARD
    if not beside or Phase.RNG in evidence.seen:
        return None
    return next((found.phase for found in beside if found.item.startswith(VALUES_OF)), Phase.FORWARD)


def _is_one_in_other_mode(pair: Pair) -> bool:
    """Whether one of several models that record a graph in every step is in eval mode in one of the runs alone."""
    if not pair.has_other_eval_calls or pair.lacks_training_calls:
        return False
    more = max((pair.baseline, pair.observed), key=lambda run: run.points[pair.index].num_eval_calls or 0)
    return all(point.num_eval_calls for point in more.points if point.num_eval_calls is not None)


def _judge_calls(evidence: Evidence) -> Phase | None:
    """Of several calls of models in the step, the first that differs has other input or gives something else.

    Up to that call torch's generators are in the same states, so that no draw before it leads to it.
    """
    if evidence.moved not in (Phase.FORWARD, Phase.LOSS):
        return None
    found = next((found for found in evidence.differences if found.is_of_call), None)
    drawn = next(
        (other for other in evidence.differences if other.phase is Phase.RNG and other != found), None
    )
    if found is None or (found.phase is Phase.RNG and Phase.DATA in evidence.seen):
        return None
    if found.phase is Phase.DATA:
        return Phase.DATA if drawn is None else None
    if drawn is not None and not set(drawn.names) <= set(TORCH_GENERATORS):
        return None
    if found.phase is Phase.FORWARD and evidence.pair.index == 0 and list_other_parameters(evidence):
        return Phase.INITIALISATION
    return Phase.RNG if found.phase is Phase.RNG else _judge_written(evidence) or Phase.FORWARD


def _judge_written(evidence: Evidence) -> Phase | None:
    """The forward pass differs, and parameters of another optimizer were written to, as its next step shows."""
    if evidence.moved is not Phase.FORWARD:
        return None
    return next((found.phase for found in evidence.differences if found.item.startswith(VALUES_OF)), None)


def _judge_loss(evidence: Evidence) -> Phase | None:
    """Of the forward pass nothing is known but that the loss differs."""
    is_alone = all(
        found.item.startswith(LOSSES) or found.is_beside
        for found in evidence.differences
        if found.phase is Phase.FORWARD
    )
    if evidence.moved is not Phase.FORWARD or not is_alone:
        return None
    return Phase.LOSS if _is_scaled_as_a_whole(evidence.pair) else _choose_by_settings(evidence)


def _judge_gradients(evidence: Evidence) -> Phase | None:
    """Gradients differ, and nothing before them: what comes to the optimizer, or from how all is computed."""
    if LADDER.index(evidence.moved) >= LADDER.index(Phase.GRADIENTS) and _holds_others(evidence):
        return Phase.OPTIMIZER
    if evidence.moved is not Phase.GRADIENTS:
        return None
    if evidence.list_changes(Phase.CLIPPING):
        return Phase.CLIPPING
    if any(change.name.startswith(COMPUTING) for change in evidence.list_changes(Phase.FORWARD)):
        return Phase.FORWARD
    if _may_have_other_parameters(evidence) and evidence.list_changes(Phase.OPTIMIZER):
        return Phase.OPTIMIZER
    return None


def _judge_rounding(evidence: Evidence) -> Phase | None:
    """Gradients differ by rounding alone, and the loss of the next step, with the same parameters, by more.

    A term of the loss that is nothing in the first step, as a distance from a copy, weighs otherwise then.
    """
    pair = evidence.pair
    if evidence.moved is not Phase.GRADIENTS or pair.index + 1 >= min(
        len(pair.baseline.points), len(pair.observed.points)
    ):
        return None
    later = replace(pair, index=pair.index + 1)
    sizes = [
        (getattr(step.before, name), getattr(step.now, name))
        for step, name in ((pair, "grad_norm"), (pair, "update_norm"), (later, "weight_norm"))
    ]
    is_of_the_loss = all(
        None not in both and is_rounding(*both, SAME_WEIGHTS) for both in sizes
    ) and not is_rounding(later.before.loss, later.now.loss, SAME_FACTOR)
    return Phase.LOSS if is_of_the_loss else None


RULES: tuple[Callable[[Evidence], Phase | None], ...] = (
    _judge_other_step,
    _judge_poison,
    _judge_beside,
    _judge_calls,
    _judge_streams,
    _judge_written,
    _judge_loss,
    _judge_rounding,
    _judge_gradients,
)


def _holds_others(evidence: Evidence) -> bool:
    return any(found.item.startswith(HELD) for found in evidence.differences)


def _is_reached(evidence: Evidence) -> bool:
    """Whether what the model was given, or drew, can be what moved the training: something before its gradients did."""
    moved = {found.phase for found in evidence.differences if found.moves}
    if moved & {Phase.DATA, Phase.INITIALISATION, Phase.FORWARD}:
        return True
    if Phase.LOSS not in moved:
        return False
    return Phase.RNG in evidence.seen or not _is_unused(evidence)


def _is_unused(evidence: Evidence) -> bool:
    """Whether what differs in a batch reaches nothing: a field of the same samples that no module or loss used."""
    pair, found = evidence.pair, evidence.find(Phase.DATA)
    # Of later micro-batches, outputs are not known.
    is_later = found is not None and found.item == LATER
    return (
        not is_later and not has_other_given(pair) and has_same_outputs(pair) and not has_other_targets(pair)
    )


def _choose_stream(evidence: Evidence) -> Phase:
    """In a later step a batch and the generators differ together where draws have moved, or epochs end elsewhere."""
    seen, pair = evidence.seen, evidence.pair
    if Phase.DATA not in seen and pair.lacks_training_calls and pair.has_other_eval_calls:
        # A model in another mode draws for its dropout in the one and not in the other, before its first gradient too.
        return Phase.FORWARD
    # A batch from elsewhere, given to a model in another mode, is a step at another place: no draw leads to it.
    is_elsewhere = pair.lacks_training_calls
    is_other = bool(evidence.list_changes(Phase.DATA)) or are_of_another_kind(pair)
    has_other_data = Phase.RNG not in seen or is_elsewhere or is_other
    return Phase.DATA if Phase.DATA in seen and has_other_data else Phase.RNG


def _choose_set_up(evidence: Evidence) -> Phase | None:
    """Where the first step differs from its beginning: the first phase that was set up in another way."""
    if Phase.RNG in evidence.seen and evidence.list_changes(Phase.RNG):
        return Phase.RNG
    is_other_data = bool(evidence.list_changes(Phase.DATA)) or are_of_another_kind(evidence.pair)
    if Phase.DATA in evidence.seen and is_other_data:
        return Phase.DATA
    return Phase.INITIALISATION if list_other_parameters(evidence) else None


def _choose_start(evidence: Evidence) -> Phase:
    """Where nothing was set up in another way: data, parameters, or streams of random numbers."""
    pair, seen = evidence.pair, evidence.seen
    if Phase.RNG not in seen:
        return Phase.DATA if Phase.DATA in seen else Phase.INITIALISATION
    if _holds_others(evidence):
        # A module that was built anew draws; what the optimizer holds tells of it.
        return Phase.OPTIMIZER
    if Phase.INITIALISATION in seen:
        return choose_drawn(pair)
    drawn = evidence.find(Phase.RNG)
    if drawn is not None and not set(drawn.names) & set(TORCH_GENERATORS):
        # What a data set draws from another generator, as for its augmentation, follows from that one.
        return Phase.RNG
    return Phase.DATA if Phase.DATA in seen and has_same_order(pair) else Phase.RNG


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
    before, now = pair.before, pair.now
    return is_rounding(before.loss, now.loss) and is_rounding(before.grad_norm, now.grad_norm)
