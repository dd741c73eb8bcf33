"""Tells the files of the user's project from what is installed, from Python's own, and from the harness's."""

from __future__ import annotations

import functools
import os
import sysconfig
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[1]
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def name_own_file(path: str, folder: Path) -> str | None:
    """A file's path from a folder; None for what is installed, and for what lies outside of the folder.

    Args:
        path: Where it is; relative to the folder too.
        folder: Where the program began: by now it may work in another one.
    """
    # Resolving takes a while, and thousands of files are imported: most are told by their text.
    if _is_of_library(path):
        return None
    whole = (folder / path).resolve()
    if _is_of_library(str(whole)) or whole.is_relative_to(HARNESS) or not whole.is_file():
        return None
    return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else None


def is_of_harness_or_python(path: str) -> bool:
    """Whether a file is the harness's own or of the standard library, and not of a package that is installed."""
    return Path(path).resolve().is_relative_to(HARNESS) or (
        path.startswith(_list_libraries()) and not _is_installed(path)
    )


def _is_of_library(path: str) -> bool:
    return _is_installed(path) or path.startswith(_list_libraries())


def _is_installed(path: str) -> bool:
    return any(mark in path for mark in INSTALLED)


@functools.cache
def _list_libraries() -> tuple[str, ...]:
    """Folders of the standard library, as they are named and as they are."""
    folder = Path(sysconfig.get_path("stdlib"))
    return f"{folder}{os.sep}", f"{folder.resolve()}{os.sep}"
