"""What a test with a marker of ours asks for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.budgets.launches import LaunchPlan
    from harness.budgets.results import BudgetResult
    from harness.budgets.spec import Budget
    from harness.markers import GpuRequest, TrainingRequest
    from harness.profiling.schedule import CaptureSchedule
    from harness.record.run import TrainingRun


@dataclass(slots=True)
class TestState:
    """What a test with a marker of ours asks for, and what came of it.

    Attributes:
        training: The `smoke_training` marker.
        gpu: The `gpu` marker; None without one.
        budget: The `budget` marker; None without one.
        launches: How many launches it may take; None where each run is judged as it is.
        schedule: The `profile_capture` marker; None without one.
        is_traced: Whether steps are traced, because runs are compared with stored trajectories.
        runs: Runs of the fixture, in order.
        relaunches: What launches each of them once more; None for a called function.
        claims: Runs, by their position, and budgets of the `budget` fixture, that are to be accepted.
        results: Judged lines of the budget.
        runner_class: Class of the machine the runs were made on; None before the first.
        is_not_observed: Whether a gate of the test could compare nothing.
    """

    __test__ = False

    training: TrainingRequest
    gpu: GpuRequest | None
    budget: Budget | None
    schedule: CaptureSchedule | None
    launches: LaunchPlan | None = None
    is_traced: bool = False
    runs: list[TrainingRun] = field(default_factory=list)
    relaunches: list[Callable[[], TrainingRun] | None] = field(default_factory=list)
    claims: list[tuple[int, Budget]] = field(default_factory=list)
    results: list[BudgetResult] = field(default_factory=list)
    runner_class: str | None = None
    is_not_observed: bool = False

    def forget_runs(self) -> None:
        """Forgets an earlier attempt at the same test."""
        self.runs, self.results, self.relaunches, self.claims = [], [], [], []
        self.runner_class, self.is_not_observed = None, False

    def forget_accepted(self) -> None:
        """Forgets what was to be accepted, as the test has failed and nothing was stored."""
        for run in self.runs:
            if run.baseline is not None and run.baseline.reason is not None:
                run.baseline.judged.clear()
