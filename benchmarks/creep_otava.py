"""Lets Apache Otava judge histories night by night; run by creep.py with an interpreter that has it.

Reads a JSON list of series from the standard input, and writes for each the first night on which Otava, given what is
there by then, reports a change point for the worse; null without one. Its settings are those it comes with.
"""

from __future__ import annotations

import json
import sys

from otava.analysis import compute_change_points


def find_alarm(values: list[float], start: int) -> int | None:
    """The first night, from `start` on, on which a change for the worse is reported."""
    for night in range(start, len(values)):
        points, _ = compute_change_points(values[: night + 1])
        if any(point.stats.mean_2 > point.stats.mean_1 for point in points):
            return night
    return None


if __name__ == "__main__":
    first = int(sys.argv[1])
    json.dump([find_alarm(values, first) for values in json.load(sys.stdin)], sys.stdout)
