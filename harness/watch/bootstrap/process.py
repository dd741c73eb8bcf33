"""Watches this process from the moment torch was imported to its end, and writes its record."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from harness.record.observation import Outcome
from harness.watch.bootstrap import VARIABLE
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions
from harness.watch.own_frames import strip_own_frames
from harness.watch.record_file import RecordFile
from harness.watch.turns import TurnTaker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LEAVING_TIME = timedelta(seconds=5)
# Seconds in which the threads of a group drop their last exchange; torch aborts a process that ends before they have.
SETTLING_TIME_S = 0.2
LAUNCHERS = ("torchrun", "accelerate", "accelerate-launch")
LAUNCHER_MODULES = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")


class HardExit(Exception):  # noqa: N818  it is no error of the harness, only its name for one in a record
    """The program ended itself by `os._exit` with a code other than 0."""


class WatchedProcess:
    """The observer of a process, and the ways in which the process can end."""

    def __init__(self, folder: Path, options: ObserverOptions, turns: Path | None = None) -> None:
        self._process = os.getpid()
        self._file = RecordFile(folder)
        self._observer = Observer(options, sink=self._file, folder=folder)
        self._turns = None if turns is None else TurnTaker(turns, folder)
        if self._turns is not None:
            self._observer.take_turns(self._turns)
        self._error: BaseException | None = None
        self._excepthook = sys.excepthook
        self._exit: Callable[[int], NoReturn] = os._exit
        self._is_over = False

    def start(self) -> None:
        """Starts to watch."""
        self._observer.__enter__()
        sys.excepthook = self._note_exception
        os._exit = self._leave  # type: ignore[assignment]
        atexit.register(self.finish)

    def finish(self) -> None:
        """Ends watching and completes the record; in a forked child it is not ours to complete."""
        if self._is_over or os.getpid() != self._process:
            return
        self._is_over = True
        if sys.excepthook == self._note_exception:
            sys.excepthook = self._excepthook
        if os._exit == self._leave:
            os._exit = self._exit  # type: ignore[assignment]
        self._observer.__exit__(None if self._error is None else type(self._error), self._error, None)
        self._file.close()
        if self._turns is not None:
            self._turns.close()
        if self._observer.observation.outcome is Outcome.STOPPED:
            leave_process_group()

    def _note_exception(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> Any:
        self._error = error
        # Here only, where the program is over: what it catches itself, it gets as it is.
        with contextlib.suppress(Exception):
            strip_own_frames(error)
            trace = error.__traceback__
        return self._excepthook(kind, error, trace)

    def _leave(self, code: int) -> NoReturn:
        if code and self._error is None:
            self._error = HardExit(f"os._exit({code})")
        try:
            self.finish()
        finally:
            self._exit(code)


def leave_process_group() -> None:
    """Leaves the process group as the program would have done, had it not been ended from outside.

    The threads of a group that is still open abort the process at its exit. The ranks leave together, where
    they all get here in time: a rank that closes its connections can break the last exchange of another.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    with contextlib.suppress(Exception):
        work = distributed.barrier(async_op=True)
        if work is not None:
            work.wait(LEAVING_TIME)
            del work
            time.sleep(SETTLING_TIME_S)
    with contextlib.suppress(Exception):
        distributed.destroy_process_group()


def start() -> None:
    """Watches this process as its environment says; launchers, which only start others, are let alone."""
    if is_launcher():
        return
    settings = json.loads(os.environ[VARIABLE])
    turns = Path(settings["turns"]) if "turns" in settings else None
    WatchedProcess(Path(settings["folder"]), ObserverOptions.from_json(settings["options"]), turns).start()


def is_launcher() -> bool:
    """Whether this process is torchrun or its like."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if getattr(spec, "name", None) in LAUNCHER_MODULES:
        return True
    # While `python -m` is still finding its module, only the arguments tell.
    words = sys.orig_argv
    named = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return named in LAUNCHER_MODULES or Path(sys.argv[0] if sys.argv else "").name in LAUNCHERS
