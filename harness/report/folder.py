"""The folder a session's report goes into."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.baselines.files import name_file
from harness.profiling.retention import keep_newest

if TYPE_CHECKING:
    from collections.abc import Iterable

PICTURE = re.compile(r"trajectories/[^/\\]+\.svg")


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


def publish_pictures(folder: Path, tests: Iterable[dict[str, Any]]) -> str:
    """Draws every comparison with a stored trajectory into the report, and notes the picture in the session's data.

    Returns:
        Why there is none, or not all; empty where all could be drawn, or there was nothing to draw.
    """
    described = [each for test in tests for each in test["trajectories"]]
    if not described:
        return ""
    from harness.report.picture import INSTALL, draw_trajectory, has_matplotlib  # noqa: PLC0415  late

    if not has_matplotlib():
        return f"pictures of trajectories need matplotlib: {INSTALL}"
    pictures = folder / "trajectories"
    try:
        _remove_pictures(folder)
        pictures.mkdir(parents=True, exist_ok=True)
        for each in described:
            path = pictures / Path(name_file(each["test"])).with_suffix(".svg")
            draw_trajectory(each, path)
            each["picture"] = path.relative_to(folder).as_posix()
    except OSError as error:
        return f"a picture could not be drawn: {error}"
    return ""


def _remove_pictures(folder: Path) -> None:
    """Removes the pictures of the session before, as its report, which is about to be replaced, names them."""
    try:
        document = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        named = [each.get("picture") for test in document["tests"] for each in test["trajectories"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for name in named:
        if isinstance(name, str) and PICTURE.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
