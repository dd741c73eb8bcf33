"""All changes that no single run shows, and the slice that the tests run."""

from __future__ import annotations

from benchmarks.divergence.change import Change  # noqa: TC001  the type of the constant
from benchmarks.divergence.changes.computation import COMPUTATION_CHANGES
from benchmarks.divergence.changes.initialisation import INITIALISATION_CHANGES
from benchmarks.divergence.changes.inputs import INPUT_CHANGES
from benchmarks.divergence.changes.several_models import SEVERAL_CHANGES
from benchmarks.divergence.changes.updates import UPDATE_CHANGES

CHANGES: tuple[Change, ...] = (
    *INPUT_CHANGES,
    *INITIALISATION_CHANGES,
    *COMPUTATION_CHANGES,
    *UPDATE_CHANGES,
    *SEVERAL_CHANGES,
)
SLICE = (
    ("language_model", "another-tokenisation"),
    ("language_model", "draw-in-the-loop"),
    ("language_model", "initialised-a-little-wider"),
    ("language_model", "dropout-stronger"),
    ("language_model", "labels-smoothed"),
    ("language_model", "one-layers-gradient-doubled"),
    ("language_model", "another-clipping-bound"),
    ("language_model", "weight-decay-gone"),
    ("language_model", "schedule-off-by-one"),
    ("language_model", "summands-swapped"),
    ("gan", "another-seed"),
    ("gan", "another-reduction"),
    ("gan", "betas-or-momentum"),
    ("gan", "one-groups-rate"),
)
"""A mutant or two for every phase, and one that does nothing."""
