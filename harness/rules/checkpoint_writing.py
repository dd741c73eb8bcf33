"""Rules about when checkpoints are written, and by whom."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from harness.record.observation import Outcome
from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.saves import find_obstacle_to_checkpoints, is_meant_otherwise, tell_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.observation import CheckpointObservation
    from harness.record.run import TrainingRun


def _check_late(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    kept = [file for file in observed.checkpoints if file.path is not None and _has_weights(file)]
    num_steps = len(observed.steps)
    is_over = observed.outcome is Outcome.COMPLETED and num_steps >= bounds["min_steps"]
    if not kept or not is_over or any(file.after_step for file in observed.checkpoints):
        return
    last = kept[-1]
    if last.is_kept and not is_meant_otherwise(PurePath(last.path or "").stem):
        yield Evidence(
            message=f"the only checkpoint, {tell_file(last)}, was written before the first of {num_steps} steps: what "
            "was trained is kept nowhere.",
            cause="saving is called before the loop, or at an interval that is never reached.",
            advice="save after the last step, too.",
            subject=PurePath(last.path or "").name,
            step=0,
        )


def _has_weights(file: CheckpointObservation) -> bool:
    return bool(file.models) or any(key.endswith("weight") for key in file.keys)


def _check_ranks(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    writers: dict[tuple[str, int], set[int]] = {}
    for rank in run.ranks if len(run.ranks) > 1 else ():
        for file in rank.checkpoints:
            if file.path is not None and file.writer == "torch.save":
                writers.setdefault((file.path, file.after_step), set()).add(rank.rank)
    shared = next((item for item in writers.items() if len(item[1]) > 1), None)
    if shared is not None:
        (path, after_step), ranks = shared
        yield Evidence(
            message=f"`{PurePath(path).name}` was written by {len(ranks)} ranks after step {after_step}, into the same "
            "place.",
            cause="the check for rank 0 is missing around saving.",
            advice="save on rank 0 alone, or give every rank a name of its own.",
            subject=PurePath(path).name,
            step=after_step,
        )


CHECKPOINT_TOO_EARLY = Rule(
    code="A109",
    name="checkpoint-before-training-only",
    severity=Severity.WARNING,
    summary="What was trained is saved.",
    explanation="""\
All files with weights were written before the first step, and are still there at the end of a run that came to its
own end. Silent about a run that was ended from outside, about names that say initial, start or the like, and where
nothing is saved at all.""",
    cases=("saving at an interval longer than the training",),
    bounds=(Bound("min_steps", 10, "steps from which on there is something to save"),),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_late,
)
SHARED_BY_RANKS = Rule(
    code="A110",
    name="checkpoint-written-by-several-ranks",
    severity=Severity.WARNING,
    summary="One rank writes a file.",
    explanation="""\
The same path, written with torch.save after the same step by several ranks. Distributed checkpoints, which are
written together, are silent.""",
    cases=("a checkpoint cut off because two ranks wrote it",),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_ranks,
)

RULES = (SHARED_BY_RANKS, CHECKPOINT_TOO_EARLY)
