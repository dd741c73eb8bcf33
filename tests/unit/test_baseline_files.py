from __future__ import annotations

import errno
import os
import stat
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock, Timeout

from harness.baselines import files
from harness.baselines.files import find_lock, locked, read_json, write_json
from harness.errors import BaselineError

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT: dict[str, Any] = {"harness": {"schema_version": 1}, "note": "größer \udcff"}


def fail_with(code: int) -> Any:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_document_comes_back_from_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a/b.json"
    write_json(path, DOCUMENT)
    assert read_json(path, schema_version=1) == DOCUMENT
    assert "größer" in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list_files(path.parent) == ["b.json"]


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_json(tmp_path / "a.json", schema_version=1) is None
    assert read_json(tmp_path / "file/a.json", schema_version=1) is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "can't be read: Expecting value"),
        (b'{"harness": ', "can't be read"),
        (b"\xff\xfe", "can't be read"),
        (b"[]", "is not a baseline of this harness"),
        (b'{"harness": 1}', "is not a baseline of this harness"),
        (b'{"harness": {"schema_version": "1"}}', "is not a baseline of this harness"),
        (b'{"harness": {"schema_version": 2}}', "has schema 2; this harness reads up to 1"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_with_its_path(
    tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BaselineError, match=told) as caught:
        read_json(path, schema_version=1)
    assert str(path) in str(caught.value)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="can't be read: .*Is a directory"):
        read_json(tmp_path, schema_version=1)


def test_a_name_too_long_for_the_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="can't be read: .*File name too long"):
        read_json(tmp_path / ("x" * 5000), schema_version=1)


@pytest.mark.parametrize(
    ("module", "call", "code", "told"),
    [
        (os, "fsync", errno.ENOSPC, "No space left on device"),
        (tempfile, "mkstemp", errno.EROFS, "Read-only file system"),
        (tempfile, "mkstemp", errno.EACCES, "Permission denied"),
        (os, "replace", errno.EIO, "Input/output error"),
    ],
)
def test_a_write_that_fails_leaves_the_old_content_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, call: str, code: int, told: str
) -> None:
    path = tmp_path / "a.json"
    write_json(path, DOCUMENT)
    before = path.read_bytes()
    monkeypatch.setattr(module, call, fail_with(code))
    with pytest.raises(
        BaselineError, match=f"can't be written: .*{told}; what was stored before is untouched"
    ):
        write_json(path, {"harness": {"schema_version": 1}})
    assert path.read_bytes() == before
    assert list_files(tmp_path) == ["a.json"]


def test_an_interrupted_write_leaves_the_old_content_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, DOCUMENT)
    before = path.read_bytes()

    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {})
    assert path.read_bytes() == before
    assert list_files(tmp_path) == ["a.json"]


def test_a_folder_that_is_a_file_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BaselineError, match="can't be written"):
        write_json(tmp_path / "file/a.json", DOCUMENT)


def test_locks_leave_nothing_beside_the_baselines_and_one_file_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for folder in ("a", "b", "c"):
        with locked(tmp_path / folder / "test.json"):
            pass
    assert list_files(tmp_path) == ["temporary"]
    assert list_files(temporary) == [find_lock().name]


def test_a_lock_that_can_not_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with (
        pytest.raises(BaselineError, match="can't be locked for writing: .*nothing was changed"),
        locked(tmp_path / "a"),
    ):
        pytest.fail("the lock was held")


@pytest.fixture
def _own_lock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process that accepts baselines at the same time has this lock."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.mark.usefixtures("_own_lock")
def test_a_lock_held_elsewhere_for_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_TIMEOUT_S", 0.0)
    path = tmp_path / "a.json"
    with (
        locked(path),
        pytest.raises(BaselineError, match=r"nothing was changed.*\n.*wait for the other process"),
        locked(path),
    ):
        pytest.fail("the lock was held twice")


@pytest.mark.usefixtures("_own_lock")
def test_a_lock_taken_over_at_its_release_still_locks_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    rival = FileLock(find_lock())
    release = FileLock.release

    def release_to_rival(self: FileLock, *, force: bool = False) -> None:
        release(self, force=force)
        rival.acquire(timeout=0)

    with monkeypatch.context() as patch, locked(path):
        patch.setattr(FileLock, "release", release_to_rival)
    with pytest.raises(Timeout):
        FileLock(find_lock()).acquire(timeout=0)
    rival.release()
