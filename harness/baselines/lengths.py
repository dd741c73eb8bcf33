"""Why two runs have other numbers of steps: limits that ended one of them, or the programs themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory

MIN_SHARE = 0.5
"""Of a baseline's steps, that a run has to have made before its time was over to be said to match."""


def is_truncated_by_time_limit(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether one run is shorter, and was ended by its time limit: that tells of the machine, not of the training."""
    limit = _find_shorter(baseline, observed).ended_by
    return len(baseline.points) != len(observed.points) and limit is not None and limit.is_of_time


def has_too_few_steps(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether a time limit ended a run so early that nothing is said by the steps in which it is as its baseline."""
    is_short = len(observed.points) < MIN_SHARE * len(baseline.points)
    return is_short and is_truncated_by_time_limit(baseline, observed)


def leave_out_later(run: Trajectory, other: Trajectory) -> Trajectory:
    """The run without the settings that a shorter one does not have, as it may have ended before they were seen."""
    if len(run.points) <= len(other.points):
        return run
    settings = {
        phase: {name: value for name, value in found.items() if name in other.settings.get(phase, {})}
        for phase, found in run.settings.items()
    }
    return replace(run, settings=settings)


def tell_truncation(baseline: Trajectory, observed: Trajectory) -> str:
    """How many steps were compared where a time limit left others out."""
    return (
        f"{_tell_ends(baseline, observed)}; {_tell_share(baseline, observed)} were compared, as how far a time limit "
        "lets a run come is no difference"
    )


def tell_too_few(baseline: Trajectory, observed: Trajectory) -> str:
    """Why a run that a time limit ended early is not said to match."""
    return (
        f"{_tell_ends(baseline, observed)}; it is the same in {_tell_share(baseline, observed)}, and less than half "
        "is too few to say that it trains as before"
    )


def list_causes_of_length(baseline: Trajectory, observed: Trajectory) -> tuple[str, ...]:
    """Whole sentences on why one run has more steps than the other, most likely first."""
    ends = _tell_ends(baseline, observed)
    if _find_shorter(baseline, observed).ended_by is not None:
        return (f"{ends}: runs that are compared need the same limit.",)
    program = (
        "the program ends elsewhere: another limit or number of epochs, more or fewer data, or an early stop."
    )
    return (program, f"{ends}.") if ends else (program,)


def advise_on_length(baseline: Trajectory, observed: Trajectory) -> str:
    """What makes a run as long as its baseline, where a limit on the steps ended the shorter one; empty otherwise."""
    limit = _find_shorter(baseline, observed).ended_by
    if limit is None or limit.is_of_time:
        return ""
    return f"run it with max_steps={len(baseline.points)}, as many steps as the baseline has"


def _tell_share(baseline: Trajectory, observed: Trajectory) -> str:
    shorter, longer = sorted((len(baseline.points), len(observed.points)))
    return f"{shorter} of {longer} steps"


def _tell_ends(baseline: Trajectory, observed: Trajectory) -> str:
    """Which of the runs a limit ended, and after how many steps; empty where none did."""
    runs = (("the baseline's run", baseline), ("this run", observed))
    return ", ".join(
        f"{name} was ended from outside after {limit.num_steps} step{'' if limit.num_steps == 1 else 's'} ({limit})"
        for name, run in runs
        if (limit := run.ended_by) is not None
    )


def _find_shorter(baseline: Trajectory, observed: Trajectory) -> Trajectory:
    return min(baseline, observed, key=lambda run: len(run.points))
