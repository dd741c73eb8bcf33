"""The history of one measurement: launches, gathered into nights."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMIT_DIGITS = 10
"""Digits of a commit in messages."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one process launch: the sampling unit.

    Attributes:
        recorded_at: Moment in UTC, as ISO text.
        commit: Commit of the work tree; None outside git.
        value: The measurement, in the metric's unit.
    """

    recorded_at: str
    commit: str | None
    value: float


@dataclass(frozen=True, slots=True)
class Night:
    """The launches of one commit on one day.

    Attributes:
        date: The day in UTC, `2026-11-02`.
        commit: What was measured; None outside git.
        log: Mean of the logs of its launches.
        num_launches: How many there were.
        squares: Sum of the squared distances of these logs from their mean.
    """

    date: str
    commit: str | None
    log: float
    num_launches: int = 1
    squares: float = 0.0

    @property
    def value(self) -> float:
        """The geometric mean of the night's launches, in the metric's unit."""
        return math.exp(self.log)

    @property
    def name(self) -> str:
        """The night as messages call it: day and commit."""
        return f"{self.date} ({self.commit[:COMMIT_DIGITS]})" if self.commit else self.date


def gather_nights(samples: Iterable[Sample]) -> list[Night]:
    """The nights of a history, oldest first: launches of one commit on one day count as one night.

    Values that are not finite or not above 0 have no logarithm and are left out.
    """
    usable = sorted(
        (sample for sample in samples if 0 < sample.value < math.inf), key=lambda sample: sample.recorded_at
    )
    # Two commits measured on one day are two nights, in the order of their first launches.
    first_at: dict[tuple[str, str], str] = {}
    for sample in usable:
        first_at.setdefault(_key(sample), sample.recorded_at)
    usable.sort(key=lambda sample: (first_at[_key(sample)], _key(sample)))
    nights = []
    for _, group in itertools.groupby(usable, key=_key):
        members = list(group)
        logs = [math.log(sample.value) for sample in members]
        mean = statistics.fmean(logs)
        squares = sum((log - mean) ** 2 for log in logs)
        nights.append(Night(members[0].recorded_at[:10], members[0].commit, mean, len(logs), squares))
    return nights


def _key(sample: Sample) -> tuple[str, str]:
    return sample.recorded_at[:10], sample.commit or ""
