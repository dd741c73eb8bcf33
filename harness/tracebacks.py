"""Ends the traceback of a refusal at the user's own line: how the harness came to refuse is no help there."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from harness.errors import HarnessError

OWN = Path(__file__).parent
PYTHON = Path(sysconfig.get_path("stdlib"))
INSTALLED = "site-packages"


def cut_own_frames(error: HarnessError, root: Path) -> None:
    """Takes what lies behind the last line of the user's code out of an error's traceback.

    Its cause is left out as well where only the harness and Python had a part in it, as the message says what it was.
    An error that no code of the user's led to stays whole.

    Args:
        error: What the harness raised; changed in place.
        root: The folder that the user's code lies in.
    """
    users = [entry for entry in _list_entries(error.__traceback__) if _is_users(_find_file(entry), root)]
    if not users:
        return
    users[-1].tb_next = None
    cause = error.__cause__
    if cause is not None and all(
        _is_inner(_find_file(entry)) for entry in _list_entries(cause.__traceback__)
    ):
        error.__cause__ = None
        error.__suppress_context__ = True


def _list_entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _find_file(entry: TracebackType) -> Path:
    return Path(entry.tb_frame.f_code.co_filename)


def _is_users(file: Path, root: Path) -> bool:
    return file.is_relative_to(root) and INSTALLED not in file.parts and not _is_inner(file)


def _is_inner(file: Path) -> bool:
    """Whether it is the harness's own, or belongs to Python itself."""
    return file.is_relative_to(OWN) or (file.is_relative_to(PYTHON) and INSTALLED not in file.parts)
