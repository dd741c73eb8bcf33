"""`harness trend` over a real history, with real commits."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from typing import TYPE_CHECKING

import pytest

from harness.baselines.pools import Launch, PoolStore
from harness.baselines.shelves import FolderShelf
from harness.cli import main
from harness.tracking.store import History, find_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.environment import Environment
    from harness.tracking.launches import TrackedLaunch

    MakeLaunches = Callable[..., list[TrackedLaunch]]

TEST = "tests/test_a.py::test_a"


def unwrap(text: str) -> str:
    return " ".join(text.split())


def creep(night: int) -> float:
    return 0.01 * max(0, night - 31)


def commit(root: Path, num: int) -> list[str]:
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    commits = []
    for number in range(num):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", f"change {number}"], check=True)
        done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        commits.append(done.stdout.strip())
    return commits


def test_a_creep_exits_with_1_and_names_night_size_and_commits(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = commit(root, 40)
    steady = make_launches(test="tests/test_b.py::test_b", commits=commits)
    History(find_place(root)).add([*make_launches(creep, commits=commits), *steady])
    assert main(["trend"]) == 1
    out = capsys.readouterr().out
    told = unwrap(out)
    assert "creeping since 2026-02-0" in told
    assert " a night, +" in told
    assert "commits it may have come with" in told
    assert " change 32\n" in out
    assert "tests/test_b.py::test_b step_time_s on cpu-a: steady: 10 nights around" in told
    assert "Next: look at these" in told
    assert max(map(len, out.splitlines())) <= 120

    assert main(["trend", "test_b"]) == 0
    assert "test_a" not in unwrap(capsys.readouterr().out)
    assert main(["trend", TEST, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    (history,) = facts["histories"]
    assert (facts["exit_code"], history["verdict"], len(history["nights"])) == (1, "creeping", 40)
    assert history["onset"]["low"] < history["onset"]["change"] < history["onset"]["high"]
    assert main(["trend", "--metric", "peak_memory_bytes"]) == 0
    assert "steady" in unwrap(capsys.readouterr().out)


def test_commits_that_this_clone_does_not_have_are_told(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    History(find_place(root)).add(make_launches(creep))
    assert main(["trend"]) == 1
    assert "which this clone does not have. Next: git fetch --unshallow" in unwrap(capsys.readouterr().out)


def test_a_change_without_a_commit_points_at_the_machine(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    History(find_place(root)).add(make_launches(creep, commits=["a" * 40] * 40))
    assert main(["trend"]) == 1
    assert "No commit to look at" in unwrap(capsys.readouterr().out)


def test_too_few_nights_exit_with_2_unless_that_is_allowed(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    History(find_place(root)).add(make_launches(num=5))
    assert main(["trend"]) == 2
    assert "too few nights: 5, of which 5 are the anchor's; 26 more are needed" in unwrap(
        capsys.readouterr().out
    )
    assert main(["trend", "--allow-too-few"]) == 0


def test_another_machine_starts_a_history_of_its_own_and_says_so(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    new = make_launches(runner_class="cpu-b", num=3, first=date(2026, 3, 1))
    History(find_place(root)).add([*make_launches(creep), *new])
    assert main(["trend"]) == 2
    told = unwrap(capsys.readouterr().out)
    assert "on cpu-b: too few nights: 3" in told
    assert "The machine changed: until 2026-02-09 it was cpu-a." in told
    assert "on cpu-a" not in told
    assert main(["trend", "--runner-class", "cpu-a"]) == 1


def test_what_is_not_in_the_history_is_misuse_with_a_suggestion(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    History(find_place(root)).add(make_launches(num=2))
    for arguments, told in [
        (["tests/test_a.py::test_aa"], f"no test 'tests/test_a.py::test_aa' (did you mean {TEST}?)"),
        (["--runner-class", "gpu"], "no runner class 'gpu' here.\nNext: one of cpu-a"),
        (
            ["--metric", "flops"],
            "no flops above 0 to judge.\nNext: --metric peak_memory_bytes or --metric step_time_s",
        ),
        (["--anchor-nights", "3"], "--anchor-nights 3 must be at least 10"),
        (["a", "b"], "takes one test, got a b"),
        (["--tracking-uri", "here"], "--tracking-uri='here' is no tracking URI"),
        (["add"], "needs what to add"),
        (["add", "missing.json"], "missing.json is no document of a session"),
        (["add", "."], "holds no launch to add"),
        (["--bogus"], "--bogus is no option of harness.\nNext: harness trend --help"),
        (["pin"], "needs the name of a release, and a reason"),
        (["pin", "v1", "--reason", "r"], "no pool under"),
        (["--", "python"], "runs no command"),
    ]:
        assert main(["trend", *arguments]) == 2, arguments
        assert told in capsys.readouterr().err


def test_the_folder_of_a_report_is_added_as_its_document_is(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"measured": {"step_time_s": 0.5}, "environment": {"commit": "1a2b", "is_dirty": False}}
    test = {"nodeid": TEST, "runner_class": "cpu", "outcome": "passed", "budget": [], "runs": [run]}
    session = {"created_at": "2026-11-02T03:00:00+00:00", "harness_version": "0.1.0", "tests": [test]}
    report = root / "harness-report"
    report.mkdir()
    (report / "session.json").write_text(json.dumps(session))
    assert main(["trend", "add", "harness-report"]) == 0
    assert main(["trend", "add", "harness-report/session.json"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "harness: 1 launch added, 0 there already.",
        "harness: 0 launches added, 1 there already.",
    ]


@pytest.mark.usefixtures("root")
def test_no_history_exits_with_2_and_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trend"]) == 2
    assert "there is no history to judge.\nNext: pytest --harness-track" in capsys.readouterr().err


def test_the_address_of_the_store_can_stand_in_the_projects_configuration(
    root: Path, make_launches: MakeLaunches, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "mlflow.db").rename(root / "elsewhere.db")
    (root / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nharness_tracking_uri = "sqlite:///elsewhere.db"\n'
    )
    History(find_place(root, "sqlite:///elsewhere.db")).add(make_launches(num=1))
    assert main(["trend", "--allow-too-few"]) == 0
    assert not (root / "mlflow.db").exists()
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\nharness_tracking_uri = "nowhere"\n')
    assert main(["trend"]) == 2
    assert "ini harness_tracking_uri='nowhere' is no tracking URI" in capsys.readouterr().err


def test_pools_are_added_once_and_a_pinned_release_moves_the_anchor_and_shows_the_drift(
    root: Path,
    make_launches: MakeLaunches,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = PoolStore(FolderShelf(root / "baselines"))
    for launch in make_launches(num=3):
        pooled = Launch(launch.values, launch.recorded_at, launch.commit, launch.is_dirty, "initial")
        store.extend(TEST, [pooled], environment, "cpu-a")
    assert main(["trend", "add", "baselines"]) == 0
    assert main(["trend", "add", "baselines"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "added" in line] == [
        "harness: 3 launches added, 0 there already.",
        "harness: 0 launches added, 3 there already.",
    ]
    History(find_place(root)).add(make_launches(creep, num=60)[3:])
    assert main(["trend"]) == 1
    monkeypatch.setattr("harness.clock.now_utc", lambda: "2026-02-20T00:00:00+00:00")
    assert main(["trend", "pin", "v1.2", "--reason", "released"]) == 0
    capsys.readouterr()
    assert main(["trend"]) == 2
    told = unwrap(capsys.readouterr().out)
    assert "too few nights: 60, of which 10 are the anchor's" in told
    assert "Since v1.2 (3 launches around 30" in told


def test_a_damaged_pool_is_told_and_nothing_is_added(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "baselines/budgets/cpu-a"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text('{"harness": {"schema_version": 1}}')
    assert main(["trend", "add", "baselines"]) == 2
    assert "is incomplete" in capsys.readouterr().err
