"""The statistics of the gate: is one launch worse than a pool of earlier ones?"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.001
"""Share of unchanged launches a gate with tolerance 0 may call regressed."""

MIN_LAUNCHES = 5
"""Fewer launches say too little of the noise between processes to judge by."""

MIN_TELLING, PASS_ALPHA = 3, 0.05
"""From so many launches on, a value that is this surely within the tolerance passes; two have no spread to trust."""

MAX_LOG = 100.0
"""Largest noise on the log scale that is turned back into a share."""

ROUNDING = 1e-9
"""Changes this small are the arithmetic's own, so that a tolerance of 0 passes an unchanged value."""


class Verdict(StrEnum):
    """What a budget came to."""

    PASS = "pass"  # noqa: S105  not a password
    REGRESSED = "regressed"
    IMPROVED = "improved"
    INCONCLUSIVE = "inconclusive"
    NOT_STEADY = "not steady"
    NOT_COMPARABLE = "not comparable"
    MISSING_BASELINE = "missing baseline"
    EXCEEDED = "limit exceeded"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One launch against a pool.

    Attributes:
        verdict: Pass, regressed, improved or inconclusive.
        baseline: The pool's geometric mean (arithmetic for a loss).
        change: Relative change of the observed value against it; positive is more, not worse.
        noise: The change that launches of unchanged code stay under, with the gate's confidence; infinite
            where the pool has fewer than five launches.
        num_launches: Size of the pool.
    """

    verdict: Verdict
    baseline: float
    change: float
    noise: float
    num_launches: int


def compare_with_pool(
    observed: float, pool: Sequence[float], *, tolerance: float, is_lower_better: bool, alpha: float = ALPHA
) -> Comparison:
    """Judges a time, throughput or size by a prediction interval over the logs of a pool.

    Regressed means both: worse by more than the tolerance, and by more than launches of unchanged code
    differ, `t(1 - alpha, K - 1) * s * sqrt(1 + 1/K)` with `s` the standard deviation of the logs. Worse than
    the tolerance but within that noise is inconclusive. A pool of fewer than five launches is no measure of
    noise to fail by, and everything is inconclusive, but for one case: from three launches on, a value passes
    that is shown to be no worse than the tolerance, at a level of 5 %. So little must they differ that
    even the few tell.

    Args:
        observed: The value of one launch, above 0.
        pool: Values of earlier launches, above 0, one per process.
        tolerance: Allowed change as a share; 0.05 is 5 %.
        is_lower_better: True for times and sizes, False for throughput.
        alpha: One-sided error rate.

    Raises:
        ValueError: The pool is empty, or a value is not a finite number above 0.

    Source: prediction interval for one future observation of a normal sample (Hahn and Meeker, 1991); the pass
    of a small pool is the one-sided test of non-inferiority (Schuirmann, 1987) on the same statistic.
    """
    if not pool or not all(0 < value < math.inf for value in (observed, *pool)):
        raise ValueError("a comparison needs a pool, and finite values above 0")
    logs = [math.log(value) for value in pool]
    difference = math.log(observed) - statistics.fmean(logs)
    noise = _measure_noise(logs, alpha) if len(logs) >= MIN_LAUNCHES else math.inf
    worse = difference if is_lower_better else -difference
    allowed = math.log1p(tolerance)
    is_shown_within = (
        MIN_TELLING <= len(logs) < MIN_LAUNCHES and worse + _measure_noise(logs, PASS_ALPHA) <= allowed
    )
    return Comparison(
        verdict=Verdict.PASS if is_shown_within else _decide(worse, allowed, noise),
        baseline=math.exp(statistics.fmean(logs)),
        change=math.expm1(difference),
        noise=math.expm1(min(noise, MAX_LOG)) if math.isfinite(noise) else noise,
        num_launches=len(pool),
    )


def compare_quality(observed: float, pool: Sequence[float], *, tolerance: float) -> Comparison:
    """Judges a loss, which depends on seed and code and not on the machine's speed: by tolerance alone.

    A value that is not finite is regressed, whatever the pool says.

    Args:
        observed: The loss of this run; lower is better.
        pool: Losses of earlier launches, on any machine.
        tolerance: Allowed change as a share of the baseline's size.

    Raises:
        ValueError: The pool is empty.
    """
    if not pool:
        raise ValueError("a comparison needs a pool")
    baseline = statistics.fmean(pool)
    change = (observed - baseline) / (abs(baseline) or 1.0)
    worse = change if math.isfinite(observed) else math.inf
    allowed = tolerance + ROUNDING
    verdict = Verdict.REGRESSED if worse > allowed else Verdict.IMPROVED if worse < -allowed else Verdict.PASS
    return Comparison(verdict, baseline, change, noise=0.0, num_launches=len(pool))


def _measure_noise(logs: Sequence[float], alpha: float) -> float:
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    quantile = float(stats.t.ppf(1 - alpha, len(logs) - 1))
    return quantile * statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))


def _decide(worse: float, allowed: float, noise: float) -> Verdict:
    if math.isinf(noise):
        return Verdict.INCONCLUSIVE
    if worse > allowed + ROUNDING:
        return Verdict.REGRESSED if worse > noise else Verdict.INCONCLUSIVE
    if worse < -allowed - ROUNDING:
        return Verdict.IMPROVED if -worse > noise else Verdict.PASS
    return Verdict.PASS
