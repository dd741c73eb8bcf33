"""Counts where a program waits for its GPU: the host synchronisations of one step.

PyTorch warns of each where its debug mode is on. The watcher itself waits for the device on deep steps, so what
is counted is the step after one, on which it does not.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, cast

import torch

MESSAGE = "called a synchronizing CUDA operation"
NOTICE = "Synchronization debug mode is a prototype feature"
"""What PyTorch says when the mode is first switched on, which is not the program's doing."""
OFF, WARN = 0, 1
OWN = str(Path(__file__).parents[1])
TORCH = str(Path(torch.__file__).parent)


class HostSyncs:
    """Counts from `open` to `close`; everything it changes is put back, and other warnings go where they went."""

    def __init__(self) -> None:
        self.num = 0
        self.first: str | None = None
        self._thread = threading.get_ident()
        self._before: Any = None
        self._filter: Any = None
        self._is_open = False

    def open(self) -> bool:
        """Starts to count; False where the program has the debug mode on itself."""
        if torch.cuda.get_sync_debug_mode() != OFF:
            return False
        self._before = warnings.showwarning
        # Not through `warnings.filterwarnings`, which makes warnings that were shown once be shown again.
        # No error either, where the program turns warnings into those.
        self._filter = ("always", re.compile(f"{MESSAGE}|{NOTICE}"), Warning, None, 0)
        cast("list[Any]", warnings.filters).insert(0, self._filter)
        warnings.showwarning = self._show
        self._is_open = True
        try:
            torch.cuda.set_sync_debug_mode(WARN)
        except BaseException:
            self.close()
            raise
        return True

    def close(self) -> None:
        """Stops, and puts back what is still as `open` left it."""
        if not self._is_open:
            return
        self._is_open = False
        if torch.cuda.get_sync_debug_mode() == WARN:
            torch.cuda.set_sync_debug_mode(OFF)
        if warnings.showwarning == self._show:
            warnings.showwarning = self._before
        with contextlib.suppress(ValueError):
            cast("list[Any]", warnings.filters).remove(self._filter)

    def _show(self, message: Any, *args: Any, **kwargs: Any) -> None:
        if self._is_open and NOTICE in str(message):
            return
        # Somebody who kept a copy of ours may put it back when it is no longer wanted.
        if not self._is_open or MESSAGE not in str(message):
            self._before(message, *args, **kwargs)
            return
        place = _find_place()
        if place is not None and threading.get_ident() == self._thread:
            self.num += 1
            self.first = self.first or place


def _find_place() -> str | None:
    """File and line of the program's call that waited; None where it was the watcher's own.

    The watcher's own is told by its frame being the innermost; outside torch it otherwise only hands calls on.
    """
    frame: Any = sys._getframe(2)  # noqa: SLF001  the documented way to the stack
    while frame is not None and frame.f_code.co_filename == warnings.__file__:
        frame = frame.f_back
    if frame is not None and frame.f_code.co_filename.startswith(OWN):
        return None
    while frame is not None and frame.f_code.co_filename.startswith((OWN, TORCH)):
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
