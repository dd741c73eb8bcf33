"""Runs git, the two ways in which it is asked: for what it may know, and for what must be done.

In a hook of git, variables point to the repository of that hook: they are left out, so that the folder decides.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 30
END_OF_OPTIONS = "--end-of-options"
"""Goes before names of commits from files and command lines: one that begins with a dash is no option of git."""
HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")


def run_git(*words: str, folder: Path) -> bytes | None:
    """What git printed; None where it failed, is not installed, or took too long."""
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=_build_environment(),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout


def complete_git(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What came of a command of git that nothing cuts short, in the repository that a folder lies in.

    Raises:
        UsageError: git is not installed.
    """
    # A session of its own: Ctrl-C in the terminal must not end it half-way.
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=False,
            env=_build_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise UsageError(f"git can't be started: {error}.\nNext: install git.") from error


def _build_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
