"""CI and regression testing for training code, as a pytest plugin and a command line.

Importing this package loads nothing heavy; names below are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.assertions import (
        assert_artifacts,
        assert_finite,
        assert_healthy,
        assert_loss_decreases,
        assert_matches_baseline,
    )
    from harness.errors import (
        BaselineError,
        HarnessError,
        MetricsFileError,
        ObservationError,
        UsageError,
    )
    from harness.fixtures import SmokeTraining
    from harness.record.run import Step, TrainingRun

__all__ = [
    "BaselineError",
    "HarnessError",
    "MetricsFileError",
    "ObservationError",
    "SmokeTraining",
    "Step",
    "TrainingRun",
    "UsageError",
    "assert_artifacts",
    "assert_finite",
    "assert_healthy",
    "assert_loss_decreases",
    "assert_matches_baseline",
]

_HOMES = {
    "harness.assertions": (
        "assert_artifacts",
        "assert_finite",
        "assert_healthy",
        "assert_loss_decreases",
        "assert_matches_baseline",
    ),
    "harness.errors": ("BaselineError", "HarnessError", "MetricsFileError", "ObservationError", "UsageError"),
    "harness.fixtures": ("SmokeTraining",),
    "harness.record.run": ("Step", "TrainingRun"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
