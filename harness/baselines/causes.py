"""What is likely behind a divergence, in words: from the settings that differ, and from how the numbers do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.batches import find_repeated, has_same_order
from harness.baselines.holdings import begins_to_train
from harness.baselines.names import agree, name_group
from harness.baselines.pairs import Pair
from harness.baselines.parameter_differences import list_values, tell_written
from harness.baselines.pass_causes import tell_forward, tell_loss
from harness.baselines.rate_causes import tell_rates
from harness.baselines.trajectory import Phase
from harness.baselines.update_causes import tell_clipping, tell_gradients, tell_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.baselines.evidence import Evidence
    from harness.baselines.setting_changes import SettingChange

MAX_CHANGES = 4


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
    found = evidence.find(Phase.DATA)
    if found is not None and found.is_of_call:
        yield (
            f"{found.item} is another one, and all before it is the same: other data, another augmentation or noise, "
            "or something else that the program makes for it."
        )
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
    if found is not None and found.is_of_call:
        yield f"an extra random number is drawn, or one less, right {found.item.partition(' ')[2]}."
        return
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
            "random draws have moved, and what follows from them, such as dropout and shuffling: an extra random "
            "number is drawn, or one less, between building the model and step 0."
        )
    else:
        yield (
            f"random draws have moved since step {step}: an extra random number is drawn, or one less, in or after "
            f"step {step - 1}, perhaps in an evaluation."
        )
        written = evidence.find(Phase.INITIALISATION)
        if written is not None and begins_to_train(evidence.pair):
            yield f"{name_group(written.names)} {agree(written.names, 'begins', 'begin')} with other draws."


def _tell_initialisation(evidence: Evidence) -> Iterator[str]:
    found = evidence.find(Phase.INITIALISATION)
    if found is not None and evidence.first_index > 0:
        is_new = begins_to_train(evidence.pair) or found.is_beside
        starts = f"{name_group(found.names)} {agree(found.names, 'starts', 'start')} from other values"
        yield f"{starts if is_new else tell_written(found)}."
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
        yield f"{name_group(found.names)} {agree(found.names, 'begins', 'begin')} with numbers that are not finite."
    elif ratios:
        most = f" to x{max(ratios):.3g}" if max(ratios) > min(ratios) * 1.01 else ""
        yield (
            f"{name_group(found.names)} {agree(found.names, 'is', 'are')} initialised differently: the norm is "
            f"x{min(ratios):.3g}{most}."
        )
    else:
        yield f"{name_group(found.names)} {agree(found.names, 'starts', 'start')} from other values."


_TELLERS: dict[Phase, Callable[[Evidence], Iterator[str]]] = {
    Phase.DATA: _tell_data,
    Phase.RNG: _tell_generators,
    Phase.INITIALISATION: _tell_initialisation,
    Phase.FORWARD: tell_forward,
    Phase.LOSS: tell_loss,
    Phase.GRADIENTS: tell_gradients,
    Phase.CLIPPING: tell_clipping,
    Phase.OPTIMIZER: tell_optimizer,
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
