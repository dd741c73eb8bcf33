"""Ends a child process and all that it started, in its own process group or out of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator

GRACE_S = 5.0
PROCESSES = Path("/proc")


class Terminated(KeyboardInterrupt):
    """A SIGTERM reached this process while a child was running; it unwinds, and ends pytest, as Ctrl-C does."""


class Process(NamedTuple):
    """A process as its system knows it; the time of its start tells it from a later one of the same number."""

    pid: int
    parent: int
    started: int


class ProcessTree:
    """A child that leads a process group, and its descendants.

    Descendants outside the group are found through their parents where there is a /proc, and only while those
    live: one that left its group and whose parent has ended is nobody's. Elsewhere the group is all.

    Attributes:
        root: The child; None where it can't be looked up.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.root = read_process(child.pid)
        self._others: set[Process] = set()
        # The wait is a thread's, so that the end of the child ends ours at once.
        self._reaper = threading.Thread(target=child.wait, daemon=True, name="harness-reaper")
        self._reaper.start()

    @property
    def exit_code(self) -> int:
        """The child's exit code; negative is the number of the signal that ended it."""
        return self._child.returncode or 0

    def wait(self, timeout_s: float) -> bool:
        """Whether the child ended within the time."""
        self._reaper.join(timeout_s)
        return not self._reaper.is_alive()

    def end(self) -> None:
        """Ends what is left: a request first, then, or when we are interrupted ourselves, without mercy."""
        try:
            self.send(signal.SIGTERM)
        finally:
            self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to all that is left, and gives the child time to act on it."""
        self._find_others()
        if send_to_all(self._child.pid, self._others, number):
            self.wait(GRACE_S)

    def _find_others(self) -> None:
        if self.root is None or not is_same(self.root):
            return
        for process in find_descendants(self.root):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(process.pid) != self._child.pid:
                    self._others.add(process)


@contextlib.contextmanager
def raising_terminated() -> Iterator[None]:
    """Turns a SIGTERM into `Terminated` for a block.

    Nothing is changed outside the main thread, or where the program has a handler of its own.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(_number: int, _frame: object) -> NoReturn:
    raise Terminated("SIGTERM")


def read_process(pid: int) -> Process | None:
    """A process that is there, or is a zombie; None where it is not, or can't be read."""
    try:
        status = (PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        # Parent and start are fields 4 and 22; the name before them may hold spaces and parentheses.
        words = status.rpartition(")")[2].split()
        return Process(pid, int(words[1]), int(words[19]))
    except (OSError, ValueError, IndexError):
        return None


def is_same(process: Process) -> bool:
    """Whether a process is still there, under whatever parent."""
    now = read_process(process.pid)
    return now is not None and now.started == process.started


def find_descendants(root: Process) -> list[Process]:
    """The children of a process, their children, and so on."""
    children: dict[int, list[Process]] = {}
    for folder in PROCESSES.glob("[0-9]*"):
        if (process := read_process(int(folder.name))) is not None:
            children.setdefault(process.parent, []).append(process)
    found = list(children.get(root.pid, []))
    for process in found:
        found.extend(children.get(process.pid, []))
    return found


def send_to_all(group: int, others: Iterable[Process], number: signal.Signals) -> bool:
    """Sends a signal to a process group and to other processes; whether anybody was there to get it."""
    is_sent = _send(os.killpg, group, number)
    for process in others:
        if is_same(process):
            is_sent |= _send(os.kill, process.pid, number)
    return is_sent


def _send(send: Callable[[int, int], None], target: int, number: signal.Signals) -> bool:
    # macOS denies signals to a group of ended processes.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(target, number)
        return True
    return False
