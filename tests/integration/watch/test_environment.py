"""The work tree that a run is of."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.watch.environment import capture_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A commit with a program and stored baselines; this process stands in one of its folders."""
    for name in ("src/train.py", "baselines/budgets/cpu/a.json", "baselines/trajectories/cpu/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path / "src")
    capture_environment.cache_clear()
    yield tmp_path
    capture_environment.cache_clear()


@pytest.mark.parametrize(
    ("changed", "is_dirty"),
    [
        ("", False),
        ("src/train.py", True),
        ("baselines/budgets/cpu/a.json", False),
        ("baselines/trajectories/cpu/a.json", False),
    ],
)
def test_baselines_that_were_accepted_are_no_change_of_the_code(
    tree: Path, changed: str, *, is_dirty: bool
) -> None:
    if changed:
        (tree / changed).write_text("2\n", encoding="utf-8")
    environment = capture_environment()
    assert environment.is_dirty is is_dirty
    assert environment.commit is not None


def test_changes_beside_this_folder_count(tree: Path) -> None:
    (tree / "settings.yaml").write_text("lr: 1\n", encoding="utf-8")
    subprocess.run(["git", "add", "settings.yaml"], cwd=tree, check=True)
    assert capture_environment().is_dirty is True
