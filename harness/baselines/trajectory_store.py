"""Stored trajectories: one readable file for each test and numerics class."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.baselines.calls_in_order import read_calls
from harness.baselines.files import RESTORE, locked, name_file, parse_document, write_text
from harness.baselines.kinds import check_kinds
from harness.baselines.layout import render
from harness.baselines.side_calls import SEPARATOR, read_side_calls
from harness.baselines.trajectory_json import read_trajectory, write_trajectory
from harness.errors import BaselineError
from harness.record.limit import MAX_SECONDS, MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.baselines.shelves import Shelf
    from harness.baselines.trajectory import Provenance, TracePoint, Trajectory

SCHEMA_VERSION = 3
FOLDER = "trajectories"
FIRST = ("test", "numerics_class", "provenance")
"""What a reader looks for comes first."""
COMMIT = re.compile(r"[0-9a-f]{7,64}")
BATCH = re.compile(r"\S+( \S+)+")


@dataclass(frozen=True, slots=True)
class StoredTrajectory:
    """One file of the store.

    Attributes:
        name: Its path from the baselines folder.
        trajectory: What it holds; None where it can't be read.
        problem: Why not; empty where it can.
    """

    name: str
    trajectory: Trajectory | None
    problem: str = ""

    @property
    def numerics_class(self) -> str:
        """The class whose folder it lies in."""
        return self.name.split("/")[1]


class TrajectoryStore:
    """The trajectories under a baselines folder: `trajectories/<numerics class>/<test>.json`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def locate(self, test: str, numerics_class: str) -> str:
        """What messages call the file of a test."""
        return self._shelf.locate(_name(test, numerics_class))

    def find_classes(self, test: str) -> list[str]:
        """The numerics classes that have a trajectory of a test, sorted."""
        return [name.split("/")[1] for name in self._shelf.list_files(_name(test, "*"))]

    def read(self, test: str, numerics_class: str) -> Trajectory | None:
        """The trajectory of a test in a class; None when there is none.

        Raises:
            BaselineError: The file is damaged, empty, of a newer schema, or belongs to another test or class.
        """
        name = _name(test, numerics_class)
        text = self._shelf.read(name)
        if text is None:
            return None
        place = self._shelf.locate(name)
        trajectory = parse_trajectory(text, place)
        if (trajectory.test, trajectory.numerics_class) != (test, numerics_class):
            raise BaselineError(
                f"baseline {place} belongs to {trajectory.test} in class {trajectory.numerics_class}, not to {test} "
                f"in class {numerics_class}.\nNext: delete it and accept a new one."
            )
        return trajectory

    def find_nearest(self, observed: Trajectory) -> Trajectory | None:
        """The baseline of an observed trajectory in the class nearest to its own; None when there is none in any.

        Its own class comes first, then the same device and ranks, then the same version of torch, then the newest.

        Raises:
            BaselineError: A file can't be read.
        """
        if (own := self.read(observed.test, observed.numerics_class)) is not None:
            return own
        others = [self.read(observed.test, name) for name in self.find_classes(observed.test)]
        return choose_nearest([other for other in others if other is not None], observed)

    def list_all(self) -> list[StoredTrajectory]:
        """Every file of the store, by class and name, also those that can't be read."""
        found = []
        for name in self._shelf.list_files(f"{FOLDER}/*/*.json"):
            try:
                trajectory = parse_trajectory(self._shelf.read(name) or "", self._shelf.locate(name))
            except BaselineError as error:
                found.append(StoredTrajectory(name, None, str(error)))
            else:
                found.append(StoredTrajectory(name, trajectory))
        return found

    def write(self, trajectory: Trajectory, provenance: Provenance) -> None:
        """Stores a trajectory as the baseline of its test and class, in place of an earlier one.

        Raises:
            BaselineError: The file can't be written; the old one stays.
            UsageError: The store is that of a commit.
        """
        path = self._shelf.path(_name(trajectory.test, trajectory.numerics_class))
        with locked(path):
            write_text(path, render_trajectory(replace(trajectory, provenance=provenance)))

    def remove(self, name: str) -> None:
        """Deletes a file, and its folder where that is empty then.

        Raises:
            BaselineError: The file can't be deleted.
        """
        remove_file(self._shelf.path(name))


