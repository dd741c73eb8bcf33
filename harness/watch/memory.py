"""Peak memory of this process over a stretch of code."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
KIB = 1024
FIRST_EVERY, NUM_READINGS = 8, 16
"""Of the resident set: steps between the first readings, and later ones until the number of steps has doubled."""


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
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    except OSError:
        pass
    if process is not None:
        return None
    # Linux counts it in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


class ResidentSet:
    """Reads the resident set of this process over and over, ever more rarely, where there is /proc.

    When an optimizer ends its every eighth step, and from the 256th on sixteen times before their number has doubled:
    among a step's work it takes 20 to 50 microseconds.
    """

    def __init__(self) -> None:
        self.next_call = 0
        try:
            self._file: int | None = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None
        self._page_bytes = resource.getpagesize()

    def read_bytes(self, num_calls: int) -> int | None:
        """Bytes resident now, after so many steps of optimizers before; None where the system does not tell."""
        self.next_call = num_calls + max(FIRST_EVERY, (1 << num_calls.bit_length()) // (2 * NUM_READINGS))
        if self._file is None:
            return None
        return int(os.pread(self._file, 64, 0).split()[1]) * self._page_bytes

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
