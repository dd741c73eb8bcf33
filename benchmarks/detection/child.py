"""Runs one mutant in this process, watched as `harness check` watches, and writes down what was seen."""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import harness
from benchmarks.detection.cache import EFFECT_FILE, LOG_FILE, RECORD_FILE, RUN_FOLDER
from benchmarks.detection.effect import measure_effect
from harness.errors import HarnessError, ObservationError
from harness.watch.call import run_call
from harness.watch.launch import RunOptions
from harness.watch.options import build_observer_options
from harness.watch.recorder import Recorder

if TYPE_CHECKING:
    from benchmarks.detection.fault import Mutant
    from benchmarks.detection.recording import Conditions
    from harness.record.observation import RunObservation

FINISHED, RAISED, REFUSED = "finished", "raised", "refused"


def run_mutant(source: str, mutant: Mutant, seed: int, folder: Path, conditions: Conditions) -> None:
    """Runs the text of a program in an own folder below `folder`, and writes record and effect beside it.

    The process is not fit for anything else afterwards: output, working directory and arguments are the
    program's.
    """
    script = folder / f"{mutant.program.rpartition('/')[2]}.py"
    script.write_text(source, encoding="utf-8")
    run_folder = folder / RUN_FOLDER
    run_folder.mkdir()
    _redirect_output(folder / LOG_FILE)
    os.chdir(run_folder)
    sys.argv = [str(script), "--seed", str(seed), "--out", "out", *mutant.arguments]
    sys.path.insert(0, str(folder))
    torch.set_num_threads(conditions.threads)
    record, observation = _watch(script, run_folder, conditions)
    record |= {"folder": str(folder), "threads": conditions.threads}
    effect = measure_effect(observation, run_folder)
    (folder / EFFECT_FILE).write_text(json.dumps(effect), encoding="utf-8")
    (folder / RECORD_FILE).write_text(json.dumps(record, default=str), encoding="utf-8")


def _watch(
    script: Path, run_folder: Path, conditions: Conditions
) -> tuple[dict[str, Any], RunObservation | None]:
    deep = build_observer_options("deep")
    options = RunOptions(
        name=f"python {script.name}",
        run_dir=run_folder,
        threads=conditions.threads,
        watch=deep and replace(deep, traced_steps=conditions.traced_steps),
    )
    try:
        run = run_call(functools.partial(_run_script, script), options=options, recorder=Recorder())
    except HarnessError as error:
        traceback.print_exc()
        seen = error.seen[0] if isinstance(error, ObservationError) and error.seen else None
        # The program's own exception is the cause of what the launcher raises.
        status = REFUSED if error.__cause__ is None else RAISED
        if status == RAISED and _is_our_own(error.__cause__):
            raise
        record = {"status": status, "message": str(error), "observed": seen and seen.to_json()}
        return record, seen
    observed = run.observed
    record = {
        "status": FINISHED,
        "message": "",
        "name": options.name,
        "logged": [
            {"step": step.step, "metrics": step.metrics, "time_s": step.time_s} for step in run.logged
        ],
        "logged_source": run.logged_source,
        "notes": run.notes,
        "wall_clock_s": run.wall_clock_s,
        "peak_memory_bytes": run.peak_memory_bytes,
        "waiting_s": run.waiting_s,
        "observed": observed and observed.to_json(),
    }
    return record, observed


def _is_our_own(error: BaseException | None) -> bool:
    """Whether an exception left the harness and not the program: that is no record, but a defect of ours."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(harness.__file__).parent)


def _run_script(script: Path) -> None:
    runpy.run_path(str(script), run_name="__main__")


def _redirect_output(path: Path) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