def remove_file(path: Path) -> None:
    """Deletes a baseline, and its folder where that is empty then; one that is gone already is no error.

    Raises:
        BaselineError: The file can't be deleted.
    """
    with locked(path):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise BaselineError(
                f"baseline {path} can't be deleted: {error}.\nNext: make its folder writable."
            ) from error
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def choose_nearest(candidates: Iterable[Trajectory], observed: Trajectory) -> Trajectory | None:
    """The one likeliest to be near in its numbers: same device, ranks and torch, then the newest; None without any."""

    def rank(candidate: Trajectory) -> tuple[bool, bool, bool, str]:
        return (
            candidate.device == observed.device,
            candidate.num_ranks == observed.num_ranks,
            candidate.machine.get("torch") == observed.machine.get("torch"),
            candidate.provenance.accepted_at,
        )

    return max(candidates, key=rank, default=None)


def render_trajectory(trajectory: Trajectory) -> str:
    """The text of a trajectory's file."""
    plain = write_trajectory(trajectory)
    document: dict[str, Any] = {"harness": {"schema_version": SCHEMA_VERSION}}
    document |= {name: plain.pop(name) for name in FIRST if name in plain}
    return render(document | plain)


def parse_trajectory(text: str, place: str) -> Trajectory:
    """The trajectory in the text of a file.

    Raises:
        BaselineError: The text is damaged, empty, of a newer schema, or holds no step.
    """
    if not text.strip():
        raise BaselineError(f"baseline {place} is empty.\n{RESTORE}")
    document = parse_document(text, place, schema_version=SCHEMA_VERSION)
    document.pop("harness")
    try:
        trajectory = read_trajectory(document)
        _check(trajectory)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BaselineError(f"baseline {place} is incomplete: {error}.\n{RESTORE}") from error
    if not trajectory.points:
        raise BaselineError(f"baseline {place} holds no step.\nNext: delete it and accept a new one.")
    return trajectory


def _check(trajectory: Trajectory) -> None:
    """Refuses what would only come out where it is compared or told."""
    check_kinds(trajectory)
    commit = trajectory.provenance.commit
    if commit is not None and not COMMIT.fullmatch(commit):
        raise ValueError(f"commit is {commit!r}")
    if trajectory.ended_by is not None and trajectory.ended_by.kind not in (MAX_STEPS, MAX_SECONDS):
        raise ValueError(f"ended_by.kind is {trajectory.ended_by.kind!r}")
    if not trajectory.settings and any(point.batch for point in trajectory.points):
        raise ValueError("settings are missing")
    _check_steps(trajectory.points)


def _check_steps(points: tuple[TracePoint, ...]) -> None:
    """Refuses traced steps that are not all there: the first ones of a run are traced, without a gap."""
    before, is_traced = -1, True
    for point in points:
        if point.batch and not BATCH.fullmatch(point.batch):
            raise ValueError(f"batch of step {point.step} is {point.batch!r}")
        if point.batch and point.step != before + 1:
            after = f"step {before}" if before >= 0 else "nothing"
            raise ValueError(f"step {point.step} follows {after}")
        if point.batch and not is_traced:
            raise ValueError(f"step {before} has no batch, and the one after it has")
        _check_models(point)
        before, is_traced = point.step, bool(point.batch)


def _check_models(point: TracePoint) -> None:
    """Refuses what is told of calls and of gradients before clipping where it is not what is written."""
    if len(read_calls(point.calls)) != len(point.calls.split()):
        raise ValueError(f"calls of step {point.step} are {point.calls!r}")
    if point.side_calls and len(read_side_calls(point.side_calls)) != point.side_calls.count(SEPARATOR) + 1:
        raise ValueError(f"side_calls of step {point.step} are {point.side_calls!r}")
    if point.unclipped and len(point.unclipped) != len(point.gradients):
        raise ValueError(f"unclipped of step {point.step} holds {len(point.unclipped)} fingerprints")


def _name(test: str, numerics_class: str) -> str:
    return f"{FOLDER}/{numerics_class}/{name_file(test)}"
