"""Runs the tests that a user of pytest-torch would write on every mutant, and keeps what they said."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.detection.fault import Mutant

RESULTS_FILE = "plugin.json"
OWN_FILES = ("check_programs.py", "hosting.py", "drive.py")
AT_ONCE = 64
"""Tests between two writes of the results, so that an end from outside loses little."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run_plugin(mutants: Sequence[Mutant], cache: Path, *, python: str, jobs: int) -> None:
    """Tests the mutants that have no result yet.

    Args:
        mutants: All of them, clean programs too.
        cache: Folder for the results.
        python: An interpreter whose environment has pytest-torch.
        jobs: Tests at a time.

    Raises:
        subprocess.CalledProcessError: The interpreter lacks the plugin, or something else it needs.
    """
    known = _read(cache)
    wanted = [
        {"name": key, "program": mutant.program, "source": mutant.build_source()}
        for mutant in mutants
        if (key := _find_key(mutant)) not in known
    ]
    for start in range(0, len(wanted), AT_ONCE):
        known |= _test(wanted[start : start + AT_ONCE], python, jobs)
        (cache / RESULTS_FILE).write_text(json.dumps(known), encoding="utf-8")


def _test(wanted: list[dict[str, str]], python: str, jobs: int) -> dict[str, dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "wanted.json", Path(folder) / "found.json"
        given.write_text(json.dumps(wanted), encoding="utf-8")
        subprocess.run(
            [python, "-m", "benchmarks.detection.peers.drive", str(given), str(found), str(jobs)],
            check=True,
            env={**os.environ, **THREADS},
            cwd=Path(__file__).resolve().parents[3],
        )
        results: dict[str, dict[str, object]] = json.loads(found.read_text(encoding="utf-8"))
    return results


def read_plugin(mutants: Sequence[Mutant], cache: Path) -> dict[str, bool]:
    """Whether the plugin's tests failed, by the mutant's name; those that were not tested are left out."""
    known = _read(cache)
    found = {mutant.name: known.get(_find_key(mutant)) for mutant in mutants}
    return {name: bool(result["failed"]) for name, result in found.items() if result is not None}


def tell_plugin(mutant: Mutant, cache: Path) -> str:
    """What the plugin's tests printed of a mutant; empty where they did not run."""
    return str(_read(cache).get(_find_key(mutant), {}).get("output", ""))


def _read(cache: Path) -> dict[str, dict[str, object]]:
    path = cache / RESULTS_FILE
    if not path.is_file():
        return {}
    found: dict[str, dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _find_key(mutant: Mutant) -> str:
    own = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in OWN_FILES]
    text = "\0".join([mutant.build_source(), *own])
    return f"{mutant.name} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
