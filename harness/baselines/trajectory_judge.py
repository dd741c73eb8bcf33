"""Judges the trajectory of a run by its stored baseline, in the three cases that are never blurred."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness import clock
from harness.baselines.building import build_trajectory
from harness.baselines.comparison import Match, compare_trajectories, never_steps
from harness.baselines.revisions import digest_uncommitted, read_commit
from harness.baselines.shelves import open_shelf
from harness.baselines.trajectory import Provenance
from harness.baselines.trajectory_json import has_same_contents
from harness.baselines.trajectory_store import TrajectoryStore
from harness.errors import ObservationError, UsageError

if TYPE_CHECKING:
    from harness.baselines.comparison import Divergence, TrajectoryComparison
    from harness.baselines.trajectory import Trajectory
    from harness.record.environment import Environment
    from harness.record.request import BaselineRequest
    from harness.record.run import TrainingRun


class TrajectoryVerdict(StrEnum):
    """What a run and its baseline came to."""

    MATCHES = "matches"
    DIVERGED = "diverged"
    NOT_COMPARABLE = "not comparable"
    MISSING_BASELINE = "missing baseline"
    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class TrajectoryResult:
    """A run's trajectory beside its baseline.

    Attributes:
        verdict: What it came to. `accepted` is to be stored once the test has passed; `unchanged` is stored
            already.
        observed: The run's.
        baseline: The one it was compared with; None where there is none in any class.
        place: The baseline's file, for messages; where it would lie, when there is none.
        comparison: How they compare; None without a baseline.
        environment: Machine and versions of the run.
    """

    verdict: TrajectoryVerdict
    observed: Trajectory
    baseline: Trajectory | None
    place: str
    comparison: TrajectoryComparison | None
    environment: Environment

    @property
    def divergence(self) -> Divergence | None:
        """The first difference; None where they match, or nothing was compared."""
        return self.comparison.divergence if self.comparison else None

    @property
    def is_of_own_class(self) -> bool:
        """Whether the baseline was recorded where the last digits are the same."""
        return self.baseline is not None and self.baseline.numerics_class == self.observed.numerics_class


def judge_trajectory(
    run: TrainingRun, request: BaselineRequest, *, is_exact: bool | None = None
) -> TrajectoryResult:
    """Compares a run with its baseline of the nearest class; nothing is written yet.

    Args:
        run: The run.
        request: Which baseline, and whether the run is to become it.
        is_exact: Whether to compare every bit; None does so within one numerics class where runs repeat.

    Raises:
        ObservationError: The run has no loss, or lacks what its baseline holds: nothing can be compared.
        BaselineError: A baseline can't be read.
        UsageError: The run was not traced, or the baselines can't be opened.
    """
    _refuse_untraced(run, request)
    observed = build_trajectory(run, test=request.test)
    store = open_store(request)
    baseline = store.find_nearest(observed)
    comparison = None
    if baseline is not None:
        if request.reason is None:
            _refuse_less(run, request, baseline, observed)
        # What can't be compared may be accepted all the same: the next run is compared with it.
        with contextlib.nullcontext() if request.reason is None else contextlib.suppress(ObservationError):
            comparison = compare_trajectories(baseline, observed, is_exact=is_exact)
    verdict = _choose_verdict(request, baseline, observed, comparison)
    of_class = (baseline or observed).numerics_class
    return TrajectoryResult(
        verdict, observed, baseline, store.locate(request.test, of_class), comparison, run.environment
    )


def _choose_verdict(
    request: BaselineRequest,
    baseline: Trajectory | None,
    observed: Trajectory,
    comparison: TrajectoryComparison | None,
) -> TrajectoryVerdict:
    if request.reason is not None:
        is_same = baseline is not None and comparison is not None and _is_kept(baseline, observed, comparison)
        return TrajectoryVerdict.UNCHANGED if is_same else TrajectoryVerdict.ACCEPTED
    if comparison is None:
        return TrajectoryVerdict.MISSING_BASELINE
    return TrajectoryVerdict(str(comparison.match))


def _is_kept(baseline: Trajectory, observed: Trajectory, comparison: TrajectoryComparison) -> bool:
    """Whether a stored trajectory holds what a run does, no less and no more."""
    if comparison.match is not Match.MATCHES or baseline.numerics_class != observed.numerics_class:
        return False
    if comparison.is_exact:
        return has_same_contents(baseline, observed)
    is_as_long = len(baseline.points) == len(observed.points)
    return is_as_long and not (list_missing(baseline, observed) or list_missing(observed, baseline))


def store_accepted(request: BaselineRequest) -> None:
    """Writes what the run's comparisons accepted; what is unchanged stays as it is.

    Raises:
        BaselineError: The baseline can't be written; an older one stays.
    """
    accepted = [result for result in request.judged if result.verdict is TrajectoryVerdict.ACCEPTED]
    if accepted:
        result = accepted[-1]
        provenance = _build_provenance(request, result.environment)
        open_store(request).write(result.observed, provenance)


def open_store(request: BaselineRequest) -> TrajectoryStore:
    """The stored trajectories that a request names.

    Raises:
        UsageError: They are those of a commit that is not there.
    """
    return TrajectoryStore(open_shelf(request.baselines, root=request.root))


def _build_provenance(request: BaselineRequest, environment: Environment) -> Provenance:
    kept = ("python", "platform", "machine", "cpu", "num_cpus", "torch", "cuda", "gpus", "packages")
    facts = environment.to_json()
    return Provenance(
        accepted_at=clock.now_utc(),
        reason=request.reason or "",
        commit=read_commit(request.root),
        uncommitted=digest_uncommitted(request.root, leave_out=request.root / request.baselines),
        environment={name: facts[name] for name in kept if facts[name]},
    )


def find_non_finite_loss(trajectory: Trajectory) -> tuple[int, float] | None:
    """The first step whose loss is NaN or infinite, with it; None where all are finite."""
    return next(((step, loss) for step, loss in trajectory.losses if not math.isfinite(loss)), None)


def _refuse_untraced(run: TrainingRun, request: BaselineRequest) -> None:
    """A run that was watched and not traced has hardly more than its losses, which is no baseline."""
    if run.is_profiled:
        raise UsageError(
            f"{request.test} was profiled, and a profiled run is watched lightly: there is no trajectory to compare.\n"
            "Next: compare with the baseline in a test without profile_capture."
        )
    steps = run.observed.steps if run.observed else []
    if steps and not any(step.trace for step in steps):
        raise UsageError(
            f"the steps of {request.test} were not traced: that it would be compared could not be seen before it ran, "
            "as assert_matches_baseline is not called by name in the test or its module.\n"
            "Next: @pytest.mark.smoke_training(baseline=True) on the test, which compares in itself."
        )


def _refuse_less(
    run: TrainingRun, request: BaselineRequest, baseline: Trajectory, observed: Trajectory
) -> None:
    """A run that lacks a number which its baseline holds would match it unseen."""
    missing = list_missing(baseline, observed)
    if missing and not never_steps(baseline, observed):
        how = "the program" if run.observed is None else "it as closely as when the baseline was accepted"
        raise ObservationError(
            f"{observed.test} lacks what its baseline holds: {', '.join(missing)}; nothing was compared.\n"
            f"Next: watch {how} (--harness-watch=deep), or accept a new one: {request.tell_accepting()}"
        )


def list_missing(baseline: Trajectory, observed: Trajectory) -> list[str]:
    """What a baseline holds of its steps and an observed trajectory does not, in words."""
    kinds = {
        "losses": lambda point: point.loss is not None,
        "gradient norms": lambda point: point.grad_norm is not None or point.clipped_norm is not None,
        "learning rates": lambda point: bool(point.learning_rates),
        "norms of the parameters": lambda point: point.weight_norm is not None,
    }
    missing = [
        name
        for name, is_there in kinds.items()
        if any(map(is_there, baseline.points)) and not any(map(is_there, observed.points))
    ]
    if any(
        bool(one.batch) and not other.batch
        for one, other in zip(baseline.points, observed.points, strict=False)
    ):
        missing.append("traces of steps")
    return missing + (["steps watched in depth"] if baseline.deep and not observed.deep else [])
