"""Runs on this machine against baselines of other, emulated ones: unchanged programs pass, and changes do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.detection.cache import Cache
from benchmarks.detection.child import FINISHED
from benchmarks.detection.fault import Mutant
from benchmarks.divergence.judge import load_baseline, load_trajectory
from benchmarks.divergence.machines import HOME, OTHERS
from benchmarks.divergence.rows import find_truth
from harness.baselines.comparison import Match, compare_trajectories
from harness.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.detection.cache import Cell
    from benchmarks.divergence.machines import Machine
    from harness.baselines.comparison import TrajectoryComparison
    from harness.baselines.trajectory import Trajectory

RATE = "learning-rate-x3"


@dataclass(frozen=True, slots=True)
class Crossing:
    """One run against a baseline of another machine.

    Attributes:
        machine: Where the baseline was recorded; for clean programs also where the run was, with the baseline at home.
        mutant: What was run.
        comparison: What was said; None where there was nothing to compare, which is an error and no match.
        is_same_class: Whether both count as one class of machines, so that every bit was compared.
    """

    machine: str
    mutant: Mutant
    comparison: TrajectoryComparison | None
    is_same_class: bool

    @property
    def passes(self) -> bool:
        """Whether the run was said to match."""
        return self.comparison is not None and self.comparison.match is Match.MATCHES

    @property
    def is_right(self) -> bool:
        """Whether a difference was named, in the right phase."""
        divergence = self.comparison.divergence if self.comparison else None
        return divergence is not None and divergence.phase in find_truth(self.mutant).phases


class Shelves:
    """The trajectories of all machines, each read once where it is of a clean program.

    Args:
        folder: The records, one folder for each machine.
        seed: Of the runs.
        any_watcher: Whether records by another version of the watcher will do.
    """

    def __init__(self, folder: Path, seed: int, *, any_watcher: bool) -> None:
        self._caches = {
            machine.name: Cache(folder / machine.name, any_watcher=any_watcher) for machine in (HOME, *OTHERS)
        }
        self._seed = seed
        self._kept: dict[tuple[str, str], Trajectory | None] = {}

    def load(self, machine: Machine, mutant: Mutant) -> Trajectory | None:
        """The trajectory of a recorded run; None where it has none."""
        key = (machine.name, mutant.name)
        if key in self._kept:
            return self._kept[key]
        cell = self._caches[machine.name].find_cell(mutant, self._seed)
        found = _load(cell, is_stored=mutant.fault is None)
        if mutant.fault is None:
            self._kept[key] = found
        return found


def cross_clean(shelves: Shelves, mutants: Sequence[Mutant]) -> list[Crossing]:
    """Unchanged programs, both ways between this machine and every other that is recorded."""
    found: list[Crossing] = []
    for machine in OTHERS:
        for mutant in mutants:
            one, two = shelves.load(HOME, mutant), shelves.load(machine, mutant)
            if one is not None and two is not None:
                found += [cross(machine.name, mutant, one, two), cross(machine.name, mutant, two, one)]
    return found


def cross_mutants(shelves: Shelves, mutants: Sequence[Mutant]) -> list[Crossing]:
    """Changed programs on this machine, against the unchanged one on every other that is recorded."""
    found: list[Crossing] = []
    for mutant in mutants:
        changed = shelves.load(HOME, mutant) if mutant.fault else None
        for machine in OTHERS:
            clean = shelves.load(machine, Mutant(mutant.program, None))
            if changed is not None and clean is not None:
                found.append(cross(machine.name, mutant, clean, changed))
    return found


def _load(cell: Cell, *, is_stored: bool) -> Trajectory | None:
    if not cell.is_recorded or cell.read_record()["status"] != FINISHED:
        return None
    try:
        return load_baseline(cell) if is_stored else load_trajectory(cell)
    except ObservationError:
        return None


def cross(machine: str, mutant: Mutant, baseline: Trajectory, observed: Trajectory) -> Crossing:
    """What is said of a run against a baseline of another machine."""
    is_same = baseline.numerics_class == observed.numerics_class
    try:
        comparison = compare_trajectories(baseline, observed)
    except ObservationError:
        comparison = None
    return Crossing(machine, mutant, comparison, is_same)


def tell_crossings(crossings: Sequence[Crossing]) -> list[str]:
    """One line per machine, and one for every clean run that was said to differ."""
    lines = []
    for machine in dict.fromkeys(crossing.machine for crossing in crossings):
        own = [crossing for crossing in crossings if crossing.machine == machine]
        clean = [crossing for crossing in own if crossing.mutant.fault is None]
        changed = [crossing for crossing in own if crossing.mutant.fault is not None]
        rates = [crossing for crossing in changed if crossing.mutant.fault_id == RATE]
        told = [crossing for crossing in changed if not crossing.passes]
        lines.append(
            f"{machine}: clean passes {sum(c.passes for c in clean)} of {len(clean)}; "
            f"learning rate x3 does not in {sum(not c.passes for c in rates)} of {len(rates)}; "
            f"changes seen {len(told)} of {len(changed)}, right phase {sum(c.is_right for c in told)}"
        )
    for crossing in crossings:
        if crossing.mutant.fault is None and not crossing.passes:
            divergence = crossing.comparison.divergence if crossing.comparison else None
            what = (
                f"{divergence.phase}, step {divergence.step}: {divergence.item}: {divergence.change}"
                if divergence
                else ""
            )
            reason = crossing.comparison.reason if crossing.comparison else "nothing to compare"
            lines.append(f"  ALARM {crossing.machine} {crossing.mutant.name}: {what or reason}")
    return lines
