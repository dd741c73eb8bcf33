"""How long a process was ready to run and had no processor: the trace that other programs leave on its times."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from harness import clock

NS = 1e9


def read_waiting_s(process: int | None = None) -> float | None:
    """Seconds that the main thread of a process has waited in the run queue since it started.

    A program that sleeps, or waits for data, does not wait in the queue. None for a process that is gone, and
    on systems that don't tell.

    Args:
        process: Its id; this process by default.

    Source: the second field of `/proc/pid/schedstat`, in nanoseconds (Linux, scheduler statistics).
    """
    try:
        text = Path(f"/proc/{process or 'self'}/schedstat").read_text(encoding="ascii")
        return int(text.split()[1]) / NS
    except (OSError, ValueError, IndexError):
        return None


class OwnClock:
    """A clock that stands still while this thread is ready to run and others have its processor.

    It goes on while the thread sleeps, or waits for data. A reading takes 2 microseconds. Where the system does
    not tell the waiting, it is the plain clock.
    """

    def __init__(self) -> None:
        self._waited_ns = 0
        try:
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._file: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.read_s()
        except (OSError, ValueError, IndexError):
            self._file = None

    def read_s(self) -> float:
        """Seconds; only differences mean anything."""
        now_s = clock.monotonic_s()
        if self._file is None:
            return now_s
        # Others may have had the processor between the two readings: then both are taken anew.
        while (waited_ns := int(os.pread(self._file, 64, 0).split()[1])) != self._waited_ns:
            self._waited_ns = waited_ns
            now_s = clock.monotonic_s()
        return now_s - waited_ns / NS
