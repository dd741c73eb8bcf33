"""The statistics of the gate: are one or a few launches worse than a pool of earlier ones?"""

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


def find_failing(*, fails_inconclusive: bool, requires_baseline: bool) -> frozenset[Verdict]:
    """The verdicts that fail a test or a command.

    Args:
        fails_inconclusive: Whether what can't be told fails too.
        requires_baseline: Whether what can't be compared on this machine does.
    """
    failing = {Verdict.REGRESSED, Verdict.EXCEEDED, Verdict.MISSING_BASELINE}
    if requires_baseline:
        failing.add(Verdict.NOT_COMPARABLE)
    if fails_inconclusive:
        failing |= {Verdict.INCONCLUSIVE, Verdict.NOT_STEADY}
    return frozenset(failing)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A few launches against a pool.

    Attributes:
        verdict: Pass, regressed, improved or inconclusive.
        baseline: The pool's geometric mean (arithmetic for a loss).
        change: Relative change of the observed value against it; positive is more, not worse.
        noise: The change that launches of unchanged code stay under, with the gate's confidence; infinite
            where the pool has fewer than five launches.
        num_launches: Size of the pool.
        num_observed: Launches that were compared with it.
    """

    verdict: Verdict
    baseline: float
    change: float
    noise: float
    num_launches: int
    num_observed: int = 1


def compare_with_pool(
    observed: Sequence[float],
    pool: Sequence[float],
    *,
    tolerance: float,
    is_lower_better: bool,
    alpha: float = ALPHA,
    is_last: bool = True,
) -> Comparison:
    """Judges a time, throughput or size of a few launches by a prediction interval over the logs of a pool.

    Regressed means both: worse by more than the tolerance, and by more than launches of unchanged code
    differ, `t(1 - alpha, K - 1) * s * sqrt(1/m + 1/K)` with `s` the standard deviation of the logs, or that of the
    `m` launches where it is larger and they are three or more. Worse than the tolerance but within that noise is
    inconclusive. A pool of fewer than five launches is no measure of noise to fail by, and everything is
    inconclusive, but for one case: from three launches on, a value passes that is shown to be no worse than the
    tolerance, at a level of 5 %. So little must they differ that even the few tell.

    Args:
        observed: Values of the launches that are judged, above 0, one per process.
        pool: Values of earlier launches, above 0, one per process.
        tolerance: Allowed change as a share; 0.05 is 5 %.
        is_lower_better: True for times and sizes, False for throughput.
        alpha: One-sided error rate.
        is_last: Whether no more launches will come: before, only what is shown to be within the tolerance passes.

    Raises:
        ValueError: There is no launch or no pool, or a value is not a finite number above 0.

    Source: prediction interval for the mean of future observations of a normal sample (Hahn and Meeker, 1991);
    what is shown to be within is the one-sided test of non-inferiority (Schuirmann, 1987) on the same statistic.
    """
    if not observed or not pool or not all(0 < value < math.inf for value in (*observed, *pool)):
        raise ValueError("a comparison needs launches and a pool, and finite values above 0")
    logs, ours = [math.log(value) for value in pool], [math.log(value) for value in observed]
    difference = statistics.fmean(ours) - statistics.fmean(logs)
    has_enough = len(logs) >= MIN_LAUNCHES
    noise = _measure_noise(ours, logs, alpha) if has_enough else math.inf
    worse = difference if is_lower_better else -difference
    allowed = math.log1p(tolerance)
    is_shown_within = (
        len(logs) >= MIN_TELLING and worse + _measure_noise(ours, logs, PASS_ALPHA) <= allowed + ROUNDING
    )
    verdict = _decide(worse, allowed, noise)
    if not has_enough:
        verdict = Verdict.PASS if is_shown_within else Verdict.INCONCLUSIVE
    elif verdict is Verdict.PASS and not is_last and not is_shown_within:
        verdict = Verdict.INCONCLUSIVE
    return Comparison(
        verdict=verdict,
        baseline=math.exp(statistics.fmean(logs)),
        change=math.expm1(difference),
        noise=math.expm1(min(noise, MAX_LOG)) if math.isfinite(noise) else noise,
        num_launches=len(pool),
        num_observed=len(observed),
    )


def compare_quality(
    observed: float, pool: Sequence[float], *, tolerance: float, is_lower_better: bool = True
) -> Comparison:
    """Judges a loss or a score, which depends on seed and code and not on the machine's speed: by tolerance alone.

    A value that is not finite is regressed, whatever the pool says.

    Args:
        observed: The loss of this run.
        pool: Losses of earlier launches, on any machine.
        tolerance: Allowed change as a share of the baseline's size.
        is_lower_better: False for a score.

    Raises:
        ValueError: The pool is empty.
    """
    if not pool:
        raise ValueError("a comparison needs a pool")
    baseline = statistics.fmean(pool)
    change = (observed - baseline) / (abs(baseline) or 1.0)
    worse = (change if is_lower_better else -change) if math.isfinite(observed) else math.inf
    allowed = tolerance + ROUNDING
    verdict = Verdict.REGRESSED if worse > allowed else Verdict.IMPROVED if worse < -allowed else Verdict.PASS
    return Comparison(verdict, baseline, change, noise=0.0, num_launches=len(pool))


def _measure_noise(ours: Sequence[float], logs: Sequence[float], alpha: float) -> float:
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    quantile = float(stats.t.ppf(1 - alpha, len(logs) - 1))
    spread = max(statistics.stdev(logs), statistics.stdev(ours) if len(ours) >= MIN_TELLING else 0.0)
    return quantile * spread * math.sqrt(1 / len(ours) + 1 / len(logs))


def _decide(worse: float, allowed: float, noise: float) -> Verdict:
    if math.isinf(noise):
        return Verdict.INCONCLUSIVE
    if worse > allowed + ROUNDING:
        return Verdict.REGRESSED if worse > noise else Verdict.INCONCLUSIVE
    if worse < -allowed - ROUNDING:
        return Verdict.IMPROVED if -worse > noise else Verdict.PASS
    return Verdict.PASS
