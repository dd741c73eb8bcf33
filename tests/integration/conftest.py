"""An MLflow database, made once: its migrations take seconds; and the command line, called in this process."""

from __future__ import annotations

import random
import shutil
import subprocess
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from harness.cli import main
from harness.tracking.launches import TrackedLaunch
from harness.tracking.store import History, find_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEST = "tests/test_a.py::test_a"


@pytest.fixture
def harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command line in the test's folder; what it launches is a process of its own, as ever."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        code = main(words)
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow without an experiment of ours."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed", exc_type=ImportError)
    root = tmp_path_factory.mktemp("mlflow")
    with History(find_place(root, "sqlite:///mlflow.db"))._connect() as client:
        client.search_experiments()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an empty history, in which the test stands."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    shutil.copyfile(empty_database, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def make_launches() -> Callable[..., list[TrackedLaunch]]:
    """Makes one launch a night; `slow` says how much slower each night is, as a share."""

    def make(
        slow: Callable[[int], float] = lambda _: 0.0,
        *,
        num: int = 40,
        test: str = TEST,
        runner_class: str = "cpu-a",
        commits: list[str] | None = None,
        first: date = date(2026, 1, 1),
    ) -> list[TrackedLaunch]:
        noise = random.Random(test + runner_class)
        return [
            TrackedLaunch(
                test=test,
                runner_class=runner_class,
                recorded_at=f"{first + timedelta(night)}T03:00:00+00:00",
                commit=commits[night] if commits else f"{night:040x}",
                is_dirty=False,
                reason="",
                version="0.1.0",
                ci="",
                values={
                    "step_time_s": 0.03 * (1 + slow(night)) * (1 + noise.gauss(0, 0.01)),
                    "peak_memory_bytes": 1e8,
                },
            )
            for night in range(num)
        ]

    return make
