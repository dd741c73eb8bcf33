"""A small curve in plain characters, for messages and terminals."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "x"


def draw_curve(
    points: Sequence[tuple[int, float]], *, width: int = 60, height: int = 6, axis: str = "step"
) -> str:
    """Draws `(step, value)` points as rows of `*`, with the range of both axes; `axis` names the lower one.

    More points than columns are averaged; a column with a value that is not finite is marked `x` on the
    lowest row. A level series takes one row. No points give an empty string.
    """
    if not points:
        return ""
    values = _resample([value for _, value in points], width)
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    height = height if low < high else 1
    rows = [[" "] * len(values) for _ in range(height)]
    for column, value in enumerate(values):
        if math.isfinite(value):
            rows[height - 1 - _find_level(value, low, high, height)][column] = "*"
        else:
            rows[-1][column] = NOT_FINITE
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"][-height:]
    margin = max(len(axis), *(len(label) for label in labels))
    lines = [f"{label:>{margin}} |{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    first, last = str(points[0][0]), str(points[-1][0])
    ends = f"{first}{last:>{max(len(last) + 1, len(values) - len(first))}}"
    return "\n".join([*lines, f"{'':>{margin}} +{'-' * len(values)}", f"{axis:>{margin}}  {ends}"])


def draw_sparkline(values: Sequence[float], *, width: int = 12) -> str:
    """The shape of a series in one line of block characters; `x` where a value is not finite."""
    values = _resample(values, width)
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(
        BLOCKS[_find_level(value, low, high, len(BLOCKS))] if math.isfinite(value) else NOT_FINITE
        for value in values
    )


def _find_level(value: float, low: float, high: float, num_levels: int) -> int:
    # Halves, because the range of two large numbers may be no number.
    span = high / 2 - low / 2
    return round((value / 2 - low / 2) / span * (num_levels - 1)) if span else 0


def _resample(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [round(column * len(values) / width) for column in range(width + 1)]
    spans = (values[start:end] for start, end in itertools.pairwise(edges))
    return [sum(value / len(span) for value in span) for span in spans]
