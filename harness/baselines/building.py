"""Builds the trajectory of a run from its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory
    from harness.record.run import TrainingRun

TRACED_STEPS = 64
"""First steps that are traced where runs are compared; enough for a smoke training, and a few kilobytes."""


def build_trajectory(run: TrainingRun, *, test: str) -> Trajectory:
    """The trajectory of a run.

    Args:
        run: The run; watched, or with a history of its own.
        test: Name of the test or command, under which it is stored.

    Raises:
        ObservationError: The run has no step or no loss, or its loss is not finite: nothing to compare by.
    """
    raise NotImplementedError
