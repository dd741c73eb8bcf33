"""Changes of programs of several models or optimizers, those of the clean set of `benchmarks.detection`."""

from __future__ import annotations

from benchmarks.divergence.change import Change  # noqa: TC001  the type of the constant
from benchmarks.divergence.changes.several_models_computation import SEVERAL_COMPUTATION_CHANGES
from benchmarks.divergence.changes.several_models_inputs import SEVERAL_INPUT_CHANGES
from benchmarks.divergence.changes.several_models_updates import SEVERAL_UPDATE_CHANGES

SEVERAL_CHANGES: tuple[Change, ...] = (
    *SEVERAL_INPUT_CHANGES,
    *SEVERAL_COMPUTATION_CHANGES,
    *SEVERAL_UPDATE_CHANGES,
)
