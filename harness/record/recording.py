"""Reads what watched processes wrote: one file of JSON lines per process, whole or cut off by a crash."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.record.deep import DeepObservation
from harness.record.observation import Outcome, RunObservation
from harness.record.step_observation import StepObservation

if TYPE_CHECKING:
    from pathlib import Path

PATTERN = "rank*.jsonl"
SCHEMA = 1


def read_record(folder: Path) -> list[RunObservation]:
    """The observation of every process that left one in a folder, by rank and start; empty without any.

    A process that crashed has what it wrote before, and the outcome `Outcome.CRASHED`. Processes without a
    step are left out where another one has steps: launchers and helpers are no training.
    """
    runs = [run for path in sorted(folder.glob(PATTERN)) if (run := _read_file(path)) is not None]
    if any(run.steps for run in runs):
        runs = [run for run in runs if run.steps]
    return sorted(runs, key=lambda run: (run.rank, run.started_at, run.process_id))


def _read_file(path: Path) -> RunObservation | None:
    found: dict[str, Any] = {}
    steps, deep_steps, not_seen, num_unreadable, is_whole = [], [], [], 0, False
    *lines, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in [*lines, last]:
        try:
            entry = json.loads(line) if line.strip() else {}
        except ValueError:
            # A process that is killed while it writes leaves a last line without its end.
            num_unreadable += line is not last
            continue
        if "not_seen" in entry:
            not_seen.append(entry["not_seen"])
        elif "step" in entry:
            steps.append(StepObservation.from_json(entry["step"]))
        elif "deep" in entry:
            deep_steps.append(DeepObservation.from_json(entry["deep"]))
        elif "run" in entry:
            found, is_whole = entry["run"], bool(entry.get("is_last"))
    if not (found or steps):
        return None
    run = RunObservation.from_json(found)
    run.steps, run.deep_steps = steps, deep_steps
    if num_unreadable:
        not_seen.append(
            f"{num_unreadable} line{'s' if num_unreadable > 1 else ''} of the record can't be read"
        )
    run.not_seen += not_seen
    if not is_whole:
        run.outcome = Outcome.CRASHED
        run.not_seen.append("the process ended before it could say how: its last moments are missing")
    return run
