"""`harness baselines`: what is stored, for people."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.baselines.pools import Launch, PoolStore
from harness.baselines.shelves import FolderShelf
from harness.baselines.trajectory import Provenance
from harness.baselines.trajectory_store import TrajectoryStore
from harness.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.trajectory import Trajectory
    from harness.record.environment import Environment

TEST = "tests/test_a.py::test_a"
ORIGIN = Provenance("2026-11-02T10:00:00+00:00", "initial", "1a2b3c4d5e6f")

pytestmark = pytest.mark.usefixtures("stored")


@pytest.fixture
def stored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_trajectory: Callable[..., Trajectory],
    make_launch: Callable[..., Launch],
    environment: Environment,
) -> TrajectoryStore:
    """Two classes of one test, its second run, a command's, and a pool; in the working directory."""
    monkeypatch.chdir(tmp_path)
    store = TrajectoryStore(FolderShelf(tmp_path / "baselines", tmp_path))
    store.write(make_trajectory(), replace(ORIGIN, uncommitted="0123456789ab"))
    later = replace(ORIGIN, accepted_at="2026-11-03T10:00:00+00:00", reason="another machine")
    store.write(make_trajectory([3.0, 2.5, 2.25, 1.5], numerics_class="cpu-slow"), later)
    store.write(make_trajectory(test=f"{TEST}#2"), ORIGIN)
    store.write(make_trajectory(test="smoke"), ORIGIN)
    PoolStore(FolderShelf(tmp_path / "baselines")).extend(
        "tests/test_b.py::test_b", [make_launch(step_time_s=0.1)], environment, "own-runner"
    )
    return store


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["baselines", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def find_file(of_class: str = "cpu-fast") -> Path:
    return Path(f"baselines/trajectories/{of_class}/tests.test_a.py.test_a.json")


def test_everything_is_listed_by_test(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    header, *lines = out.splitlines()
    assert code == 0
    assert header.split() == ["test", "kind", "class", "size", "accepted", "commit", "reason"]
    assert [line.split("  ")[0] for line in lines] == [
        "smoke",
        TEST,
        TEST,
        f"{TEST}#2",
        "tests/test_b.py::test_b",
    ]
    assert lines[1].split() == [
        TEST,
        "trajectory",
        "cpu-fast",
        "4",
        "steps",
        "2026-11-02",
        "1a2b3c4+",
        "initial",
    ]
    assert lines[4].split() == [
        "tests/test_b.py::test_b",
        "budget",
        "own-runner",
        "1",
        "launches",
        *lines[4].split()[5:],
    ]
    code, out, _ = run(capsys, "list", "--json")
    assert {row["kind"] for row in json.loads(out)} == {"trajectory", "budget"}


def test_what_can_not_be_read_is_told_beside_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    find_file().write_text("{")
    next(Path("baselines/budgets").glob("*/*.json")).write_text("")
    code, out, err = run(capsys, "list")
    assert code == 2
    assert "cpu-slow" in out
    assert f"harness: baseline {find_file()} can't be read: " in err
    assert err.count("can't be read") == 2
    for path in Path("baselines").glob("*/*/*.json"):
        path.write_text("{")
    code, out, _ = run(capsys, "list")
    assert (code, out) == (2, "")


def test_what_one_side_lacks_is_no_match(
    capsys: pytest.CaptureFixture[str], stored: TrajectoryStore, make_trajectory: Callable[..., Trajectory]
) -> None:
    trajectory = make_trajectory()
    points = tuple(replace(point, batch="", grad_norm=None, clipped_norm=None) for point in trajectory.points)
    stored.write(replace(trajectory, points=points, numerics_class="cpu-bare"), ORIGIN)
    code, out, _ = run(capsys, "diff", "cpu-fast", "cpu-bare", "--baseline", TEST)
    assert code == 2
    assert (
        "cpu-bare lacks what the other holds: gradient norms, traces of steps; that was not compared." in out
    )


def test_an_empty_folder_and_none_at_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run(capsys, "list", "--baselines", "empty")[:2] == (0, "no baselines in empty\n")
    code, _, err = run(capsys, "list", "--baselines", "nowhere")
    assert code == 2
    assert "there is no folder nowhere here.\nNext: " in err


def test_the_newest_trajectory_is_shown_with_steps_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", TEST)
    assert code == 0
    assert "class: cpu-slow" in out
    assert 'origin: accepted 2026-11-03, commit 1a2b3c4, "another machine"' in out
    assert "4 steps on 1 rank, 2 tensors; in depth: 0" in out
    table = out.splitlines()[5:10]
    assert table[0].split() == ["step", "loss", "learning", "rate", "gradient", "norm", "update", "norm"]
    assert table[3].split() == ["2", "2.25", "0.1", "3", "0.1"]
    assert "  optimizer 0 group 0 weight_decay: 0.01" in out
    assert out.endswith("also of class cpu-fast: --class CLASS shows it\n")
    assert "class: cpu-fast" in run(capsys, "show", TEST, "--class", "cpu-fast")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["show", "nothing"],
            "nothing has no stored trajectory in any class.\nNext: name one of smoke, tests/",
        ),
        (
            ["show", TEST, "--class", "x"],
            "has no trajectory of class x.\nNext: name one of cpu-fast, cpu-slow",
        ),
        (
            ["diff", "nowhere", "cpu-slow"],
            "nowhere is no file.\nNext: name a file, or with --baseline NAME a class",
        ),
        (["diff", "nowhere", "cpu-slow", "--baseline", TEST], "no trajectory of class nowhere"),
        (["diff", "HEAD:a.json", "HEAD:a.json"], "HEAD:a.json is not in git"),
        (["diff", "HEAD:x", "HEAD:x", "--baseline", TEST], "baselines HEAD:x can't be read from git"),
        (["prune"], "prune wants to know which"),
        (["prune", "--tests", "-", "--class", "x"], "prune wants to know which"),
        (
            ["prune", "--class", "x"],
            "no baseline is of class x.\nNext: name one of cpu-fast, cpu-slow, own-runner.",
        ),
        (["prune", "--tests", "nowhere"], "--tests nowhere can't be read"),
        (["list", "--", "python", "x.py"], "harness baselines runs no command"),
    ],
)
def test_misuse_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert told in err
    assert "Next: " in err


