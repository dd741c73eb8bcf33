"""Threads of torch: those that a program trains with, and others that it began with and computed something by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.evidence import Evidence
    from harness.baselines.trajectory import Trajectory

HOW_ONE_NUMBER = (
    "runs have as many threads as one another by --harness-threads in tests, by OMP_NUM_THREADS before a command, or "
    "by torch.set_num_threads in the program"
)
COMPUTED_BEFORE = (Phase.DATA, Phase.INITIALISATION, Phase.FORWARD, Phase.LOSS)
"""Phases in which values show that were computed before the first step: data, parameters, buffers, targets."""


def may_be_of_threads(evidence: Evidence | None) -> bool:
    """Whether two runs of one class part where the threads that they began with may show.

    They are known to have begun with other numbers of threads, which the class knows nothing of, as the programs set
    it themselves before they train. False as well where they do not part, and where a setting of the phase differs:
    that is the program's, whatever the threads.

    Args:
        evidence: Where they part to the last bit; None where they do not.
    """
    if evidence is None:
        return False
    before, now = evidence.pair.baseline.threads_at_start, evidence.pair.observed.threads_at_start
    is_known = bool(before and now)
    return (
        is_known
        and before != now
        and evidence.phase in COMPUTED_BEFORE
        and not evidence.list_changes(evidence.phase)
    )


def differ_in_threads(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether two runs are known to have trained with other numbers of threads, which makes them other classes."""
    before, now = baseline.machine.get("threads"), observed.machine.get("threads")
    return None not in (before, now) and before != now


def tell_threads(baseline: Trajectory, observed: Trajectory) -> str:
    """Why two runs of one class are compared by tolerance that began with other numbers of threads."""
    return (
        f"torch had {baseline.threads_at_start} threads when the baseline's program began and "
        f"{observed.threads_at_start} here, which may show in the last digits of what is computed before the program "
        "sets their number; the same OMP_NUM_THREADS for both, or torch.set_num_threads before anything is computed, "
        "makes them comparable to the last bit"
    )
