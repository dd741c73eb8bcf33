"""All changes that no single run shows, and the slice that the tests run."""

from __future__ import annotations

from benchmarks.divergence.change import Change  # noqa: TC001  the type of the constant
from benchmarks.divergence.changes.computation import COMPUTATION_CHANGES
from benchmarks.divergence.changes.initialisation import INITIALISATION_CHANGES
from benchmarks.divergence.changes.inputs import INPUT_CHANGES
from benchmarks.divergence.changes.updates import UPDATE_CHANGES

CHANGES: tuple[Change, ...] = (
    *INPUT_CHANGES,
    *INITIALISATION_CHANGES,
    *COMPUTATION_CHANGES,
    *UPDATE_CHANGES,
)
