"""Threads of torch: those that a program trains with, and others that it began with and computed something by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.divergence import find_evidence
from harness.baselines.ruler import ExactRuler
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory

HOW_ONE_NUMBER = (
    "runs have as many threads as one another by --harness-threads in tests, by OMP_NUM_THREADS before a command, or "
    "by torch.set_num_threads in the program"
)
COMPUTED_BEFORE = (Phase.DATA, Phase.INITIALISATION, Phase.FORWARD, Phase.LOSS)
"""Phases in which values show that were computed before the first step: data, parameters, buffers, targets."""


def may_part_by_threads(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether two runs of one class part where the threads that they began with may show.

    They began with other numbers of threads, which the class knows nothing of, as the programs set it themselves
    before they train. False as well where they do not part, and where a setting of the phase differs: that is the
    program's, whatever the threads.
    """
    if _find_threads(baseline) == _find_threads(observed):
        return False
    evidence = find_evidence(baseline, observed, ExactRuler())
    return (
        evidence is not None
        and evidence.phase in COMPUTED_BEFORE
        and not evidence.list_changes(evidence.phase)
    )


def differ_in_threads(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether two runs are known to have trained with other numbers of threads, which makes them other classes."""
    before, now = baseline.machine.get("threads"), observed.machine.get("threads")
    return None not in (before, now) and before != now


def tell_threads(baseline: Trajectory, observed: Trajectory) -> str:
    """Why two runs of one class are compared by tolerance; empty where they began with as many threads."""
    before, now = _find_threads(baseline), _find_threads(observed)
    if before == now:
        return ""
    return (
        f"torch had {before} threads when the baseline's program began and {now} here, which may show in the last "
        "digits of what is computed before the program sets their number; the same OMP_NUM_THREADS for both, or "
        "torch.set_num_threads before anything is computed, makes them comparable to the last bit"
    )


def _find_threads(trajectory: Trajectory) -> str:
    return trajectory.threads_at_start or trajectory.machine.get("threads", "")
