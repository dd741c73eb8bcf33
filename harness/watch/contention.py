"""How long a process was ready to run and had no processor: the trace that other programs leave on its times."""

from __future__ import annotations

from pathlib import Path

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
