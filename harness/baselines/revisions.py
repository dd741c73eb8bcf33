"""Asks git which commit this is, what changed since another one, and for files as another commit has them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from harness.git import END_OF_OPTIONS, run_git

DIGEST_LENGTH = 12
PLAIN_DIFF = ("--no-ext-diff", "--no-textconv", "--no-renames", "--no-color")
"""Against what a user's own configuration makes of a diff."""


def read_commit(folder: Path) -> str | None:
    """The commit that a folder's work tree stands at; None outside git, or before the first commit."""
    found = run_git("rev-parse", "--verify", "HEAD", folder=folder)
    return found.decode().strip() if found else None


def digest_uncommitted(folder: Path, *, leave_out: Path | None = None) -> str | None:
    """A digest of how the tracked files differ from the commit; None where they do not, or outside git.

    Args:
        folder: A folder of the work tree.
        leave_out: A folder whose files do not count: the baselines, which change while they are accepted.
    """
    top = find_top(folder)
    if top is None:
        return None
    words = ["diff", *PLAIN_DIFF, "--binary", "HEAD", "--", "."]
    left_out = None if leave_out is None else leave_out.resolve()
    if left_out is not None and left_out.is_relative_to(top) and left_out != top:
        words.append(f":(exclude,literal){left_out.relative_to(top).as_posix()}")
    found = run_git(*words, folder=top)
    return hashlib.sha256(found).hexdigest()[:DIGEST_LENGTH] if found else None


def list_changed_files(folder: Path, commit: str) -> list[str] | None:
    """Files of the work tree that are not as in a commit, by their paths from a folder, sorted.

    Files of the whole repository are listed, and those that git does not track where it does not ignore them.

    Returns:
        None outside git, or where this clone does not have the commit.
    """
    top = find_top(folder)
    if top is None:
        return None
    words = ("diff", *PLAIN_DIFF, "--no-relative", "--name-only", "-z", END_OF_OPTIONS, commit, "--")
    changed = run_git(*words, folder=top)
    if changed is None:
        return None
    others = run_git("ls-files", "--others", "--exclude-standard", "-z", folder=top) or b""
    below = folder.resolve()
    return sorted(
        {Path(os.path.relpath(top / name, below)).as_posix() for name in split_names(changed + others)}
    )


def split_names(listed: bytes) -> list[str]:
    """The paths that git lists with `-z`, as Python names files: they need not be text in UTF-8."""
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def find_top(folder: Path) -> Path | None:
    """The top of the work tree that a folder lies in; None outside git."""
    found = run_git("rev-parse", "--show-toplevel", folder=folder)
    return Path(os.fsdecode(found).removesuffix("\n")).resolve() if found else None
