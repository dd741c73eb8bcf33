"""Tracks a finished session, and never fails it: what goes wrong is a sentence for the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.tracking.launches import find_ci, read_session
from harness.tracking.store import History, find_place, hide_password

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REPORT_FILES = ("session.json", "summary.md", "traces")


def track_session(
    document: Mapping[str, Any], report: Path, *, root: Path, uri: str, source: str, reason: str
) -> tuple[bool, str]:
    """Adds a session to the history: whether that went well, and one line that says what happened."""
    try:
        place = find_place(root, uri, source=source)
        launches = read_session(document, reason=reason, ci=find_ci())
        num_added = History(place).add(launches, [report / name for name in REPORT_FILES])
    except HarnessError as error:
        return False, f"nothing was tracked: {error}"
    except Exception as error:  # noqa: BLE001  whatever a store or a plugin of it does, the session's verdict stands
        return False, f"nothing was tracked: {type(error).__name__}: {hide_password(str(error))}"
    where = place.file.name if place.file else hide_password(place.uri)
    if not launches:
        return True, "tracked: nothing, as no training passed its assertions"
    noun = "launch" if num_added == 1 else "launches"
    return True, f"tracked: {num_added} {noun} in {where}, experiment {place.experiment}"
