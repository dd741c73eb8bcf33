"""Accepting stores what good runs measured, with the reason, or nothing at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness.baselines.pools import Launch, PoolStore
from harness.baselines.shelves import FolderShelf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.environment import Environment

ACCEPT = ["--accept-baselines", "--reason", "größer"]
GOOD = """
import pytest
from trainings import train_timed


@pytest.mark.budget(step_time=0.1, final_loss=0.1)
def test_good(smoke_training):
    smoke_training(train_timed)
    smoke_training(train_timed, 0.2)


@pytest.mark.budget(step_time=0.1)
@pytest.mark.parametrize("rate", ["a/b", "Größe", "x" * 300])
def test_odd_names(smoke_training, rate):
    smoke_training(train_timed)
"""
BAD = """
import pytest
from harness import assert_loss_decreases
from trainings import diverge, stall, train_timed


@pytest.mark.budget(final_loss=0.1)
def test_finding(smoke_training):
    assert_loss_decreases(smoke_training(stall))


@pytest.mark.budget(final_loss=0.1)
def test_nan(smoke_training):
    smoke_training(diverge)


@pytest.mark.budget(step_time=0.1, step_time_s=0.01)
def test_over_limit(smoke_training):
    smoke_training(train_timed)
"""
FAULTS = {
    "disk full": "def fail(*_): raise OSError(errno.ENOSPC, 'No space left on device')\nos.fsync = fail",
    "read-only": """
real = os.open
def fail(path, flags, *rest, **options):
    if "/baselines/" in str(path) and flags & os.O_CREAT:
        raise OSError(errno.EROFS, "Read-only file system")
    return real(path, flags, *rest, **options)
os.open = fail
""",
}


def list_baselines(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("baselines/**/*") if path.is_file())


def test_accepted_baselines_judge_the_next_session(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=GOOD)
    result = project.runpytest_subprocess(*ACCEPT)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_good *passed, accepted",
            "note: *final_loss accepted as launch 1 of baselines/budgets/*.json.",
        ]
    )
    paths = list_baselines(project.path)
    # Two runs of the first test, and three tests with odd names.
    assert len(paths) == 5
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert {launch["reason"] for document in documents for launch in document["harness"]["launches"]} == {
        "größer"
    }
    again = project.runpytest_subprocess("--harness-inconclusive=fail", *ACCEPT)
    again.assert_outcomes(passed=4)
    again.stdout.fnmatch_lines(["note: *accepted as launch 2 of *.json."])
    project.runpytest_subprocess().assert_outcomes(passed=4)


def test_nothing_is_accepted_from_a_failing_run(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=BAD)
    result = project.runpytest_subprocess(*ACCEPT)
    result.assert_outcomes(failed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["final_loss is nan, which is neither compared nor accepted *"])
    assert list_baselines(project.path) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_fails_is_an_error_and_leaves_what_was_there(
    project: pytest.Pytester, environment: Environment, make_launch: Callable[..., Launch], fault: str
) -> None:
    project.makepyfile(test_it=GOOD)
    store = PoolStore(FolderShelf(project.path / "baselines"))
    store.extend("test_it.py::test_good", [make_launch(step_time_s=0.1)], environment, "own-runner")
    before = {path: path.read_bytes() for path in list_baselines(project.path)}
    project.makeconftest(f"import errno, os\n{FAULTS[fault]}")
    result = project.runpytest_subprocess("-k", "test_good", "--harness-runner-class=own-runner", *ACCEPT)
    result.assert_outcomes(failed=1)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [
            "baseline *.json can't be written: *; what was stored before is untouched.",
            "Next: free space or make the folder writable*",
        ]
    )
    result.stdout.no_fnmatch_line("*During handling of the above exception*")
    assert {path: path.read_bytes() for path in list_baselines(project.path)} == before
