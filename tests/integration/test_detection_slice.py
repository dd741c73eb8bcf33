"""A slice of the gallery of faults: every mutant is found, with its cause first, and clean programs are quiet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.detection.cache import Cache
from benchmarks.detection.judge import judge_cell
from benchmarks.detection.run import Gallery, list_clean_set, select_mutants

ROOT = Path(__file__).parents[2]
SEED = 0
MUTANTS = select_mutants(["language_model", "image_classifier"], None, is_slice=True)
CLEAN = ("clean/dcgan", "clean/mean_teacher", "clean/frozen_backbone", "clean/infonce", "clean/resume")
"""A few of those that do something unusual on purpose."""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    cache = tmp_path_factory.mktemp("detection")
    words = [
        sys.executable,
        "-m",
        "benchmarks.detection.run",
        "record",
        "--seeds",
        str(SEED),
        "--cache",
        str(cache),
    ]
    # In a process of its own: it forks, which a process that has trained must not do.
    for more in (
        ["--slice"],
        ["--clean-set", "only", "--programs", "language_model", "--clean-programs", *CLEAN],
    ):
        subprocess.run([*words, *more], cwd=ROOT, check=True, capture_output=True, timeout=250)
    clean = [
        (mutant, [SEED]) for mutant, _ in list_clean_set() if mutant.program in CLEAN and not mutant.arguments
    ]
    return Gallery([*((mutant, [SEED]) for mutant in MUTANTS), *clean], Cache(cache))


@pytest.mark.slow
def test_the_slice_has_faults_of_two_programs_and_both_clean() -> None:
    assert len(MUTANTS) > 12
    assert {mutant.program for mutant in MUTANTS if mutant.fault is None} == {
        "language_model",
        "image_classifier",
    }


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS if mutant.fault])
def test_a_fault_is_found_with_its_cause_first(gallery: Gallery, name: str) -> None:
    (cell,) = gallery.cells[name]
    verdict = judge_cell(cell, clean=None)
    assert cell.mutant.fault is not None
    assert verdict.codes, name
    assert verdict.codes[0].startswith(cell.mutant.fault.expected), f"{name}: {verdict.codes}"


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_clean_programs_are_quiet(gallery: Gallery) -> None:
    quiet = [mutant for mutant in gallery.mutants if mutant.fault is None]
    assert len(quiet) == 2 + len(CLEAN)
    for mutant in quiet:
        (cell,) = gallery.cells[mutant.name]
        verdict = judge_cell(cell, clean=None)
        assert (verdict.status, verdict.codes) == ("finished", []), mutant.name
