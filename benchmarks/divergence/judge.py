"""Compares recorded runs with the clean run of the same program, and holds what is said against the truth."""

from __future__ import annotations

import json
import multiprocessing
import traceback
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.detection.child import FINISHED
from benchmarks.detection.judge import load_run
from benchmarks.divergence.rows import find_truth
from harness.baselines.building import build_trajectory
from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory_json import read_trajectory, write_trajectory
from harness.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.detection.cache import Cell
    from benchmarks.detection.fault import Mutant
    from benchmarks.divergence.change import Truth
    from harness.baselines.comparison import Divergence, TrajectoryComparison
    from harness.baselines.trajectory import Phase, Trajectory


class Outcome(StrEnum):
    """What came of a mutant."""

    RIGHT = "right"
    """The first difference is named in the right phase."""
    WRONG = "WRONG"
    """It is named in another one."""
    MISSED = "MISSED"
    """The training differs, and was said to match."""
    SILENT = "same"
    """The training is the same, and was said to match."""
    NOTED = "noted"
    """The same, and a note tells of a setting that differs."""
    ALARM = "ALARM"
    """The training is the same, and was said to differ."""
    REFUSED = "refused"
    """There was nothing to compare, which is said: an error, and no match."""
    BROKEN = "BROKEN"
    """The comparison itself failed."""
    FAILED = "fails"
    """The program fails by itself."""
    MISSING = "not recorded"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of one mutant, and what is true.

    Attributes:
        mutant: What was run.
        truth: What should be said.
        outcome: How both compare.
        divergence: What was said to differ first; None where nothing was.
        is_exact: Whether every bit was compared.
        message: Why nothing was compared, or what was noted beside a match.
        is_visible: Whether anything of the training that was recorded differs.
    """

    mutant: Mutant
    truth: Truth
    outcome: Outcome
    divergence: Divergence | None = None
    is_exact: bool = True
    message: str = ""
    is_visible: bool = False

    @property
    def phase(self) -> Phase | None:
        """The phase that was named."""
        return None if self.divergence is None else self.divergence.phase


def judge_cell(cell: Cell, clean: Cell, *, truth: Truth | None = None) -> Verdict:
    """The verdict over a recorded run.

    Args:
        cell: The run.
        clean: The run of the unchanged program with the same seed, which is the baseline.
        truth: What is right; found by the mutant where left out.
    """
    truth = find_truth(cell.mutant) if truth is None else truth
    if not (cell.is_recorded and clean.is_recorded):
        return Verdict(cell.mutant, truth, Outcome.MISSING)
    record = cell.read_record()
    if record["status"] != FINISHED:
        outcome = Outcome.REFUSED if record["status"] == "refused" else Outcome.FAILED
        return Verdict(cell.mutant, truth, outcome, message=record["message"].partition("\n")[0])
    is_visible = digest_training(record) != digest_training(clean.read_record())
    try:
        comparison = compare_trajectories(load_baseline(clean), load_trajectory(cell))
    except ObservationError as error:
        message = str(error).partition("\n")[0]
        return Verdict(cell.mutant, truth, Outcome.REFUSED, message=message, is_visible=is_visible)
    except Exception as error:  # noqa: BLE001  one defect must not hide what is said of other runs
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return Verdict(cell.mutant, truth, Outcome.BROKEN, message=message, is_visible=is_visible)
    return Verdict(
        cell.mutant,
        truth,
        _find_outcome(comparison, truth, is_visible=is_visible),
        divergence=comparison.divergence,
        is_exact=comparison.is_exact,
        message=comparison.reason or "; ".join(comparison.notes),
        is_visible=is_visible,
    )


def load_trajectory(cell: Cell) -> Trajectory:
    """The trajectory of a recorded run.

    Raises:
        ObservationError: It has nothing to compare by.
    """
    return build_trajectory(load_run(cell), test=f"python {cell.mutant.program}.py")


def load_baseline(cell: Cell) -> Trajectory:
    """The trajectory of a recorded run, as it is when it was stored and read again."""
    return read_trajectory(json.loads(json.dumps(write_trajectory(load_trajectory(cell)))))


def _find_outcome(comparison: TrajectoryComparison, truth: Truth, *, is_visible: bool) -> Outcome:
    if comparison.match is Match.NOT_COMPARABLE:
        return Outcome.REFUSED
    if comparison.divergence is None:
        if is_visible and truth.phases:
            return Outcome.MISSED
        return Outcome.NOTED if comparison.notes else Outcome.SILENT
    if comparison.divergence.phase in truth.phases:
        return Outcome.RIGHT
    return Outcome.WRONG if is_visible else Outcome.ALARM


def digest_training(record: dict[str, Any]) -> list[Any]:
    """What a run trained, in plain values, taken from the record and not from what is judged here.

    The order in which an optimizer holds its parameters is no part of it, nor are those that get no gradient and are
    not moved, generators that nobody seeded, nor what loaders gave to evaluation.
    """
    found: list[Any] = []
    for step in record["observed"]["steps"]:
        trace = step.get("trace") or {}
        gradients, updates = (
            sorted(repr(norm) for row in trace.get(name, ()) for norm in row if norm not in (None, 0.0))
            for name in ("gradients", "updates")
        )
        numbers = [
            step.get(name)
            for name in ("loss", "losses", "learning_rates", "batch_shapes", "num_micro_batches")
        ]
        # It is summed up in the order of the optimizer, which shows in the last digits of a double.
        if (norm := step.get("grad_norm")) is not None:
            numbers.append(f"{norm:.12g}")
        streams = [trace.get("generators", {}).get("torch"), trace.get("called_with")]
        found.append([*(repr(number) for number in numbers), gradients, updates, streams])
    return found


def judge_all(rows: Sequence[tuple[Cell, Cell]], *, jobs: int) -> list[Verdict]:
    """The verdicts over runs, each given with its clean run."""
    if jobs == 1:
        return [_judge_row(row) for row in rows]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return list(pool.imap(_judge_row, rows, chunksize=4))


def _judge_row(row: tuple[Cell, Cell]) -> Verdict:
    cell, clean = row
    return judge_cell(cell, clean)


COUNTED = (Outcome.RIGHT, Outcome.WRONG, Outcome.MISSED, Outcome.BROKEN)


def count_outcomes(verdicts: Sequence[Verdict]) -> dict[Outcome, int]:
    """How many verdicts there are of each outcome."""
    return {outcome: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in Outcome}


def tell_verdict(verdict: Verdict, *, is_verbose: bool) -> str:
    """One line per mutant; with the causes and what is identical where more is wanted."""
    right = " or ".join(verdict.truth.phases) or "nothing"
    found = verdict.divergence
    lines = [f"{verdict.mutant.name}: {verdict.outcome} (right: {right})"]
    if found is not None:
        lines[0] += f"; said {found.phase}, step {found.step}: {found.item}: {found.change}"
    if verdict.message:
        lines.append(f"    {verdict.message}")
    if found is not None and is_verbose:
        lines += [f"    cause: {cause}" for cause in found.causes]
        lines.append(f"    identical: {', '.join(found.identical) or 'nothing'}; {found.consequence}")
    return "\n".join(lines)
