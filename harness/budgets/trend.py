"""Has a measurement crept or stepped away from its pinned anchor, over nights?

A gate against last night never sees a creep. Here every night is compared with one anchor that does not move,
and what the nights say is summed up (a CUSUM), so that small steps in one direction add up to an alarm.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.budgets.onset import Shape, find_onset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.budgets.nights import Night
    from harness.budgets.onset import Onset

ANCHOR_NIGHTS = 30
"""Nights of the anchor: a month until the first verdict, and enough to know level and noise by."""

MIN_ANCHOR_NIGHTS = 10
"""A shorter anchor says too little of the noise between nights; the threshold it needs would see nothing."""

ALLOWANCE = 2.0
"""What the CUSUM takes off each night, in standard deviations.

Half of the change it is made for (Page, Lucas). The usual 0.5 is for an anchor known exactly: with the mean of 30
nights, whose own error returns every night, 25 to 47 % of flat histories of 100 nights pass the usual threshold of 8.
A creep is caught all the same, since the anchor does not follow it: each night lies further off.
"""

THRESHOLD, THRESHOLD_PER_ANCHOR, THRESHOLD_PER_LOG = 3.0, 22.0, 0.45
"""The alarm's threshold `(3 + 22 / K) * (1 + 0.45 ln n)` for K anchor nights and n histories judged together.

Set where 2 % of flat histories of 100 nights alarm, with the noise measured between launches and an assumed one
between nights: `python -m benchmarks.creep`.
"""

COMMON_SHARE, THRESHOLD_PER_COMMON = 0.75, 6.0
"""From three quarters on, the share of the noise that a night's launches have in common raises the threshold.

