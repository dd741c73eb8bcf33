"""A slice of the proof of "what changed first": the right phase for every change, and silence without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.detection.cache import Cache, Cell
from benchmarks.detection.fault import Mutant
from benchmarks.divergence.judge import Outcome, judge_cell, load_baseline, load_trajectory
from benchmarks.divergence.machines import HOME
from benchmarks.divergence.rows import SLICED, list_mutants
from harness.baselines.comparison import Match, compare_trajectories

ROOT = Path(__file__).parents[2]
SEED = 0
MUTANTS = list_mutants(["language_model", "gan"], [SLICED])
CHANGED = [mutant for mutant in MUTANTS if mutant.fault]
CLEAN = [mutant for mutant in MUTANTS if not mutant.fault]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("divergence"), "slice")


def record(folder: Path, word: str, *more: str) -> Path:
    # In a process of its own: it forks, which a process that has trained must not do.
    words = [
        sys.executable,
        "-m",
        "benchmarks.divergence.run",
        "record",
        "--changes",
        word,
        "--cache",
        str(folder),
    ]
    subprocess.run([*words, *more], cwd=ROOT, check=True, capture_output=True, timeout=250)
    return folder


def find_cell(folder: Path, mutant: Mutant) -> Cell:
    return Cache(folder / HOME.name).find_cell(mutant, SEED)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("mutant", CHANGED, ids=lambda mutant: mutant.name)
def test_a_change_is_named_in_its_phase(records: Path, mutant: Mutant) -> None:
    clean = find_cell(records, Mutant(mutant.program, None))
    verdict = judge_cell(find_cell(records, mutant), clean)
    said = (verdict.outcome, verdict.divergence)
    if not verdict.truth.phases:
        assert verdict.outcome is Outcome.SILENT, said
        return
    assert verdict.outcome is Outcome.RIGHT, said
    assert verdict.divergence is not None
    assert verdict.divergence.causes


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_an_unchanged_program_matches_to_the_last_bit_in_another_process(
    records: Path, tmp_path: Path
) -> None:
    again = record(tmp_path, "clean", "--programs", "language_model", "gan")
    assert len(CLEAN) == 2
    for mutant in CLEAN:
        comparison = compare_trajectories(
            load_baseline(find_cell(records, mutant)), load_trajectory(find_cell(again, mutant))
        )
        assert (comparison.match, comparison.is_exact) == (Match.MATCHES, True), comparison