def test_two_classes_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "diff", "cpu-fast", "cpu-slow", "--baseline", TEST)
    assert code == 1
    assert out.startswith("cpu-fast -> cpu-slow: diverged, compared by tolerance\n")
    assert "\nFirst difference: " in out
    loss = next(line for line in out.splitlines() if line.startswith("loss"))
    assert loss.split()[:5] == ["loss", "2", "2", "of", "4"]
    assert "update norm" in out


def test_what_can_not_be_compared_is_no_difference(
    capsys: pytest.CaptureFixture[str], make_trajectory: Callable[..., Trajectory], stored: TrajectoryStore
) -> None:
    stored.write(make_trajectory(numerics_class="two-ranks", num_ranks=2), ORIGIN)
    code, out, _ = run(capsys, "diff", "cpu-fast", "two-ranks", "--baseline", TEST)
    assert "not comparable" in out
    assert code == 2


def test_files_and_revisions_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    path = find_file()
    assert run(capsys, "diff", f"HEAD:{path}", str(path))[0] == 0
    path.write_text(path.read_text().replace("[2, 2.0, ", "[2, 2.5, "))
    code, out, _ = run(capsys, "diff", f"HEAD:{path}", str(path))
    assert code == 1
    assert "compared to the last digit" in out
    assert "2.5, unchanged" not in out
    code, _, err = run(capsys, "diff", "HEAD:baselines", "cpu-fast", "--baseline", TEST)
    assert code == 1
    assert "HEAD:baselines has several classes, taken is cpu-slow" in err
    assert run(capsys, "list", "--baselines", "HEAD:baselines")[1].count("trajectory") == 4
    assert " budget " in run(capsys, "list", "--baselines", "HEAD:baselines")[1]


def list_files() -> set[str]:
    return {path.name for path in Path("baselines").glob("*/*/*.json")}


def test_pruning_deletes_nothing_unless_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    Path("tests.txt").write_text("tests/test_c.py::test_c\n\n1 test collected in 0.1s\n")
    before = list_files()
    code, out, _ = run(capsys, "prune", "--tests", "tests.txt")
    assert code == 0
    assert out.count("would delete baselines/") == 4
    assert out.endswith("nothing was deleted.\nNext: the same with --yes\n")
    assert list_files() == before
    code, out, _ = run(capsys, "prune", "--tests", "tests.txt", "--yes")
    assert out.count("deleted baselines/") == 4
    # A name that a command line gave is no test.
    assert list_files() == {"smoke.json"}
    assert run(capsys, "prune", "--tests", "tests.txt", "--yes")[1] == "nothing to prune\n"


def test_pruning_keeps_the_second_run_of_a_test_that_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TEST}\n"))
    assert run(capsys, "prune", "--tests", "-", "--yes")[1].count("deleted") == 1
    assert not list(Path("baselines/budgets").glob("*/*.json"))


def test_pruning_with_an_empty_list_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("no tests collected\n"))
    code, _, err = run(capsys, "prune", "--tests", "-", "--yes")
    assert code == 2
    assert "holds no node id, so every baseline would be deleted" in err


@pytest.mark.parametrize(
    "told",
    [
        "ERROR tests/test_b.py - ImportError: x",
        "!!!!!!! Interrupted: 1 error during collection !!!!!!!",
        "1 test collected, 1 error in 0.43s",
        "ERROR: file or directory not found: tests",
    ],
)
def test_the_list_of_a_collection_that_failed_prunes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    before = list_files()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TEST}[ERROR 1 error in x]\n\n{told}\n"))
    code, _, err = run(capsys, "prune", "--tests", "-", "--yes")
    assert code == 2
    assert "is of a collection that failed (" in err
    assert "Next: mend what it tells, then: pytest --collect-only" in err
    assert list_files() == before


def test_an_id_that_speaks_of_errors_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = f"{TEST}[ERROR 1 error in x]\n{TEST}\n\n2 tests collected in 0.43s\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(ids))
    assert run(capsys, "prune", "--tests", "-")[0] == 0


def test_a_class_is_pruned_and_what_can_not_be_read_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    find_file("cpu-fast").write_text("damaged")
    code, out, err = run(capsys, "prune", "--class", "cpu-fast", "--yes")
    assert code == 2
    assert out.count("deleted") == 2
    assert "left alone: baseline baselines/trajectories/cpu-fast/" in err
    assert find_file("cpu-fast").exists()


def test_a_commit_is_not_pruned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    code, _, err = run(capsys, "prune", "--class", "cpu-fast", "--yes", "--baselines", "HEAD:baselines")
    assert code == 2
    assert "can't be written into a commit" in err