More launches average out what is each launch's own; what is left is the night's, and follows from night to night: a
busy neighbour stays for days. Correlated nights (0.5 was taken) add up to higher sums.
"""

HELD = 2.0
"""The CUSUM stops at so many thresholds, so that it falls again within a few nights of a repair."""

MIN_NOISE = 0.005
"""Nights that differ by less than 0.5 % count as if they did: a change has to be worth an alarm, too."""

MAX_Z = 8.0
RISING_ALPHA = 0.001


class TrendVerdict(StrEnum):
    """What a history came to."""

    STEADY = "steady"
    CREEPING = "creeping"
    STEPPED = "stepped"
    IMPROVED = "improved"
    TOO_FEW = "too few nights"


@dataclass(frozen=True, slots=True)
class Trend:
    """A judged history.

    Attributes:
        verdict: What it came to.
        nights: All nights, oldest first.
        anchor: The span of the anchor among them, as (first, after last).
        level: Geometric mean of the anchor, in the metric's unit; NaN where there is no anchor yet.
        noise: Standard deviation of a night's log around its level; NaN where there is no anchor yet.
        cusum: The CUSUM for worse after each night behind the anchor.
        threshold: Above which it alarms.
        first_alarm: The night of the first alarm for worse, also one that is over; None without one.
        onset: Where the change began, counted in `nights`; None for a steady history or too few nights.
        is_anchor_rising: Whether the nights of the anchor themselves get worse one after another.
        num_missing: Nights that are still needed for a verdict.
    """

    verdict: TrendVerdict
    nights: tuple[Night, ...]
    anchor: tuple[int, int] = (0, 0)
    level: float = math.nan
    noise: float = math.nan
    cusum: tuple[float, ...] = ()
    threshold: float = math.nan
    first_alarm: int | None = None
    onset: Onset | None = None
    is_anchor_rising: bool = False
    num_missing: int = 0

    @property
    def is_failing(self) -> bool:
        """Whether the history is getting, or has become, worse."""
        return self.verdict in (TrendVerdict.CREEPING, TrendVerdict.STEPPED)


def judge_trend(
    nights: Sequence[Night],
    *,
    is_lower_better: bool = True,
    num_anchor: int = ANCHOR_NIGHTS,
    pinned: str | None = None,
    num_histories: int = 1,
) -> Trend:
    """Judges the history of one metric on one runner class against its anchor.

    The anchor is the first `num_anchor` nights, or the first of those from `pinned` on. Each later night gives
    a z: its distance from the anchor's mean over the noise of such a difference, `s * sqrt(1 + 1/K)`, read off
    Student's t with K - 1 degrees of freedom and turned into the normal value of the same probability. The CUSUM
    `g = max(0, g + z - 2)` alarms above its threshold; of the other direction, it calls the history improved.

    Args:
        nights: Oldest first.
        is_lower_better: True for times and sizes, False for throughput.
        num_anchor: Nights of the anchor, 10 at least.
        pinned: Day (`2026-11-02`) from which the anchor's nights are taken; None for the first ones.
        num_histories: Histories judged together; the threshold grows with them, so that the 2 % of flat ones
            that alarm within 100 nights hold for all of them together.

    Raises:
        ValueError: The anchor is too short to judge by.

    Source: CUSUM: Page, Biometrika 41 (1954); allowance of half the change to be found, and the one bound for both
    shifts and outliers: Lucas, Technometrics 18 (1976) and Journal of Quality Technology 14 (1982); what an
    estimated level does to it: Jones, Champ and Rigdon, Technometrics 46 (2004).
    """
    if num_anchor < MIN_ANCHOR_NIGHTS:
        raise ValueError(f"an anchor needs {MIN_ANCHOR_NIGHTS} nights")
    nights = tuple(nights)
    start = next((i for i, night in enumerate(nights) if pinned is None or night.date >= pinned), len(nights))
    end = start + num_anchor
    if len(nights) <= end:
        missing = end + 1 - len(nights)
        return Trend(TrendVerdict.TOO_FEW, nights, (start, min(end, len(nights))), num_missing=missing)
    sign = 1.0 if is_lower_better else -1.0
    anchor, judged = nights[start:end], nights[end:]
    level = statistics.fmean(night.log for night in anchor)
    noise = max(MIN_NOISE, statistics.stdev(night.log for night in anchor))
    worse = [sign * z for z in _standardize(judged, anchor, level, noise)]
    threshold = find_threshold(num_anchor, num_histories, common=_find_common_share(anchor, noise))
    cusum = sum_up(worse, threshold)
    alarms = [index for index, g in enumerate(cusum) if g > threshold]
    rising = _is_rising([sign * night.log for night in anchor])
    improved = sum_up([-z for z in worse], threshold)
    is_worse, is_improved = cusum[-1] > threshold, improved[-1] > threshold
    onset, verdict = None, TrendVerdict.STEADY
    if is_worse or is_improved:
        # Only the present episode: an earlier one that was repaired is no part of this change.
        since = _find_episode(cusum if is_worse else improved, threshold)
        onset = find_onset(
            [sign * night.log for night in judged[since:]],
            level=sign * level,
            noise=noise,
            num_anchor=num_anchor,
        )
        onset = _move(onset, end + since)
        creeping = TrendVerdict.CREEPING if onset.shape is Shape.CREEP else TrendVerdict.STEPPED
        verdict = creeping if is_worse else TrendVerdict.IMPROVED
    return Trend(
        verdict=verdict,
        nights=nights,
        anchor=(start, end),
        level=math.exp(level),
        noise=noise,
        cusum=tuple(cusum),
        threshold=threshold,
        first_alarm=end + alarms[0] if alarms else None,
        onset=onset,
        is_anchor_rising=rising,
    )


def find_threshold(num_anchor: int, num_histories: int = 1, *, common: float = 0.0) -> float:
    """The height above which a CUSUM alarms.

    Args:
        num_anchor: Nights of the anchor.
        num_histories: Histories judged together.
        common: Share of the variance of nights that the launches of a night have in common.
    """
    threshold = THRESHOLD + THRESHOLD_PER_ANCHOR / num_anchor
    threshold *= 1 + THRESHOLD_PER_COMMON * max(0.0, common - COMMON_SHARE)
    return threshold * (1 + THRESHOLD_PER_LOG * math.log(num_histories))


def sum_up(worse: Sequence[float], threshold: float) -> list[float]:
    """The CUSUM after each night: `g = max(0, g + z - 2)`, held at two thresholds."""
    g, sums = 0.0, []
    for z in worse:
        g = min(max(0.0, g + z - ALLOWANCE), HELD * threshold)
        sums.append(g)
    return sums


def _standardize(judged: Sequence[Night], anchor: Sequence[Night], level: float, noise: float) -> list[float]:
    """How far each night lies above the anchor, as a standard normal value if nothing changed."""
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    freedom = len(anchor) - 1
    launches = statistics.fmean(night.num_launches for night in anchor)
    repeats = sum(night.num_launches - 1 for night in anchor)
    within = sum(night.squares for night in anchor) / repeats if repeats else noise**2
    # A night of fewer launches than the anchor's is noisier by what launches differ within a night.
    extra = [within * max(0.0, 1 / night.num_launches - 1 / launches) for night in judged]
    widths = [math.sqrt(noise**2 * (1 + 1 / len(anchor)) + more) for more in extra]
    scores = [(night.log - level) / width for night, width in zip(judged, widths, strict=True)]
    tails = stats.norm.isf(stats.t.sf([abs(score) for score in scores], freedom))
    return [math.copysign(min(float(z), MAX_Z), score) for z, score in zip(tails, scores, strict=True)]


def _find_common_share(anchor: Sequence[Night], noise: float) -> float:
    """The share of the nights' variance that is not explained by what launches of one night differ by.

    0 where nights have one launch each, which tells nothing of it.
    """
    repeats = sum(night.num_launches - 1 for night in anchor)
    if not repeats:
        return 0.0
    within = sum(night.squares for night in anchor) / repeats
    own = within * statistics.fmean(1 / night.num_launches for night in anchor)
    return max(0.0, 1 - own / noise**2)


def _is_rising(logs: Sequence[float]) -> bool:
    from scipy import stats  # noqa: PLC0415  imported late: 400 ms

    if len(set(logs)) == 1:
        return False
    result = stats.kendalltau(range(len(logs)), logs, alternative="greater")
    return bool(result.pvalue < RISING_ALPHA and logs[-1] - logs[0] > MIN_NOISE)


def _find_episode(cusum: Sequence[float], threshold: float) -> int:
    """The first night after an earlier alarm that was over before the present one began; 0 without one."""
    index = len(cusum) - 1
    while index >= 0 and cusum[index] > 0:
        index -= 1
    earlier = [night for night in range(index + 1) if cusum[night] > threshold]
    return earlier[-1] + 1 if earlier else 0


def _move(onset: Onset, by: int) -> Onset:
    return replace(onset, index=onset.index + by, earliest=onset.earliest + by, latest=onset.latest + by)
