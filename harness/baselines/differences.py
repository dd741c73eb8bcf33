"""All that differs between two runs in one step, phase by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.batches import compare_batches
from harness.baselines.calls_in_order import OUTPUT, compare_calls
from harness.baselines.holdings import compare_holdings
from harness.baselines.pairs import LADDER, VALUES_OF, Difference, Pair
from harness.baselines.parameter_differences import compare_parameters
from harness.baselines.pass_differences import compare_forward, compare_loss
from harness.baselines.side_calls import compare_side_calls
from harness.baselines.trajectory import TORCH_GENERATORS, Phase
from harness.baselines.update_differences import compare_gradients, compare_rates, compare_updates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.ruler import Ruler


def list_differences(pair: Pair, ruler: Ruler, used: frozenset[str] = frozenset()) -> list[Difference]:
    """What differs in a step, in the order in which a step passes its phases.

    Args:
        pair: The step.
        ruler: What counts as the same.
        used: Generators besides torch's own that the training draws from.
    """
    calls = list(compare_calls(pair)) if ruler.is_exact else []
    # Modules have names: what one of them gives says more than the call that it is a part of.
    outputs = [difference for difference in calls if difference.item.startswith(OUTPUT)]
    found = [
        *compare_batches(pair, ruler),
        *_compare_generators(pair, used),
        *compare_parameters(pair, ruler),
        *compare_side_calls(pair, is_exact=ruler.is_exact),
        *(difference for difference in calls if difference not in outputs),
        *compare_forward(pair, ruler),
        *outputs,
        *compare_loss(pair, ruler),
        *compare_gradients(pair, ruler),
        *compare_rates(pair),
        *compare_holdings(pair),
        *compare_updates(pair, ruler),
    ]
    return sorted(found, key=_find_place)


def _find_place(difference: Difference) -> int:
    """Parameters have their values before the step, whatever gave them these."""
    is_value = difference.item.startswith(VALUES_OF)
    return LADDER.index(Phase.INITIALISATION if is_value else difference.phase)


def _compare_generators(pair: Pair, used: frozenset[str]) -> Iterator[Difference]:
    before, now = pair.before.generators, pair.now.generators
    if not before or not now:
        return
    moved = [
        name
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name] and (name in TORCH_GENERATORS or name in used)
    ]
    if moved:
        item = f"generator{'s' if len(moved) > 1 else ''} of {' and '.join(moved)}"
        yield Difference(Phase.RNG, item, "in another state when the step begins", tuple(moved), moves=False)
