"""The only place where the harness reads time, so that tests of budgets and limits are instant."""

from __future__ import annotations

import time
from datetime import UTC, datetime

monotonic_s = time.perf_counter
"""Seconds on a clock that never runs backwards; only differences mean anything."""


def now_utc() -> str:
    """The current moment in UTC to the second, as `2026-11-02T10:15:30+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_utc_s(moment: str) -> float:
    """Seconds since 1970 of a moment as `now_utc` gives it, or without its offset.

    Raises:
        ValueError: The text is no moment.
    """
    read = datetime.fromisoformat(moment)
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
