"""Takes the watcher's frames out of tracebacks, so that a program that fails shows its own lines."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from harness.watch.taps import is_redirected

OWN = str(Path(__file__).parent) + os.sep


def strip_own_frames(error: BaseException) -> None:
    """Takes them out of an exception and of those that led to it; a failure of the watcher itself stays whole."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        found.__traceback__ = _strip(found.__traceback__)
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


def _strip(trace: TracebackType | None) -> TracebackType | None:
    entries: list[TracebackType] = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    if not entries or _is_own(entries[-1]):
        return entries[0] if entries else None
    stripped: TracebackType | None = None
    for entry in reversed(entries):
        if not _is_own(entry):
            stripped = TracebackType(stripped, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return stripped


def _is_own(entry: TracebackType) -> bool:
    code = entry.tb_frame.f_code
    return code.co_filename.startswith(OWN) or is_redirected(code)
