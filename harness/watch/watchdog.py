"""Ends a command when the process that runs it is gone without a word: killed, or left through `os._exit`.

pytest-timeout's `thread` method leaves that way, and so does a process that runs out of memory. A second
process holds the reading end of a pipe whose other end nobody but us has: it closes with us, however we end.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from harness import clock
from harness.watch.processes import GRACE_S, Process, find_descendants, is_same, send_to_all

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL_S = 0.05
# What it needs to end processes is imported when it has to: until then it costs a bare interpreter.
PROGRAM = """
import os, sys
while os.read(0, 1):
    pass
sys.path.insert(0, sys.argv[1])
from harness.watch.watchdog import end_orphans
end_orphans(*map(int, sys.argv[2:]))
"""
IMPORT_ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def guarded(root: Process | None) -> Iterator[None]:
    """Ends a process, its group and its descendants if ours ends inside the block; costs the start a few milliseconds.

    Without effect where the process is unknown, as where there is no /proc, or no second one can be started.
    """
    dog = None if root is None else _start(root)
    try:
        yield
    finally:
        if dog is not None:
            dog.kill()
            dog.communicate()


def _start(root: Process) -> subprocess.Popen[bytes] | None:
    words = [sys.executable, "-I", "-S", "-c", PROGRAM, str(IMPORT_ROOT), str(root.pid), str(root.started)]
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return None


def end_orphans(pid: int, started: int) -> None:
    """Ends the process with this number and start, its group and its descendants: a request first, then by force."""
    root = Process(pid, 0, started)
    if not is_same(root):
        return
    orphans = {root, *find_descendants(root)}
    for number in (SIGTERM, SIGKILL):
        send_to_all(pid, orphans, number)
        end_s = clock.monotonic_s() + GRACE_S
        while clock.monotonic_s() < end_s and any(map(is_same, orphans)):
            time.sleep(POLL_S)
