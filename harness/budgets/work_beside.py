"""Fixed work beside launches: its times where all launches have that of the same work, and why not where they don't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.budgets.machine import FixedWorkTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.baselines.pools import Launch
    from harness.record.run import TrainingRun

    Occasions = Sequence[Sequence[Launch]]


def explain_unknown(runs: Sequence[TrainingRun], occasions: Occasions) -> str:
    """Why the machine's speed beside these launches is not known, with what to do about it; empty where it is."""
    ours = {run.fixed_work.made_with if run.fixed_work is not None else None for run in runs}
    works = [launch.fixed_work for occasion in occasions for launch in occasion]
    theirs = {work.made_with for work in works if work is not None}
    unknown = "How fast the machine was is not known: "
    if None in ours:
        return f"{unknown}fixed work could not be timed beside this program."
    if num_without := works.count(None):
        return (
            f"{unknown}{num_without} of the {len(works)} launches of the baseline have no time of fixed work; those "
            "accepted from now on have one."
        )
    if len(kinds := theirs | ours) > 1:
        return (
            f"{unknown}fixed work was done with {' and '.join(sorted(map(str, kinds)))}, which can't be compared; "
            "launches accepted from now on can."
        )
    return ""


def list_works(runs: Sequence[TrainingRun], occasions: Occasions) -> FixedWorkTimes:
    """How long fixed work took beside each launch, ours and those of a pool, where `explain_unknown` has nothing."""
    return FixedWorkTimes(
        [run.fixed_work.time_s for run in runs if run.fixed_work is not None],
        [
            [launch.fixed_work.time_s for launch in occasion if launch.fixed_work is not None]
            for occasion in occasions
        ],
    )
