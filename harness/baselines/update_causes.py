"""What is likely behind a difference in gradients, clipping or updates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.names import agree, name_group
from harness.baselines.pairs import HELD, VALUES_OF, is_rounding
from harness.baselines.parameter_differences import tell_written
from harness.baselines.ruler import measure_distance
from harness.baselines.trajectory import Phase
from harness.baselines.update_differences import list_gradient_norms, list_lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.evidence import Evidence

SAME_RATIO = 1e-4


def tell_gradients(evidence: Evidence) -> Iterator[str]:
    """What may be behind other gradients."""
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
        yield f"{name_group(lost)} {agree(lost, 'gets', 'get')} no gradient from this step on: frozen or detached."
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


def tell_clipping(evidence: Evidence) -> Iterator[str]:
    """What may be behind other clipping."""
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
        (now, "gradients stay as they are: they are no longer clipped, or the bound is above their norm"),
        (before, "gradients are clipped that were not, or the bound was above their norm"),
    ):
        if one.grad_norm is not None and is_rounding(one.grad_norm, one.clipped_norm, SAME_RATIO):
            yield f"{text}."
            return
    yield "gradients are clipped to another norm."


def tell_optimizer(evidence: Evidence) -> Iterator[str]:
    """What may be behind other updates."""
    held = next((found for found in evidence.differences if found.item.startswith(HELD)), None)
    if held is not None:
        yield f"{held.item} are others ({held.change}): {name_group(held.names)} moved into it, or out of it."
    if held is not None or evidence.list_changes(Phase.OPTIMIZER):
        return
    found = evidence.find(Phase.OPTIMIZER)
    if found is not None and found.item.startswith(VALUES_OF):
        yield f"{tell_written(found)}; where they differ in the last digits alone, the optimizer's arithmetic."
    elif found is not None and found.names and found.names != ("*",):
        yield (
            f"the update of {name_group(found.names)} differs, gradients and learning rate do not: the optimizer's "
            "arithmetic or state (lost, shared, reset), or parameters changed after the step."
        )
