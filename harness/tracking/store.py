"""The history in MLflow tracking: a local SQLite file, or a server by its URI.

The one file that imports mlflow, and late: it takes a second. One experiment holds a project; each launch of a test
is a run in it, beneath the run of its session, which holds the report and the traces.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.errors import HarnessError, UsageError
from harness.tracking.launches import TrackedLaunch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
QUIET = {
    # A server that is away shall cost seconds, not the minutes of MLflow's own retries; nothing is sent elsewhere.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PAGE = 1000
MAX_TAG = 4000
TAG = "harness."


class TrackingError(HarnessError):
    """The history can't be read or written: mlflow is missing, or its store is away."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a project's history lies.

    Attributes:
        uri: MLflow's tracking URI; `sqlite:////abs/path/mlflow.db` for a local file.
        experiment: Name of the project's experiment.
        root: The project's root.
        source: What named the URI: an option, a variable, or the default.
    """

    uri: str
    experiment: str
    root: Path
    source: str = "default"

    @property
    def file(self) -> Path | None:
        """The local database file; None for a server."""
        found = re.fullmatch(r"sqlite:///(.+)", self.uri)
        return Path(found[1]) if found else None


def find_place(root: Path, given: str = "", *, source: str = "--tracking-uri") -> Place:
    """Where the history of the project at `root` lies: as given, else by $MLFLOW_TRACKING_URI, else in its root.

    Raises:
        UsageError: The URI is none that MLflow tracking knows.
    """
    variable = os.environ.get(URI_VARIABLE, "")
    uri, source = (
        (given, source) if given else (variable, f"${URI_VARIABLE}") if variable else ("", "default")
    )
    uri = uri or f"sqlite:///{DATABASE}"
    if uri.partition(":")[0].partition("+")[0] not in SCHEMES or ":" not in uri:
        raise UsageError(
            f"{source}={hide_password(uri)!r} is no tracking URI of a database or a server.\n"
            f"Next: sqlite:///{DATABASE} for a file under {root}, or http://host:5000 for a server."
        )
    local = re.fullmatch(r"sqlite:///([^/].*)", uri)
    if local:
        # A relative file belongs to the project, wherever the command was started.
        uri = f"sqlite:///{root / local[1]}"
    return Place(uri, os.environ.get(EXPERIMENT_VARIABLE) or root.name or "training", root, source)


class History:
    """The history of one project.

    Raises, in every method:
        TrackingError: mlflow is not installed, or the store can't be reached or used.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def add(self, launches: Sequence[TrackedLaunch], artifacts: Sequence[Path] = ()) -> int:
        """Adds the launches that are not there yet beneath a run for their session; returns how many.

        Args:
            launches: What was measured.
            artifacts: Files and folders kept with the session's run; those that are missing are left out.
        """
        if not launches:
            return 0
        with self._connect() as client:
            experiment = self._find_experiment(client, is_made=True)
            known = {run.data.tags.get(f"{TAG}key") for run in _search(client, experiment)}
            fresh = [launch for launch in launches if launch.key not in known]
            if not fresh:
                return 0
            first = fresh[0]
            session = client.create_run(
                experiment,
                start_time=_read_ms(first.recorded_at),
                run_name=f"session {first.recorded_at}",
                tags=_describe(first) | {f"{TAG}kind": "session"},
            )
            for launch in fresh:
                _write(client, experiment, launch, parent=session.info.run_id)
            for path in artifacts:
                if path.is_dir():
                    client.log_artifacts(session.info.run_id, str(path), path.name)
                elif path.is_file():
                    client.log_artifact(session.info.run_id, str(path))
            client.set_terminated(session.info.run_id, end_time=_read_ms(first.recorded_at))
            return len(fresh)

    def read(self) -> list[TrackedLaunch]:
        """Every launch of the history, oldest first; empty where there is none."""
        file = self._place.file
        if file is not None and not file.is_file():
            return []  # looking makes no database
        with self._connect() as client:
            experiment = self._find_experiment(client, is_made=False)
            if experiment is None:
                return []
            launches = [_read(run) for run in _search(client, experiment)]
        return sorted(launches, key=lambda launch: (launch.recorded_at, launch.test))

    def _find_experiment(self, client: Any, *, is_made: bool) -> Any:
        found = client.get_experiment_by_name(self._place.experiment)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise TrackingError(
                    f"the experiment {self._place.experiment!r} in {hide_password(self._place.uri)} was deleted.\n"
                    f"Next: restore it in MLflow, or name another with {EXPERIMENT_VARIABLE}."
                )
            return found.experiment_id
        if not is_made:
            return None
        file = self._place.file
        location = (file.parent / ARTIFACTS / self._place.experiment).as_uri() if file else None
        return client.create_experiment(self._place.experiment, artifact_location=location)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Any]:
        """A client of the store; what fails inside is told in our words, and MLflow's own chatter is kept down."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                from mlflow.tracking import MlflowClient  # noqa: PLC0415  imported late: a second
            except ImportError as error:
                raise TrackingError(
                    f"the history needs MLflow, which is not installed ({error}).\n"
                    'Next: pip install "pytest-training-harness[mlflow]"'
                ) from error
            levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic", "urllib3")}
            try:
                for name in levels:
                    logging.getLogger(name).setLevel(logging.ERROR)
                yield MlflowClient(self._place.uri)
            except TrackingError:
                raise
            # MLflow passes on what its stores raise: SQLAlchemy's, requests' and its own errors share no class.
            except Exception as error:
                raise TrackingError(self._explain(error)) from error
            finally:
                for name, level in levels.items():
                    logging.getLogger(name).setLevel(level)

    def _explain(self, error: Exception) -> str:
        lines = str(error).strip().splitlines()
        told = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        uri = hide_password(self._place.uri)
        place = f"the tracking store {uri} ({self._place.source})"
        if "database schema" in str(error):
            return f"{place} was made by another MLflow: {hide_password(told)}\nNext: mlflow db upgrade {uri}"
        file = self._place.file
        advice = (
            f"make {file} readable and writable, or move it away"
            if file
            else "start the server, mend its address, or leave it out for a local file"
        )
        return f"{place} can't be used: {hide_password(told)}\nNext: {advice}."


def hide_password(text: str) -> str:
    """A text without the user and password of the URIs in it."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _search(client: Any, experiment: str) -> list[Any]:
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            filter_string=f"tags.`{TAG}kind` = 'launch'",
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _write(client: Any, experiment: str, launch: TrackedLaunch, *, parent: str) -> None:
    from mlflow.entities import Metric  # noqa: PLC0415

    at = _read_ms(launch.recorded_at)
    tags = _describe(launch) | {
        f"{TAG}kind": "launch",
        f"{TAG}key": launch.key,
        f"{TAG}test": launch.test[:MAX_TAG],
        "mlflow.parentRunId": parent,
    }
    run = client.create_run(
        experiment, start_time=at, run_name=launch.test.rpartition("::")[2][:200], tags=tags
    )
    metrics = [Metric(name, value, at, 0) for name, value in launch.values.items()]
    client.log_batch(run.info.run_id, metrics=metrics)
    client.set_terminated(run.info.run_id, end_time=at)


def _describe(launch: TrackedLaunch) -> dict[str, str]:
    dirty = "" if launch.is_dirty is None else str(launch.is_dirty).lower()
    tags = {
        "runner_class": launch.runner_class,
        "recorded_at": launch.recorded_at,
        "commit": launch.commit or "",
        "dirty": dirty,
        "reason": launch.reason[:MAX_TAG],
        "version": launch.version,
        "ci": launch.ci,
    }
    return {f"{TAG}{name}": value for name, value in tags.items() if value}


def _read(run: Any) -> TrackedLaunch:
    tags = {name.removeprefix(TAG): value for name, value in run.data.tags.items() if name.startswith(TAG)}
    return TrackedLaunch(
        test=tags["test"],
        runner_class=tags["runner_class"],
        recorded_at=tags["recorded_at"],
        commit=tags.get("commit"),
        is_dirty={"true": True, "false": False}.get(tags.get("dirty", "")),
        reason=tags.get("reason", ""),
        version=tags.get("version", ""),
        ci=tags.get("ci", ""),
        values=dict(run.data.metrics),
    )


def _read_ms(moment: str) -> int:
    return int(clock.read_utc_s(moment) * 1000)
