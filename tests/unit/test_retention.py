from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from harness.profiling.retention import keep_newest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["b.json", "a.json", "c.json", "other.txt"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    return tmp_path


def test_the_newest_files_stay_and_others_are_left_alone(folder: Path) -> None:
    assert keep_newest(folder, "*.json", 1) == [folder / "a.json", folder / "b.json"]
    assert sorted(path.name for path in folder.iterdir()) == ["c.json", "other.txt"]


def test_nothing_is_removed_while_there_are_few(folder: Path) -> None:
    assert keep_newest(folder, "*.json", 3) == []
    assert len(list(folder.iterdir())) == 4


def test_a_missing_folder_has_nothing_to_remove(tmp_path: Path) -> None:
    assert keep_newest(tmp_path / "missing", "*", 1) == []
