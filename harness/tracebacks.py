"""Ends the traceback of a refusal at the user's own line: how the harness came to refuse is no help there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.record.own_files import is_of_harness_or_python, name_own_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from harness.errors import HarnessError


def cut_own_frames(error: HarnessError, root: Path) -> None:
    """Takes what lies behind the last line of the user's code out of an error's traceback.

    Its cause is left out as well where only the harness and Python had a part in it, as the message says what it was.
    An error that no code of the user's led to stays whole.

    Args:
        error: What the harness raised; changed in place.
        root: The folder that the user's code lies in.
    """
    root = root.resolve()
    users = [
        entry
        for entry in _list_entries(error.__traceback__)
        if name_own_file(_find_file(entry), root) is not None
    ]
    if not users:
        return
    users[-1].tb_next = None
    cause = error.__cause__
    if cause is not None and all(
        is_of_harness_or_python(_find_file(entry)) for entry in _list_entries(cause.__traceback__)
    ):
        error.__cause__ = None
        error.__suppress_context__ = True


def _list_entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _find_file(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename
