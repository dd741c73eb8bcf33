"""Checks revisions of a git repository out beside one another, and always takes them away again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import signal
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.git import END_OF_OPTIONS, complete_git

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "harness-ab-"
SHORT = 10
"""Characters of a commit in messages."""


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository that a folder belongs to.

    Attributes:
        root: Its top folder.
        inner: The folder it was found from, relative to `root`.
    """

    root: Path
    inner: Path

    def find_commit(self, revision: str) -> str:
        """The full name of a commit.

        Raises:
            UsageError: There is no such revision.
        """
        done = complete_git(
            *("rev-parse", "--verify", "--quiet", END_OF_OPTIONS, f"{revision}^{{commit}}"), folder=self.root
        )
        if done.returncode:
            raise UsageError(
                f"{revision!r} is no revision of {self.root}.\n"
                "Next: git fetch (a shallow clone of CI needs the whole history: fetch-depth: 0), or name another."
            )
        return done.stdout.strip()

    def find_dirty_files(self) -> list[str]:
        """Files of the work tree that differ from its commit, new ones that git does not ignore among them."""
        listed = self._ask("status", "--porcelain", "--untracked-files=all", "-z", "--no-renames")
        return [entry[3:] for entry in listed.split("\0") if entry]

    def find_changed_files(self, base: str, head: str | None) -> set[str]:
        """Files that differ between two commits; None is the work tree as it stands."""
        ends = [base] if head is None else [base, head]
        changed = set(self._ask("diff", "--name-only", "--no-renames", "-z", *ends).split("\0")) - {""}
        if head is None:
            changed |= set(self._ask("ls-files", "--others", "--exclude-standard", "-z").split("\0")) - {""}
        return changed

    def count_commits(self, base: str, head: str) -> int:
        """How many commits of `base` are not in `head`."""
        return int(self._ask("rev-list", "--count", f"{head}..{base}"))

    def _ask(self, *words: str) -> str:
        done = complete_git(*words, folder=self.root)
        if done.returncode:
            raise UsageError(
                f"git {words[0]} failed in {self.root}: {done.stderr.strip()}.\nNext: mend that."
            )
        return done.stdout


def find_repository(folder: Path) -> Repository:
    """The repository a folder lies in.

    Raises:
        UsageError: It lies in none, or there is no git.
    """
    done = complete_git("rev-parse", "--show-toplevel", folder=folder)
    if done.returncode:
        raise UsageError(
            f"{folder} lies in no git work tree: {done.stderr.strip()}.\n"
            "Next: start it in a checkout, in the folder in which the program is started."
        )
    root = Path(done.stdout.removesuffix("\n"))
    return Repository(root, folder.resolve().relative_to(root.resolve()))


@contextlib.contextmanager
def checked_out(repository: Repository, commits: dict[str, str]) -> Iterator[dict[str, Path]]:
    """Work trees of commits, by the names they are given, in a temporary folder that is gone after the block.

    What an earlier run that was killed has left behind is taken away too.

    Args:
        repository: Where the commits are.
        commits: Full names of commits, by the names that their folders get.

    Raises:
        UsageError: A commit can't be checked out.
    """
    _remove_orphans(repository.root)
    # Our number in the name tells a later run whether we are still there.
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name_machine()}-{os.getpid()}-"))
    try:
        places = {}
        for name, commit in commits.items():
            places[name] = folder / name
            # Hooks are for people who check out, and may take long.
            words = ("-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--detach", str(places[name]))
            done = complete_git(*words, commit, folder=repository.root)
            if done.returncode:
                raise UsageError(
                    f"commit {commit[:SHORT]} can't be checked out: {done.stderr.strip()}.\n"
                    "Next: look whether the disk is full and git worktree list works."
                )
        yield places
    finally:
        with _uninterrupted():
            _remove(repository.root, folder)


def name_machine() -> str:
    """A short name for where process numbers are those of one list: a machine, or a container on it."""
    try:
        processes = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        processes = 0
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


def _remove(root: Path, folder: Path) -> None:
    """Takes away a folder of ours with its entries; no other entry, as a work tree on a disk that is away has one."""
    for place in _list_work_trees(root):
        if place.parent.name == folder.name:
            complete_git("worktree", "remove", "--force", "--force", str(place), folder=root)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans(root: Path) -> None:
    for folder in {place.parent for place in _list_work_trees(root)}:
        machine, _, rest = folder.name.removeprefix(PREFIX).partition("-")
        owner = rest.partition("-")[0]
        is_ours = folder.name.startswith(PREFIX) and machine == name_machine()
        if is_ours and owner.isdigit() and not _is_running(int(owner)):
            _remove(root, folder)


def _list_work_trees(root: Path) -> list[Path]:
    listed = complete_git("worktree", "list", "--porcelain", folder=root).stdout.splitlines()
    return [Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree ")]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets an impatient second Ctrl-C wait until all is taken away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
