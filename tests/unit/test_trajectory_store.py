from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.pools import PoolStore
from harness.baselines.shelves import FolderShelf
from harness.baselines.trajectory import Provenance
from harness.baselines.trajectory_store import SCHEMA_VERSION, TrajectoryStore
from harness.errors import BaselineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.trajectory import Trajectory

    MakeTrajectory = Callable[..., Trajectory]

TEST = "tests/test_a.py::test_a"
ORIGIN = Provenance("2026-11-02T10:00:00+00:00", "größer", "1a2b3c4", "0123456789ab", {"torch": "2.13.0"})


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    return TrajectoryStore(FolderShelf(tmp_path))


def find_file(folder: Path) -> Path:
    (path,) = folder.glob("trajectories/*/*.json")
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_a_test_without_a_file_has_no_trajectory(
    store: TrajectoryStore, make_trajectory: MakeTrajectory
) -> None:
    assert store.read(TEST, "cpu-fast") is None
    assert store.find_classes(TEST) == []
    assert store.find_nearest(make_trajectory()) is None
    assert store.list_all() == []


def test_a_trajectory_comes_back_with_its_origin(
    store: TrajectoryStore, tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    store.write(make_trajectory(), ORIGIN)
    assert store.read(TEST, "cpu-fast") == make_trajectory(provenance=ORIGIN)
    path = find_file(tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "trajectories/cpu-fast/tests.test_a.py.test_a.json"
    assert path.name == PoolStore(FolderShelf(tmp_path)).path(TEST, "any").name
    assert store.locate(TEST, "cpu-fast") == str(path)


def test_a_second_one_takes_the_place_of_the_first(
    store: TrajectoryStore, make_trajectory: MakeTrajectory
) -> None:
    store.write(make_trajectory([3.0]), ORIGIN)
    store.write(make_trajectory([2.0]), ORIGIN)
    read = store.read(TEST, "cpu-fast")
    assert read is not None
    assert read.losses == [(0, 2.0)]


def test_classes_live_side_by_side(store: TrajectoryStore, make_trajectory: MakeTrajectory) -> None:
    for name in ("b", "a"):
        store.write(make_trajectory(numerics_class=name), ORIGIN)
    store.write(make_trajectory(test="other", numerics_class="c"), ORIGIN)
    assert store.find_classes(TEST) == ["a", "b"]


@pytest.mark.parametrize(
    ("others", "nearest"),
    [
        ([("own", "cpu", 1, "2.12.0", "2026-01-01"), ("b", "cpu", 1, "2.13.0", "2026-02-01")], "own"),
        ([("a", "cuda", 1, "2.13.0", "2026-02-01"), ("b", "cpu", 1, "2.12.0", "2026-01-01")], "b"),
        ([("a", "cpu", 2, "2.13.0", "2026-02-01"), ("b", "cpu", 1, "2.12.0", "2026-01-01")], "b"),
        ([("a", "cpu", 1, "2.12.0", "2026-02-01"), ("b", "cpu", 1, "2.13.0", "2026-01-01")], "b"),
        ([("a", "cpu", 1, "2.13.0", "2026-02-01"), ("b", "cpu", 1, "2.13.0", "2026-01-01")], "a"),
        ([("a", "cuda", 1, "2.13.0", "2026-02-01")], "a"),
    ],
)
def test_the_nearest_class_is_found(
    store: TrajectoryStore,
    make_trajectory: MakeTrajectory,
    others: list[tuple[str, str, int, str, str]],
    nearest: str,
) -> None:
    for name, device, num_ranks, torch, day in others:
        other = make_trajectory(
            numerics_class=name, device=device, num_ranks=num_ranks, machine={"torch": torch}
        )
        store.write(other, replace(ORIGIN, accepted_at=day))
    found = store.find_nearest(make_trajectory(numerics_class="own", machine={"torch": "2.13.0"}))
    assert found is not None
    assert found.numerics_class == nearest


def put(document: dict[str, Any], column: str, value: object) -> None:
    """Writes a value into the first row of the table of steps."""
    table = document["points"]
    table["rows"][0][table["columns"].index(column)] = value


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.update(test="other"), "belongs to other in class cpu-fast, not to tests/"),
        (lambda document: document.update(numerics_class="gpu"), "in class gpu, not to .* in class cpu-fast"),
        (lambda document: document["harness"].update(schema_version=99), r"has schema 99; .* pip install -U"),
        (lambda document: document.pop("harness"), "no harness.schema_version"),
        (lambda document: document.pop("points"), "incomplete: 'points'"),
        (lambda document: document.update(points=[]), "holds no step"),
        (lambda document: document.update(points=[1]), "incomplete"),
        (lambda document: document.update(unknown=1), "incomplete: .*unknown"),
        (
            lambda document: document["provenance"].update(commit="--output=x"),
            "incomplete: commit is '--output=x'",
        ),
        (lambda document: document["provenance"].update(commit=1234567), "incomplete: "),
        (lambda document: put(document, "loss", "3.0"), r"incomplete: points\[0\].loss is '3.0'"),
        (lambda document: put(document, "step", "0"), r"incomplete: points\[0\].step is '0'"),
        (
            lambda document: put(document, "grad_norm", value=True),
            r"incomplete: points\[0\].grad_norm is True",
        ),
        (lambda document: document["deep"][0].update(tensors={"a": "x y"}), "incomplete"),
        (lambda document: document["provenance"].update(commit=5), "incomplete: provenance.commit is 5"),
        (lambda document: document["provenance"].update(accepted_at=5), "provenance.accepted_at is 5"),
        (lambda document: document["provenance"].update(reason=[1]), r"provenance.reason is \[1\]"),
        (lambda document: document["provenance"].update(environment=5), "incomplete"),
        (lambda document: document.update(settings=[1]), "incomplete"),
        (lambda document: document.update(settings={"optimizer": 5}), "incomplete"),
        (lambda document: document.update(machine=5), "incomplete"),
        (lambda document: document.update(machine={"torch": 5}), r"incomplete: machine\['torch'\] is 5"),
        (lambda document: document.update(sources={"Net": 5}), r"incomplete: sources\['Net'\] is 5"),
        (lambda document: document.update(parameters=[[1]]), r"incomplete: parameters\[0\]\[0\] is 1"),
        (lambda document: document.update(project_files=[1]), r"incomplete: project_files\[0\] is 1"),
        (lambda document: document.update(num_ranks="1"), "incomplete: num_ranks is '1'"),
        (lambda document: document.update(device=1), "incomplete: device is 1"),
        (lambda document: document["points"]["rows"][0].extend([1] * 20), "incomplete: a row of points"),
        (lambda document: document["points"]["rows"].pop(1), "incomplete: step 2 follows step 0"),
        (lambda document: document["points"]["rows"].pop(0), "incomplete: step 1 follows nothing"),
        (
            lambda document: put(document, "batch", None),
            "incomplete: step 0 has no batch, and the one after it has",
        ),
        (lambda document: document.pop("settings"), "incomplete: settings are missing"),
        (lambda document: put(document, "batch", "edited"), "incomplete: batch of step 0 is 'edited'"),
        (lambda document: document["deep"][0]["inputs"][0].update(std=10**400), "std is too large a number"),
    ],
)
def test_a_file_with_other_content_is_refused_with_its_path(
    store: TrajectoryStore,
    tmp_path: Path,
    make_trajectory: MakeTrajectory,
    change: Callable[[dict[str, Any]], object],
    told: str,
) -> None:
    store.write(make_trajectory(), ORIGIN)
    path = find_file(tmp_path)
    edit(path, change)
    with pytest.raises(BaselineError, match=f"(?s){told}") as caught:
        store.read(TEST, "cpu-fast")
    assert str(path) in str(caught.value)
    assert "Next: " in str(caught.value)
    with pytest.raises(BaselineError):
        store.find_nearest(make_trajectory(numerics_class="another"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"harness": {"sch', "can't be read"),
        (b"<<<<<<< HEAD\n{}\n", "can't be read"),
        (b"\xff", "can't be read"),
    ],
)
def test_a_damaged_file_is_refused_and_listed_as_such(
    store: TrajectoryStore, tmp_path: Path, make_trajectory: MakeTrajectory, content: bytes, told: str
) -> None:
    store.write(make_trajectory(numerics_class="good"), ORIGIN)
    store.write(make_trajectory(numerics_class="bad"), ORIGIN)
    (path,) = tmp_path.glob("trajectories/bad/*.json")
    path.write_bytes(content)
    with pytest.raises(BaselineError, match=told):
        store.read(TEST, "bad")
    bad, good = store.list_all()
    assert (bad.trajectory, bad.numerics_class) == (None, "bad")
    assert told in bad.problem
    assert good.trajectory is not None
    assert good.problem == ""


def test_a_file_of_this_schema_says_so(
    store: TrajectoryStore, tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    store.write(make_trajectory(), ORIGIN)
    document = json.loads(find_file(tmp_path).read_text(encoding="utf-8"))
    assert document["harness"] == {"schema_version": SCHEMA_VERSION}
    assert list(document)[:4] == ["harness", "test", "numerics_class", "provenance"]


def test_a_write_that_fails_leaves_the_old_file(
    store: TrajectoryStore, tmp_path: Path, make_trajectory: MakeTrajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_trajectory([3.0]), ORIGIN)
    before = find_file(tmp_path).read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BaselineError, match="No space left on device; what was stored before is untouched"):
        store.write(make_trajectory([2.0]), ORIGIN)
    assert find_file(tmp_path).read_bytes() == before
    assert [path.name for path in find_file(tmp_path).parent.iterdir()] == [find_file(tmp_path).name]


def test_a_removed_file_takes_its_empty_folder_along(
    store: TrajectoryStore, tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    store.write(make_trajectory(), ORIGIN)
    store.write(make_trajectory(test="other"), ORIGIN)
    for stored in store.list_all():
        store.remove(stored.name)
        store.remove(stored.name)
    assert not (tmp_path / "trajectories/cpu-fast").exists()


def test_a_file_that_can_not_be_removed_is_told(
    store: TrajectoryStore, make_trajectory: MakeTrajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_trajectory(), ORIGIN)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(BaselineError, match="can't be deleted: .*Read-only"):
        store.remove(store.list_all()[0].name)


def write_often(folder: Path, trajectory: Trajectory) -> None:
    for _ in range(10):
        TrajectoryStore(FolderShelf(folder)).write(trajectory, ORIGIN)


def test_processes_that_write_at_once_never_tear_a_file(
    tmp_path: Path, make_trajectory: MakeTrajectory
) -> None:
    store = TrajectoryStore(FolderShelf(tmp_path))
    candidates = [make_trajectory([float(start + step) for step in range(200)]) for start in (1, 2)]
    store.write(candidates[0], ORIGIN)
    num_read = 0
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        writing = [executor.submit(write_often, tmp_path, candidate) for candidate in candidates]
        while not all(done.done() for done in writing):
            assert store.read(TEST, "cpu-fast") in [replace(each, provenance=ORIGIN) for each in candidates]
            num_read += 1
        for done in writing:
            done.result()
    assert num_read > 0
    assert len(list(tmp_path.glob("trajectories/*/*"))) == 1
