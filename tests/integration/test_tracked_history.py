"""The history in a real SQLite file of MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.tracking.store import History, TrackingError, find_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.tracking.launches import TrackedLaunch

    MakeLaunches = Callable[..., list[TrackedLaunch]]


def test_launches_come_back_as_they_were_and_enter_once(root: Path, make_launches: MakeLaunches) -> None:
    history = History(find_place(root))
    launches = make_launches(num=3)
    assert history.add(launches[:2]) == 2
    assert history.add(launches) == 1
    assert history.add([]) == 0
    assert history.read() == launches


def test_report_and_traces_are_kept_with_the_run_of_the_session(
    root: Path, make_launches: MakeLaunches
) -> None:
    from mlflow.tracking import MlflowClient

    (root / "session.json").write_text("{}")
    (root / "traces").mkdir()
    (root / "traces/a.json.gz").touch()
    launches = make_launches(num=2)
    History(find_place(root)).add(launches, [root / "session.json", root / "traces", root / "missing"])
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name(root.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (session,) = [run for run in runs if run.data.tags["harness.kind"] == "session"]
    others = [run for run in runs if run.data.tags["harness.kind"] == "launch"]
    assert {run.data.tags["mlflow.parentRunId"] for run in others} == {session.info.run_id}
    assert {artifact.path for artifact in client.list_artifacts(session.info.run_id)} == {
        "session.json",
        "traces",
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    tags = others[0].data.tags
    assert (tags["harness.test"], tags["harness.runner_class"]) == (launches[0].test, "cpu-a")
    assert {"harness.commit", "harness.version", "harness.recorded_at", "harness.dirty"} <= set(tags)


def test_a_file_that_is_no_database_is_told(root: Path, make_launches: MakeLaunches) -> None:
    (root / "mlflow.db").write_text("no database")
    with pytest.raises(
        TrackingError, match=r"(?s)mlflow.db \(default\) can't be used: .*Next: make .*mlflow.db"
    ):
        History(find_place(root)).add(make_launches(num=1))


def test_a_server_that_is_away_is_told_within_seconds(root: Path) -> None:
    history = History(find_place(root, "http://user:secret@127.0.0.1:9"))
    with pytest.raises(
        TrackingError, match=r"(?s)http://127.0.0.1:9 .* can't be used: .*Next: start"
    ) as caught:
        history.read()
    assert "secret" not in str(caught.value)


def test_a_deleted_experiment_is_told(root: Path, make_launches: MakeLaunches) -> None:
    from mlflow.tracking import MlflowClient

    history = History(find_place(root))
    history.add(make_launches(num=1))
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name(root.name)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="was deleted"):
        history.read()
