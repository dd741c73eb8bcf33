"""Where baselines are read from: a folder, or a folder as a commit has it."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Protocol

from harness.baselines.files import RESTORE
from harness.baselines.revisions import split_names
from harness.errors import BaselineError, UsageError
from harness.git import END_OF_OPTIONS, run_git

if TYPE_CHECKING:
    from pathlib import Path


class Shelf(Protocol):
    """A folder of baselines; files are named by their path from it."""

    def list_files(self, pattern: str) -> list[str]:
        """Names of the files that match a pattern of two or three parts, such as `trajectories/*/a.json`, sorted."""

    def read(self, name: str) -> str | None:
        """The text of a file; None when there is none."""

    def locate(self, name: str) -> str:
        """What messages call a file."""

    def path(self, name: str) -> Path:
        """Where a file can be written."""


class FolderShelf:
    """A folder of this machine.

    Args:
        folder: The baselines.
        root: Folder that paths in messages are relative to; None shows them as they are.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self._folder = folder
        self._root = root

    def list_files(self, pattern: str) -> list[str]:
        """Names of the files that match a pattern, sorted; those of writers at work are none."""
        found = (path.relative_to(self._folder).as_posix() for path in self._folder.glob(pattern))
        return sorted(name for name in found if not name.rpartition("/")[2].startswith("."))

    def read(self, name: str) -> str | None:
        """The text of a file; None when there is none.

        Raises:
            BaselineError: It is there and can't be read.
        """
        try:
            return self.path(name).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise BaselineError(f"baseline {self.locate(name)} can't be read: {error}.\n{RESTORE}") from error

    def locate(self, name: str) -> str:
        """The path, relative to the root where it lies below it."""
        path = self.path(name)
        if self._root is not None and path.is_relative_to(self._root):
            path = path.relative_to(self._root)
        return str(path)

    def path(self, name: str) -> Path:
        """The path of a file."""
        return self._folder / name


class RevisionShelf:
    """A folder as a commit has it, whatever the work tree holds: `GOOD:baselines`, from the top of the repository.

    `GOOD:./baselines` is looked for in the folder of this machine that `repository` is.

    Raises:
        UsageError: The commit or the folder in it is not there.
    """

    def __init__(self, text: str, repository: Path) -> None:
        self._revision, _, folder = text.partition(":")
        self._folder = folder.rstrip("/")
        self._repository = repository
        # The full tree: otherwise git looks in the folder for the path that leads to the repository's folder.
        words = ("ls-tree", "-r", "--full-tree", "--name-only", "-z", END_OF_OPTIONS, text.rstrip("/"))
        listed = run_git(*words, folder=repository)
        if not listed:
            raise UsageError(
                f"baselines {text} can't be read from git: there is no such folder in that commit, or nothing in "
                "it, or no such commit here.\n"
                "Next: commit the baselines, and name a commit that has them, such as HEAD:baselines."
            )
        self._names = sorted(split_names(listed))

    def list_files(self, pattern: str) -> list[str]:
        """Names of the files that match a pattern, sorted."""
        depth = pattern.count("/")
        return [name for name in self._names if name.count("/") == depth and fnmatch.fnmatch(name, pattern)]

    def read(self, name: str) -> str | None:
        """The text of a file; None when there is none.

        Raises:
            BaselineError: It is no text.
        """
        if name not in self._names:
            return None
        content = run_git("cat-file", "blob", END_OF_OPTIONS, self.locate(name), folder=self._repository)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise BaselineError(f"baseline {self.locate(name)} can't be read: {error}.\n{RESTORE}") from error

    def locate(self, name: str) -> str:
        """The file as git knows it."""
        return f"{self._revision}:{self._folder}/{name}" if self._folder else f"{self._revision}:{name}"

    def path(self, name: str) -> Path:
        """Nowhere: commits are not written into.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"baselines can't be written into a commit: {self.locate(name)}.\nNext: --baselines DIR, a folder."
        )


def open_shelf(text: str, *, root: Path) -> Shelf:
    """The baselines that an option names: a folder, relative to `root`, or `REVISION:FOLDER` of git.

    Raises:
        UsageError: A revision or its folder is not there.
    """
    folder = root / text
    if ":" in text and not folder.is_dir():
        return RevisionShelf(text, root)
    return FolderShelf(folder, root)
