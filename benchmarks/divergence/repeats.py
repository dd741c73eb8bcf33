"""Unchanged programs, run again and again in new processes: every one has to match its baseline to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.detection.cache import Cache
from benchmarks.detection.fault import Mutant
from benchmarks.divergence.judge import load_baseline, load_trajectory
from harness.baselines.comparison import Match, compare_trajectories
from harness.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.divergence.machines import Machine

REPEATED = ("language_model", "image_classifier", "gan", "autoencoder", "divergence/reference")
FOLDER = "repeats"
BUSY = "while True: pass"


@dataclass(frozen=True, slots=True)
class RepeatSeries:
    """Repeats of a kind.

    Attributes:
        machine: Whose conditions they ran under; their baseline is the first of them.
        is_loaded: Whether other processes kept every processor busy meanwhile.
        num_runs: Runs compared, the baselines aside.
        num_exact: Of them, those that were compared bit by bit.
        strange: A sentence for each that was not said to match.
    """

    machine: str
    is_loaded: bool
    num_runs: int
    num_exact: int
    strange: tuple[str, ...]


def name_folder(machine: Machine, *, is_loaded: bool) -> str:
    """The folder of a series below that of all repeats."""
    return f"{machine.name}{'-loaded' if is_loaded else ''}"


def record_repeats(
    folder: Path, machine: Machine, times: int, *, is_loaded: bool, seed: int, limit_s: float
) -> int:
    """Runs every repeated program so many times, each time from a new interpreter; 1 when a run left no record."""
    series = folder / FOLDER / name_folder(machine, is_loaded=is_loaded)
    failed = 0
    with _busy(os.cpu_count() if is_loaded else 0):
        for number in range(times):
            words = [
                "record",
                "--repeated",
                "--machines",
                machine.name,
                "--cache",
                str(series / f"{number:03}"),
            ]
            words += ["--seed", str(seed), "--limit", str(limit_s)]
            environment = os.environ | dict(machine.environment)
            command = [sys.executable, "-m", "benchmarks.divergence.run", *words]
            failed |= subprocess.run(command, env=environment, check=False).returncode
    return failed


@contextmanager
def _busy(num_processes: int | None) -> Iterator[None]:
    """Keeps processors busy with other work."""
    others = [
        subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
        for _ in range(num_processes or 0)
    ]
    try:
        yield
    finally:
        for other in others:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()


def judge_repeats(folder: Path, machine: Machine, *, is_loaded: bool, seed: int) -> RepeatSeries | None:
    """What is said of a series; None where none was recorded."""
    name = name_folder(machine, is_loaded=is_loaded)
    places = sorted((folder / FOLDER / name).glob(f"*/{machine.name}"))
    # Under another load the numbers must be those that the same machine gave without it.
    unloaded = sorted((folder / FOLDER / name_folder(machine, is_loaded=False)).glob(f"*/{machine.name}"))
    if not places or not unloaded:
        return None
    strange: list[str] = []
    num_runs = num_exact = 0
    for program in REPEATED:
        baseline_cell = Cache(unloaded[0], any_watcher=True).find_cell(Mutant(program, None), seed)
        if not baseline_cell.is_recorded:
            continue
        baseline = load_baseline(baseline_cell)
        for place in places if is_loaded else places[1:]:
            cell = Cache(place, any_watcher=True).find_cell(Mutant(program, None), seed)
            if not cell.is_recorded:
                continue
            num_runs += 1
            try:
                comparison = compare_trajectories(baseline, load_trajectory(cell))
            except ObservationError as error:
                strange.append(f"{program} {place.parent.name}: {error}".partition("\n")[0])
                continue
            num_exact += comparison.is_exact
            if comparison.match is not Match.MATCHES:
                found = comparison.divergence
                told = f"{found.phase}, step {found.step}: {found.item}" if found else comparison.reason
                strange.append(f"{program} {place.parent.name}: {told}")
    return RepeatSeries(machine.name, is_loaded, num_runs, num_exact, tuple(strange))


def tell_series(series: Sequence[RepeatSeries]) -> list[str]:
    """One line per series, and one for each run that did not match."""
    lines = []
    for one in series:
        lines.append(
            f"{one.machine}{', under another load' if one.is_loaded else ''}: {one.num_runs} repeats, "
            f"{one.num_exact} compared bit by bit, {len(one.strange)} said to differ"
        )
        lines += [f"  {told}" for told in one.strange]
    return lines
