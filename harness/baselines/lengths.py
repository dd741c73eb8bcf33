"""Why two runs have other numbers of steps: limits that ended one of them, or the programs themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory

TIME_LIMIT = "max_seconds="


def is_cut_by_time(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether one run is shorter, and was ended by its time limit: that tells of the machine, not of the training."""
    has_other_length = len(baseline.points) != len(observed.points)
    return has_other_length and TIME_LIMIT in _find_shorter(baseline, observed).ended_by


def leave_out_later(run: Trajectory, other: Trajectory) -> Trajectory:
    """The run without the settings that a shorter one does not have, as it may have ended before they were seen."""
    if len(run.points) <= len(other.points):
        return run
    settings = {
        phase: {name: value for name, value in found.items() if name in other.settings.get(phase, {})}
        for phase, found in run.settings.items()
    }
    return replace(run, settings=settings)


def tell_cut(baseline: Trajectory, observed: Trajectory) -> str:
    """How many steps were compared where a time limit left others out."""
    shorter, longer = sorted((baseline, observed), key=lambda run: len(run.points))
    return (
        f"{_tell_ends(baseline, observed)}; {len(shorter.points)} of {len(longer.points)} steps were compared, as how "
        "far a time limit lets a run come is no difference"
    )


def list_causes_of_length(baseline: Trajectory, observed: Trajectory) -> tuple[str, ...]:
    """Whole sentences on why one run has more steps than the other, most likely first."""
    ends = _tell_ends(baseline, observed)
    if _find_shorter(baseline, observed).ended_by:
        return (f"{ends}: runs that are compared need the same limit.",)
    program = (
        "the program ends elsewhere: another limit or number of epochs, more or fewer data, or an early stop."
    )
    return (program, f"{ends}.") if ends else (program,)


def _tell_ends(baseline: Trajectory, observed: Trajectory) -> str:
    """Which of the runs a limit ended, and after how many steps; empty where none did."""
    runs = (("the baseline's run", baseline), ("this run", observed))
    return ", ".join(f"{name} was {run.ended_by}" for name, run in runs if run.ended_by)


def _find_shorter(baseline: Trajectory, observed: Trajectory) -> Trajectory:
    return min(baseline, observed, key=lambda run: len(run.points))
