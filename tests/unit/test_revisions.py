from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.baselines.revisions import (
    digest_uncommitted,
    find_top,
    list_changed_files,
    read_commit,
)
from harness.baselines.shelves import FolderShelf, RevisionShelf, open_shelf
from harness.commands.trend import list_commits
from harness.errors import BaselineError, UsageError
from harness.git import run_git

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Runs git in a repository with a committed `sub/a.py` and baselines."""

    def run(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    run("init", "--quiet")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.py").write_text("1\n")
    (tmp_path / "baselines/trajectories/cpu").mkdir(parents=True)
    (tmp_path / "baselines/trajectories/cpu/x.json").write_text("{}\n")
    (tmp_path / ".gitignore").write_text("ignored\n")
    run("add", ".")
    run("commit", "--quiet", "--message", "first")
    return run


def test_commit_and_changes_are_read_from_any_folder_of_the_work_tree(git: Git, tmp_path: Path) -> None:
    first = git("rev-parse", "HEAD")
    assert read_commit(tmp_path / "sub") == first
    assert digest_uncommitted(tmp_path / "sub") is None
    assert list_changed_files(tmp_path / "sub", first) == []
    (tmp_path / "sub/a.py").write_text("2\n")
    (tmp_path / "sub/größer.py").write_text("new\n")
    (tmp_path / "ignored").write_text("new\n")
    assert list_changed_files(tmp_path / "sub", first) == ["a.py", "größer.py"]
    assert list_changed_files(tmp_path / "baselines", first) == ["../sub/a.py", "../sub/größer.py"]
    git("add", "--all")
    git("commit", "--quiet", "--message", "second")
    assert list_changed_files(tmp_path, first) == ["sub/a.py", "sub/größer.py"]
    assert list_changed_files(tmp_path, "HEAD") == []


def test_a_path_that_is_no_text_is_the_name_that_python_has_for_it(git: Git, tmp_path: Path) -> None:
    git("status")
    path = tmp_path / os.fsdecode(b"caf\xe9.py")
    path.write_text("new\n")
    (found,) = list_changed_files(tmp_path, "HEAD") or []
    assert (tmp_path / found).is_file()
    folder = tmp_path.parent / os.fsdecode(b"caf\xe9")
    tmp_path.rename(folder)
    assert find_top(folder / "sub") == folder.resolve()
    folder.rename(tmp_path)


def test_a_commit_is_no_option_of_git(git: Git, tmp_path: Path) -> None:
    git("status")
    written = tmp_path / "written"
    assert list_changed_files(tmp_path, f"--output={written}") is None
    assert list_commits(tmp_path, f"--output={written}", "HEAD") is None
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("written")] == []
    with pytest.raises(UsageError, match="can't be read from git"):
        RevisionShelf("--help", tmp_path)


def test_baselines_of_a_commit_are_found_from_any_folder(git: Git, tmp_path: Path) -> None:
    git("mv", "baselines", "sub/baselines")
    git("commit", "--quiet", "--message", "moved")
    for text in ("HEAD:sub/baselines", "HEAD:./baselines"):
        shelf = open_shelf(text, root=tmp_path / "sub")
        assert shelf.list_files("trajectories/*/*.json") == ["trajectories/cpu/x.json"]
        assert shelf.read("trajectories/cpu/x.json") == "{}\n"


def test_the_digest_tells_differences_apart_and_leaves_the_baselines_out(git: Git, tmp_path: Path) -> None:
    git("status")
    baselines = tmp_path / "baselines"
    (baselines / "trajectories/cpu/x.json").write_text("changed\n")
    assert digest_uncommitted(tmp_path, leave_out=baselines) is None
    digests = set()
    for content in ("2\n", "3\n"):
        (tmp_path / "sub/a.py").write_text(content)
        digests.add(digest_uncommitted(tmp_path, leave_out=baselines))
        # Baselines elsewhere, or that are the whole work tree, are no reason to see nothing.
        assert digest_uncommitted(tmp_path, leave_out=tmp_path.parent / "elsewhere") not in (None, *digests)
        assert digest_uncommitted(tmp_path, leave_out=tmp_path) not in (None, *digests)
    assert len(digests) == 2


def test_a_users_own_configuration_of_diff_changes_nothing(git: Git, tmp_path: Path) -> None:
    (tmp_path / "sub/a.py").write_text("2\n")
    before = (digest_uncommitted(tmp_path), list_changed_files(tmp_path / "sub", "HEAD"))
    for key, value in (("diff.noprefix", "false"), ("color.ui", "always"), ("diff.relative", "true")):
        git("config", key, value)
    git("config", "diff.external", "false")
    assert (digest_uncommitted(tmp_path), list_changed_files(tmp_path / "sub", "HEAD")) == before


def test_outside_git_nothing_is_known_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert read_commit(tmp_path) is None
    assert digest_uncommitted(tmp_path, leave_out=tmp_path / "baselines") is None
    assert list_changed_files(tmp_path, "HEAD") is None
    assert find_top(tmp_path) is None
    assert read_commit(tmp_path / "gone") is None


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert read_commit(tmp_path) is None
    assert digest_uncommitted(tmp_path) is None


def test_a_commit_that_this_clone_does_not_have_is_not_known(git: Git, tmp_path: Path) -> None:
    git("status")
    assert list_changed_files(tmp_path, "1" * 40) is None


def test_without_git_nothing_is_known(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("status")
    monkeypatch.setenv("PATH", "")
    assert read_commit(tmp_path) is None


def test_a_git_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.git.TIMEOUT_S", 0.01)
    assert run_git("-c", "alias.wait=!exec sleep 5", "wait", folder=tmp_path) is None


def test_baselines_are_read_as_a_commit_has_them(git: Git, tmp_path: Path) -> None:
    path = tmp_path / "baselines/trajectories/cpu/x.json"
    path.write_text("later\n")
    (path.parent / "y.json").write_text("later\n")
    shelf = open_shelf("HEAD:baselines", root=tmp_path)
    assert shelf.list_files("trajectories/*/*.json") == ["trajectories/cpu/x.json"]
    assert shelf.list_files("trajectories/*/y.json") == []
    assert shelf.read("trajectories/cpu/x.json") == "{}\n"
    assert shelf.read("trajectories/cpu/y.json") is None
    assert shelf.locate("trajectories/cpu/x.json") == "HEAD:baselines/trajectories/cpu/x.json"
    with pytest.raises(UsageError, match="can't be written into a commit"):
        shelf.path("trajectories/cpu/x.json")
    git("rm", "-r", "--quiet", "--force", "baselines")
    git("commit", "--quiet", "--message", "gone")
    assert open_shelf("HEAD~1:baselines", root=tmp_path).read("trajectories/cpu/x.json") == "{}\n"


@pytest.mark.parametrize("text", ["HEAD:nowhere", "no-such-commit:baselines", "HEAD:"])
def test_a_commit_or_folder_that_is_not_there_or_holds_nothing_is_told(
    git: Git, tmp_path: Path, text: str
) -> None:
    git("rm", "-r", "--quiet", ".")
    git("commit", "--quiet", "--message", "gone")
    with pytest.raises(UsageError, match=f"baselines {text} can't be read from git: .*\nNext: commit"):
        open_shelf(text, root=tmp_path)


def test_a_file_in_a_commit_that_is_no_text_is_refused(git: Git, tmp_path: Path) -> None:
    (tmp_path / "baselines/trajectories/cpu/x.json").write_bytes(b"\xff\xfe")
    git("commit", "--quiet", "--all", "--message", "damaged")
    with pytest.raises(BaselineError, match="HEAD:baselines/trajectories/cpu/x.json can't be read"):
        RevisionShelf("HEAD:baselines", tmp_path).read("trajectories/cpu/x.json")


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert isinstance(open_shelf("a:b", root=tmp_path), FolderShelf)
    assert open_shelf("a:b", root=tmp_path).locate("x.json") == "a:b/x.json"


def test_what_a_writer_has_half_written_is_no_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories/cpu"
    folder.mkdir(parents=True)
    for name in ("a.json", ".a.json.x.tmp", ".b.json"):
        (folder / name).touch()
    assert FolderShelf(tmp_path).list_files("trajectories/*/*.json") == ["trajectories/cpu/a.json"]


def test_in_a_hook_of_another_repository_the_folder_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "hook"):
        subprocess.run(["git", "init", "--quiet", str(tmp_path / name)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hook" / ".git"))

    found = run_git("rev-parse", "--absolute-git-dir", folder=tmp_path / "here")

    assert found is not None
    assert found.decode().strip() == str((tmp_path / "here" / ".git").resolve())
