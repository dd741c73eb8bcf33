"""Names of the parameters that optimizers hold: the same ones whether or not a copy of the model was seen as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.record.observation import OptimizerGroup, RunObservation


def list_group_names(observed: RunObservation) -> list[list[list[str]]]:
    """The names in every group of every optimizer.

    Names are completed by the class of the model once several models are there, an average of the weights among
    them; when that is depends on the moment they were looked at. The first step has them as short as they can be.
    """
    first = observed.deep_steps[0] if observed.deep_steps else None
    known: set[str] = set()
    if first is not None:
        known = {found.name for found in first.parameters} | {found.name for found in first.unheld}
    return [[_shorten_names(group, known) for group in optimizer.groups] for optimizer in observed.optimizers]


def _shorten_names(group: OptimizerGroup, known: set[str]) -> list[str]:
    return [
        short if name not in known and (short := name.partition(".")[2]) in known else name
        for name in group.parameters
    ]
