"""Trajectories of unchanged programs that other processors recorded, kept so that runs on this one can be compared.

An emulated machine is told to use other instructions; these are real ones. `store` writes what this machine recorded,
and `machines` compares what it records with the files of all others.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.divergence.crossing import Crossing, cross
from benchmarks.divergence.machines import HOME
from harness.baselines.trajectory_json import read_trajectory, write_trajectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.detection.fault import Mutant
    from benchmarks.divergence.crossing import Shelves
    from harness.baselines.trajectory import Trajectory

FOLDER = Path(__file__).parents[1] / "records" / "trajectories"


def store_trajectories(shelves: Shelves, programs: Sequence[Mutant], folder: Path = FOLDER) -> list[Path]:
    """Writes what this machine recorded of unchanged programs, a file for each numerics class; returns the files.

    Args:
        shelves: The records.
        programs: Unchanged programs; those that have no record are left out.
        folder: Where the files are.
    """
    found: dict[str, dict[str, Any]] = {}
    for mutant in programs:
        trajectory = shelves.load(HOME, mutant)
        if trajectory is not None:
            found.setdefault(trajectory.numerics_class, {})[mutant.program] = write_trajectory(trajectory)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for numerics_class, trajectories in found.items():
        path = folder / f"{numerics_class}.json.xz"
        path.write_bytes(lzma.compress(json.dumps(trajectories, sort_keys=True).encode(), preset=9))
        written.append(path)
    return written


def cross_stored(shelves: Shelves, mutants: Sequence[Mutant], folder: Path = FOLDER) -> list[Crossing]:
    """Runs of this machine, unchanged and changed, against what other processors stored."""
    found = []
    for path in sorted(folder.glob("*.json.xz")):
        stored = dict(_read(path))
        for mutant in mutants:
            observed, baseline = shelves.load(HOME, mutant), stored.get(mutant.program)
            if observed is not None and baseline is not None:
                found.append(cross(path.name.partition(".json")[0], mutant, baseline, observed))
    own = {crossing.machine for crossing in found if crossing.is_same_class}
    return [crossing for crossing in found if crossing.machine not in own]


def _read(path: Path) -> Iterator[tuple[str, Trajectory]]:
    for program, plain in json.loads(lzma.decompress(path.read_bytes())).items():
        yield program, read_trajectory(plain)
