"""Peak memory of this process over a stretch of code."""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
KIB = 1024
SHORTEST_S, TIME_SHARE = 0.1, 1 / 32
"""Between readings of the resident set: so many seconds, and later such a share of the time since the first."""


def reset_peak_memory() -> None:
    """Starts the peak resident set anew where Linux allows it; elsewhere the peak stays the process's own."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return


def read_peak_memory_bytes(process: int | None = None) -> int | None:
    """Peak resident set of a process in bytes; of this one by default, since `reset_peak_memory`.

    Where the peak can't be reset (macOS, locked-down containers) it is that of the process's whole life.
    None for another process that is gone, or on a system without `/proc`: the peak of a waited child in
    getrusage(2) is no way out, as it starts at that of the parent it was forked from.
    Source: proc(5), `VmHWM` and `/proc/pid/clear_refs`; getrusage(2) for this process elsewhere.
    """
    status = STATUS if process is None else Path(f"/proc/{process}/status")
    try:
        _, found, rest = status.read_bytes().partition(b"\nVmHWM:")
        if found:
            return int(rest.split(maxsplit=1)[0]) * KIB
    except OSError:
        pass
    if process is not None:
        return None
    # Linux counts it in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


class ResidentSet:
    """Reads the resident set of this process over and over, ever more rarely, where there is /proc.

    When an optimizer has ended a step, every tenth of a second, and after 3.2 s whenever a thirty-second of the time
    since the first reading has passed: among a step's work it takes 20 to 50 microseconds.

    Attributes:
        next_s: When it is to be read again, on the clock of whoever reads.
    """

    def __init__(self) -> None:
        self.next_s = -math.inf
        self._first_s: float | None = None
        try:
            self._file: int | None = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None
        self._page_bytes = resource.getpagesize()

    def read(self, at_s: float) -> bytes | None:
        """What the system tells now; None where it does not tell."""
        if self._first_s is None:
            self._first_s = at_s
        self.next_s = at_s + max(SHORTEST_S, (at_s - self._first_s) * TIME_SHARE)
        return None if self._file is None else os.pread(self._file, 64, 0)

    def find_bytes(self, told: bytes) -> int:
        """Bytes that were resident, of what the system told."""
        return int(told.split(maxsplit=2)[1]) * self._page_bytes

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
