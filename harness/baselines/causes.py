"""What is likely behind a divergence, in words: from the settings that differ, and from how the numbers do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.batches import find_repeated, has_same_order
from harness.baselines.holdings import HELD
from harness.baselines.names import name_group
from harness.baselines.pairs import MODE, VALUES_OF, Pair, is_rounding
from harness.baselines.parameter_differences import list_values
from harness.baselines.pass_differences import (
    INPUTS_OF,
    MICRO_BATCHES,
    SCALER_STEP,
    has_other_targets,
)
from harness.baselines.rate_causes import tell_rates
from harness.baselines.ruler import measure_distance
from harness.baselines.trajectory import Phase
from harness.baselines.update_differences import list_gradient_norms, list_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.baselines.evidence import Evidence
    from harness.baselines.pairs import Difference
    from harness.baselines.setting_changes import SettingChange

MAX_CHANGES = 4
SAME_RATIO = 1e-4


def list_causes(evidence: Evidence) -> list[str]:
    """Whole sentences, most likely first; never empty."""
    causes = [*_tell_changes(evidence), *_TELLERS[evidence.phase](evidence)]
    return causes or [_FALLBACK[evidence.phase]]


def _tell_changes(evidence: Evidence) -> Iterator[str]:
    """The settings of the phase that differ, as they stand."""
    changes = evidence.list_changes(evidence.phase)
    # What changes no number is told where nothing else is.
    changes = [change for change in changes if not change.is_neutral] or changes
    for change in changes[:MAX_CHANGES]:
        yield f"{change}."
    if len(changes) > MAX_CHANGES:
        yield f"{len(changes) - MAX_CHANGES} more settings of this phase differ."


def _tell_data(evidence: Evidence) -> Iterator[str]:
    if evidence.list_changes(Phase.DATA):
        return
    orders = [change for change in evidence.changes if change.phase is Phase.DATA and change.is_order]
    step = evidence.first_index
    if orders:
        yield (
            f"batch {step} holds other samples: the order of the data changed, and no setting of its loader that "
            "was seen: another generator or seed of the sampler, or the data set is sorted or split differently."
        )
        return
    pair = Pair(evidence.pair.baseline, evidence.pair.observed, step)
    if not pair.before.batch:
        return
    repeated = find_repeated(pair)
    if pair.before.shapes != pair.now.shapes:
        yield (
            f"batch {step} has another shape, {pair.now.shapes} in place of {pair.before.shapes}: another batch size, "
            "length or size of the samples."
        )
    elif repeated is not None:
        yield f"batch {step} is that of step {repeated} again: a batch is kept, or the data begin anew."
    elif not has_same_order(pair):
        yield (
            f"batch {step} holds other samples, or other contents of the same: drawn, cut, ordered or normalised in "
            "another way."
        )
    else:
        yield (
            f"batch {step} holds other contents of the same samples: normalisation, augmentation, tokenisation, or "
            "the stored data themselves."
        )


def _tell_generators(evidence: Evidence) -> Iterator[str]:
    if evidence.list_changes(Phase.RNG):
        return
    found = evidence.find(Phase.RNG)
    names = found.names if found else ()
    if any(name in ("python", "numpy") for name in names) and "torch" not in names:
        yield (
            f"the generator of {' and '.join(names)} is not seeded, was seeded with something else, or an extra number "
            "is drawn from it, or one less."
        )
        return
    step = evidence.first_index
    if step == 0 and evidence.find(Phase.INITIALISATION) is not None:
        yield (
            "the parameters are other draws from the same distributions: an extra random number is drawn before "
            "the model is built, or one less, or the seed is set at another place."
        )
    elif step == 0:
        yield (
            "dropout draws and shuffling have moved: an extra random number is drawn, or one less, between "
            "building the model and step 0."
        )
    else:
        yield (
            f"random draws have moved since step {step}: an extra random number is drawn, or one less, in or after "
            f"step {step - 1}, perhaps in an evaluation."
        )


def _tell_initialisation(evidence: Evidence) -> Iterator[str]:
    found = evidence.find(Phase.INITIALISATION)
    if found is not None and evidence.first_index > 0:
        yield f"{_tell_written(found)}."
        return
    if evidence.list_changes(Phase.INITIALISATION):
        yield "the model has other parameters; what is drawn after them, the order of the data too, moves with them."
        return
    if found is None:
        return
    before, now = list_values(evidence.pair.baseline, 0), list_values(evidence.pair.observed, 0)
    ratios = [
        later / earlier
        for name in found.names
        if name in before
        and name in now
        and (earlier := before[name].weight_norm)
        and (later := now[name].weight_norm)
    ]
    if not all(map(math.isfinite, ratios)):
        yield f"{name_group(found.names)} {_agree(found.names, 'begins', 'begin')} with numbers that are not finite."
    elif ratios:
        most = f" to x{max(ratios):.3g}" if max(ratios) > min(ratios) * 1.01 else ""
        yield (
            f"{name_group(found.names)} {_agree(found.names, 'is', 'are')} initialised differently: the norm is "
            f"x{min(ratios):.3g}{most}."
        )
    else:
        yield f"{name_group(found.names)} {_agree(found.names, 'starts', 'start')} from other values."


def _tell_written(found: Difference) -> str:
    return (
        f"{name_group(found.names)} {_agree(found.names, 'differs', 'differ')} after the same updates: written to "
        "between the steps, outside of the optimizer (clamped, averaged, loaded, reset)"
    )


def _agree(names: Sequence[str], one: str, many: str) -> str:
    """The verb that goes with so many names."""
    return one if len(names) == 1 and names != ("*",) else many


def _tell_forward(evidence: Evidence) -> Iterator[str]:
    found = evidence.find(Phase.FORWARD)
    if evidence.list_changes(Phase.FORWARD) or found is None:
        return
    if found.item.startswith(MODE):
        who = f"{name_group(found.names)}: " if found.names else ""
        yield f"{who}{_tell_mode(evidence)}model.train() or model.eval() is called at another place."
    elif found.is_beside:
        yield (
            f"`{found.names[0]}`, which no optimizer holds, gives something else for the same: its code, its buffers "
            "(running statistics), or that of what calls it, changed."
        )
    elif found.item.startswith("output of"):
        yield (
            f"`{found.names[0]}` computes something else from the same batch, parameters and random numbers: its "
            "code, or that of what calls it, changed."
        )
    else:
        if not evidence.is_exact and has_other_targets(evidence.pair):
            yield (
                "the loss function was given other targets: labels that are shifted, shuffled or made in another way; "
                "or targets that are computed, whose last digits another machine rounds differently."
            )
        yield (
            "the model computes something else from the same batch, parameters and random numbers: its code, its "
            "mode, its buffers (running statistics, caches), or parameters changed outside of the optimizer."
        )


def _tell_mode(evidence: Evidence) -> str:
    """From which step on the model is in another mode, and until when; empty where it is from the start."""
    pair, first = evidence.pair, evidence.first_index
    if first == 0 or not (pair.lacks_training_calls and pair.has_other_eval_calls):
        return ""
    mode = "training" if pair.now.shapes else "eval"
    common = list(zip(pair.baseline.points, pair.observed.points, strict=False))
    until = next(
        (
            f"until step {now.step}"
            for before, now in common[first:]
            if before.num_eval_calls is not None and before.num_eval_calls == now.num_eval_calls
        ),
        "on",
    )
    return f"the model is in {mode} mode from step {common[first][1].step} {until}, which it is not in the baseline: "


def _tell_loss(evidence: Evidence) -> Iterator[str]:
    pair = evidence.pair
    if evidence.list_changes(Phase.LOSS):
        return
    found = evidence.find(Phase.LOSS)
    if found is None:
        if pair.before.loss and pair.now.loss is not None:
            ratio = pair.now.loss / pair.before.loss
            yield f"loss and gradients are x{ratio:.4g} of before, all alike: the loss is scaled in this step."
        return
    cause = next((text for item, text in _OF_LOSS.items() if found.item.startswith(item)), None)
    if pair.now.loss is not None and not math.isfinite(pair.now.loss):
        yield f"the loss is {pair.now.loss} here, from the same outputs."
    elif cause is not None:
        yield cause.format(change=found.change)
    elif pair.before.loss and pair.now.loss is not None and pair.before.loss != pair.now.loss:
        ratio = pair.now.loss / pair.before.loss
        yield (
            f"what reaches backward is x{ratio:.4g} of before, from the same outputs: another weight or term of the "
            "loss, another reduction, or another scale."
        )


_OF_LOSS = {
    "targets of": "the targets are made from the batch in another way: shifted, masked, or another column.",
    INPUTS_OF: "all modules gave the same, the loss function is given something else: what lies between them changed.",
    "scale": "the loss is divided or multiplied by something else before backward ({change}).",
    MICRO_BATCHES: "this step has another number of backward passes ({change}): it accumulates over more or fewer.",
    SCALER_STEP: "this step is {change}: its gradients are not finite in one of the runs, or the scale is another.",
}
"""Causes by what differs in the loss."""


def _tell_gradients(evidence: Evidence) -> Iterator[str]:
    found = evidence.find(Phase.GRADIENTS)
    if found is None:
        return
    pair = evidence.pair
    if pair.deep is not None:
        before, now = list_gradient_norms(pair)
        lost = [name for name in before if name not in now and before[name]]
        gained = [name for name in now if name not in before and now[name]]
        if lost:
            yield (
                f"{name_group(lost)} get{'s' if len(lost) == 1 else ''} no gradient any more: frozen, detached, or "
                "left out of the loss."
            )
            return
        if gained:
            yield f"{name_group(gained)} now get{'s' if len(gained) == 1 else ''} a gradient."
            return
        yield from _tell_scaled(before, now)
        return
    lost = list_lost(pair)
    if lost:
        yield f"{name_group(lost)} {_agree(lost, 'gets', 'get')} no gradient from this step on: frozen or detached."
    elif pair.before.grad_norm and pair.now.grad_norm:
        yield (
            f"the gradients of step {pair.before.step} differ, forward pass and loss do not: gradients of the step "
            "before are kept or cleared at another place, a layer is frozen, a hook changes them, or backward itself "
            "does."
        )


def _tell_scaled(before: dict[str, float], now: dict[str, float]) -> Iterator[str]:
    broken = [name for name, norm in now.items() if not math.isfinite(norm)]
    if broken:
        yield (
            f"the gradient of {name_group(broken)} holds numbers that are not finite, forward pass and loss are the "
            "same."
        )
        return
    mended = [name for name, norm in before.items() if not math.isfinite(norm)]
    if mended:
        yield f"the gradient of {name_group(mended)} holds numbers that are not finite in the baseline, and none now."
        return
    ratios = {name: now[name] / norm for name, norm in before.items() if norm and name in now}
    moved = {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) > SAME_RATIO}
    if not moved:
        yield "single numbers of the gradients differ, their size does not: rounding, or another order of summation."
        return
    smallest, largest = min(moved.values()), max(moved.values())
    who = "every gradient" if len(moved) == len(ratios) else f"the gradient of {name_group(list(moved))}"
    if measure_distance(smallest, largest) < SAME_RATIO:
        yield (
            f"{who} is x{smallest:.4g}, forward pass and loss are the same: scaled in backward, by a hook, by a "
            "reduction over ranks or micro-batches, or not cleared before."
        )
    else:
        yield f"{who} differs (x{smallest:.3g} to x{largest:.3g}), forward pass and loss do not."


def _tell_clipping(evidence: Evidence) -> Iterator[str]:
    if evidence.list_changes(Phase.CLIPPING):
        return
    before, now = evidence.pair.before, evidence.pair.now
    if not is_rounding(before.grad_norm, now.grad_norm, SAME_RATIO):
        yield (
            "clipping finds another norm in the same gradients: it is called at another place, or with other "
            "parameters."
        )
        return
    for one, text in (
        (now, "gradients are no longer clipped"),
        (before, "gradients are clipped that were not"),
    ):
        if one.grad_norm is not None and is_rounding(one.grad_norm, one.clipped_norm, SAME_RATIO):
            yield f"{text}."
            return
    yield "gradients are clipped to another norm."


def _tell_optimizer(evidence: Evidence) -> Iterator[str]:
    held = next((found for found in evidence.differences if found.item.startswith(HELD)), None)
    if held is not None:
        yield f"{held.item} are others ({held.change}): {name_group(held.names)} moved into it, or out of it."
    if held is not None or evidence.list_changes(Phase.OPTIMIZER):
        return
    found = evidence.find(Phase.OPTIMIZER)
    if found is not None and found.item.startswith(VALUES_OF):
        yield f"{_tell_written(found)}; where they differ in the last digits alone, the optimizer's arithmetic."
    elif found is not None and found.names and found.names != ("*",):
        yield (
            f"the update of {name_group(found.names)} differs, gradients and learning rate do not: the optimizer's "
            "arithmetic or state (lost, shared, reset), or parameters changed after the step."
        )


_TELLERS: dict[Phase, Callable[[Evidence], Iterator[str]]] = {
    Phase.DATA: _tell_data,
    Phase.RNG: _tell_generators,
    Phase.INITIALISATION: _tell_initialisation,
    Phase.FORWARD: _tell_forward,
    Phase.LOSS: _tell_loss,
    Phase.GRADIENTS: _tell_gradients,
    Phase.CLIPPING: _tell_clipping,
    Phase.OPTIMIZER: _tell_optimizer,
    Phase.SCHEDULE: tell_rates,
}

_FALLBACK = {
    Phase.DATA: "the program is given other data.",
    Phase.RNG: "random draws have moved.",
    Phase.INITIALISATION: "the parameters start from other values.",
    Phase.FORWARD: "the model computes something else from the same batch and parameters.",
    Phase.LOSS: "the loss is computed, weighted or scaled differently.",
    Phase.GRADIENTS: "backward, or what changes gradients after it, differs.",
    Phase.CLIPPING: "gradients are clipped differently.",
    Phase.OPTIMIZER: "the optimizer makes another update of the same gradients.",
    Phase.SCHEDULE: "the learning rate takes another course.",
}


def tell_setting(change: SettingChange) -> str:
    """A setting that differs although the training is the same, as a note."""
    return f"{change}, which changes nothing in the steps that were compared"


def list_modules(evidence: Evidence) -> tuple[str, ...]:
    """Names of the modules a divergence is about."""
    found = evidence.find(evidence.phase)
    changes = [change.name for change in evidence.list_changes(evidence.phase)]
    names = (found.names if found else ()) if evidence.phase in _OF_MODULES else ()
    return tuple(dict.fromkeys([*changes, *names]))


_OF_MODULES = (Phase.INITIALISATION, Phase.FORWARD, Phase.GRADIENTS, Phase.OPTIMIZER)


def tell_pair(pair: Pair) -> str:
    """What became of the loss, in a sentence; empty where both go the same way."""
    last = min(len(pair.baseline.points), len(pair.observed.points)) - 1
    before, now = pair.baseline.points[last].loss, pair.observed.points[last].loss
    if before is None or now is None or before == now:
        return ""
    change = f" ({now / before - 1:+.2%})" if before and math.isfinite(before) and math.isfinite(now) else ""
    return f"the loss of step {pair.baseline.points[last].step} is {now:.6g}, {before:.6g} in the baseline{change}"
