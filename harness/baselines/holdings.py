"""Which parameters the optimizers hold: a change of it shows in gradients and updates, and is none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.pairs import Difference
from harness.baselines.run_settings import EQUAL_ROWS, UNOWNED
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.pairs import Pair
    from harness.baselines.trajectory import Trajectory

HELD = "parameters held by"


def compare_holdings(pair: Pair) -> Iterator[Difference]:
    """Optimizers that hold other parameters of the same models; parameters that only one model has are not meant."""
    before, now = pair.baseline.parameters, pair.observed.parameters
    shared = list_names(pair.baseline) & list_names(pair.observed)
    # What is frozen in one of the runs may be left out: it gets no gradient.
    shared -= _list_frozen(pair.baseline) | _list_frozen(pair.observed)
    if not before or not now or _list_sets(before, shared) == _list_sets(now, shared):
        return
    for index in range(max(len(before), len(now))):
        one, other = (made[index] if index < len(made) else () for made in (before, now))
        moved = tuple(
            name
            for name in dict.fromkeys((*one, *other))
            if name in shared and (name in one) != (name in other)
        )
        if moved:
            change = f"{len(one)} -> {len(other)}"
            yield Difference(Phase.OPTIMIZER, f"{HELD} optimizer {index}", change, moved, moves=False)


def is_step_of_another(pair: Pair) -> bool:
    """Whether the optimizers of a step hold altogether other parameters, so that nothing else of it is comparable."""
    shared = list_names(pair.baseline) & list_names(pair.observed)
    before = shared.intersection(pair.baseline.list_tensors(pair.before))
    now = shared.intersection(pair.observed.list_tensors(pair.now))
    return bool(before) and bool(now) and not before & now


def list_names(trajectory: Trajectory) -> frozenset[str]:
    """All parameters of the models that are known by name, whether an optimizer holds them or not."""
    told = trajectory.settings.get(Phase.INITIALISATION, {}).keys() - {EQUAL_ROWS}
    held = (name for names in trajectory.parameters for name in names)
    return frozenset(name for name in (*told, *held) if not name.startswith(UNOWNED))


def _list_sets(held: tuple[tuple[str, ...], ...], shared: frozenset[str]) -> set[frozenset[str]]:
    """What each optimizer holds, whichever of them steps first."""
    return {found for names in held if (found := shared.intersection(names))}


def _list_frozen(trajectory: Trajectory) -> set[str]:
    told = trajectory.settings.get(Phase.INITIALISATION, {})
    return {name for name, value in told.items() if " frozen" in str(value)}
