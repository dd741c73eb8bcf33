"""`--harness-track`: a session goes into the history, and never fails because of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

NEEDS_MLFLOW = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="the extra mlflow is not installed"
)

TESTS = """
import pytest
from harness import assert_healthy
from trainings import stall, train_timed


@pytest.mark.budget(step_time_s=0.2)
def test_good(smoke_training):
    smoke_training(train_timed)


@pytest.mark.budget(step_time_s=0.01)
def test_slow(smoke_training):
    smoke_training(train_timed)


def test_stalled(smoke_training):
    assert_healthy(smoke_training(stall))


def test_broken(smoke_training, budget):
    budget(smoke_training(train_timed), step_time_s=0.2)
    assert False, "of its own"


def test_plain(): pass
"""


@pytest.fixture(autouse=True)
def _tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_EXPERIMENT_NAME", "GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILD_ID"):
        monkeypatch.delenv(name, raising=False)


READ = """
import json
from dataclasses import asdict
from pathlib import Path
from harness.tracking.store import History, find_place
print(json.dumps([asdict(launch) for launch in History(find_place(Path.cwd(), "sqlite:///mlflow.db")).read()]))
"""


def read_history(project: pytest.Pytester) -> list[dict[str, Any]]:
    """The launches of the project's history, read by another process: pytester unloads what is imported here."""
    done = subprocess.run([sys.executable, "-c", READ], cwd=project.path, check=True, capture_output=True)
    launches: list[dict[str, Any]] = json.loads(done.stdout)
    return launches


@NEEDS_MLFLOW
def test_a_session_is_tracked_with_workers_or_without_and_what_broke_is_left_out(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(test_it=TESTS)
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    alone = project.runpytest_subprocess("--harness-track")
    alone.assert_outcomes(passed=2, failed=3)
    alone.stdout.fnmatch_lines([f"tracked: 2 launches in mlflow.db, experiment {project.path.name}"])
    launches = read_history(project)
    assert [launch["test"] for launch in launches] == ["test_it.py::test_good", "test_it.py::test_slow"]
    assert {launch["values"]["step_time_s"] for launch in launches} == {0.1}
    assert {(launch["ci"], bool(launch["version"])) for launch in launches} == {("GITHUB_RUN_ID=7", True)}
    assert (project.path / "mlruns" / project.path.name).is_dir()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    workers = project.runpytest_subprocess("--harness-track", "-n", "2", "-k", "good")
    workers.stdout.fnmatch_lines(["tracked: 1 launch in mlflow.db, *"])
    assert "step_time_s" not in read_history(project)[-1]["values"]


def test_nothing_is_tracked_unless_asked_for(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-k", "good")
    result.stdout.no_fnmatch_line("tracked: *")
    assert not (project.path / "mlflow.db").exists()


@NEEDS_MLFLOW
def test_a_server_that_is_away_is_a_line_in_the_summary_and_fails_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess(
        "-k", "good", "--harness-track", "--harness-tracking-uri=http://127.0.0.1:9"
    )
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "nothing was tracked: the tracking store http://127.0.0.1:9 (--harness-tracking-uri) can't be used: *"
        ]
    )


def test_an_address_of_no_store_fails_nothing_and_is_told(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-k", "good", "--harness-track", "--harness-tracking-uri=here")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["nothing was tracked: --harness-tracking-uri='here' is no tracking URI of *"]
    )


def test_without_the_extra_the_summary_names_it(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    project.makeconftest("import sys; sys.modules['mlflow'] = None")
    result = project.runpytest_subprocess("-k", "good", "--harness-track")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["nothing was tracked: *not installed*", "Next: pip install *[[]mlflow]*"])


def test_mlflow_is_imported_only_to_track(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    project.makeconftest(
        "import sys\ndef pytest_unconfigure():\n"
        "    print('tracking:', sorted(n for n in sys.modules if n == 'mlflow' or n.startswith('harness.tracking')))"
    )
    result = project.runpytest_subprocess("-s", "-k", "good")
    result.stdout.fnmatch_lines(["tracking: []"])
