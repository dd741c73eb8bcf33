"""What is likely behind a difference in the forward pass of a step, or in its loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.names import name_group
from harness.baselines.pairs import MODE
from harness.baselines.pass_differences import INPUTS_OF, MICRO_BATCHES, SCALER_STEP, has_other_targets
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.evidence import Evidence


def tell_forward(evidence: Evidence) -> Iterator[str]:
    """What may be behind another forward pass."""
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
    elif found.is_of_call and found.item.startswith("input"):
        yield f"{found.item} is made in another way of what the calls before it gave, which is the same."
    elif found.is_of_call:
        yield (
            f"{found.item} is another one, from the same input and random numbers: the model's code, its buffers "
            "(running statistics, caches), or parameters changed outside of the optimizer."
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


def tell_loss(evidence: Evidence) -> Iterator[str]:
    """What may be behind another loss."""
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
    "targets of": "the targets are made in another way: shifted, masked, another column, or computed otherwise.",
    INPUTS_OF: "all modules gave the same, the loss function is given something else: what lies between them changed.",
    "scale": "the loss, or this term of it, is divided or multiplied by something else before backward ({change}).",
    MICRO_BATCHES: "this step has another number of backward passes ({change}): it accumulates over more or fewer.",
    SCALER_STEP: "this step is {change}: its gradients are not finite in one of the runs, or the scale is another.",
}
"""Causes by what differs in the loss."""
