from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from harness.errors import UsageError
from harness.tracking.store import History, TrackingError, find_place, hide_password

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def test_the_history_lies_in_the_projects_root_by_default(tmp_path: Path) -> None:
    place = find_place(tmp_path)
    assert place.file == tmp_path / "mlflow.db"
    assert (place.experiment, place.source) == (tmp_path.name, "default")


def test_an_option_beats_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    place = find_place(tmp_path)
    assert (place.uri, place.file, place.experiment) == ("http://host:5000", None, "mine")
    assert place.source == "$MLFLOW_TRACKING_URI"
    assert find_place(tmp_path, "sqlite:///other.db").file == tmp_path / "other.db"


@pytest.mark.parametrize("uri", ["mlflow.db", "htp://host", "./mlruns", "file:///mlruns", "http"])
def test_a_uri_of_no_store_is_misuse(tmp_path: Path, uri: str) -> None:
    with pytest.raises(
        UsageError, match=r"(?s)^--tracking-uri='.*' is no tracking URI .*Next: sqlite:///mlflow.db"
    ):
        find_place(tmp_path, uri)


def test_passwords_are_not_told(tmp_path: Path) -> None:
    assert hide_password("can't reach https://me:secret@host/x") == "can't reach https://host/x"
    assert hide_password("https://me:s@cret@host/x") == "https://host/x"
    with pytest.raises(UsageError, match="'htp://host' is no tracking URI"):
        find_place(tmp_path, "htp://me:secret@host")


@pytest.mark.parametrize("told", ["out of date database schema", "at https://me:secret@host: no route"])
def test_a_store_that_fails_tells_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    def fail(_uri: str) -> NoReturn:
        raise RuntimeError(told)

    mlflow = pytest.importorskip("mlflow.tracking")
    monkeypatch.setattr(mlflow, "MlflowClient", fail)
    with pytest.raises(TrackingError) as caught:
        History(find_place(tmp_path, "https://me:secret@host")).read()
    assert "https://host" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_mlflow_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(TrackingError, match=r"(?s)not installed.*Next: pip install .*\[mlflow\]"):
        History(find_place(tmp_path)).read()


def test_looking_for_a_history_makes_none(tmp_path: Path) -> None:
    assert History(find_place(tmp_path)).read() == []
    assert list(tmp_path.iterdir()) == []
