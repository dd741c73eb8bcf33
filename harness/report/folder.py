"""The folder a session's report goes into."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from harness.profiling.retention import keep_newest

if TYPE_CHECKING:
    from pathlib import Path


def make_report_folder(folder: Path) -> None:
    """Makes the folder where there is none, with a `.gitignore` that keeps it out of commits.

    A folder that was there already is the user's own, perhaps the project's root: it is not ignored.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def publish_trace(trace: Path, folder: Path, *, name: str, keep: int) -> Path:
    """Copies a trace into the report, where CI uploads it from, and keeps the newest `keep` of this name.

    Returns:
        The copy, `traces/<name>-<file>` under the report folder.
    """
    make_report_folder(folder)
    traces = folder / "traces"
    traces.mkdir(exist_ok=True)
    copy = traces / f"{name}-{trace.name}"
    shutil.copyfile(trace, copy)
    keep_newest(traces, f"{name}-harness-*", keep)
    return copy
