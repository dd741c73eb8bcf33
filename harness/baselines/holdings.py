"""Which parameters the optimizers hold: a change of it shows in gradients and updates, and is none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.pairs import HELD, Difference
from harness.baselines.run_settings import EQUAL_ROWS, UNOWNED
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.evidence import Evidence
    from harness.baselines.pairs import Pair
    from harness.baselines.setting_changes import SettingChange
    from harness.baselines.trajectory import Trajectory


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


def holds_other_number(evidence: Evidence) -> bool:
    """Whether optimizers hold more or fewer tensors although the models are the same: some that no model names."""
    return not evidence.list_changes(Phase.INITIALISATION) and any(
        _count_tensors(change.baseline) != _count_tensors(change.observed)
        for change in _list_held_changes(evidence)
    )


def has_other_shapes(evidence: Evidence) -> bool:
    """Whether the optimizers of the step hold as many tensors, and more or fewer numbers in them."""
    stepping = tuple(f"optimizer {index} " for index in evidence.pair.now.optimizers)
    return any(
        change.name.startswith(stepping)
        and _count_tensors(change.baseline) == _count_tensors(change.observed)
        for change in _list_held_changes(evidence)
        if _drop_names(change.baseline) != _drop_names(change.observed)
    )


def _list_held_changes(evidence: Evidence) -> list[SettingChange]:
    return [
        change
        for change in evidence.list_changes(Phase.OPTIMIZER)
        if change.name.startswith("optimizer ") and change.name.endswith(" parameters")
    ]


def _count_tensors(held: object) -> str:
    """Of `4 of 293 numbers (1a2b)`, the first."""
    return str(held).partition(" ")[0]


def _drop_names(held: object) -> str:
    return str(held).partition(" (")[0]


def begins_to_train(pair: Pair) -> bool:
    """Whether parameters are stepped that no step before had: of a model that may be built since then."""
    known = {
        name for point in pair.baseline.points[: pair.index] for name in pair.baseline.list_tensors(point)
    }
    return not known.issuperset(pair.baseline.list_tensors(pair.before))
