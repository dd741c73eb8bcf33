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
from harness.budgets.whitening import UNKNOWN_SHARE, Whitening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.budgets.nights import Night
    from harness.budgets.onset import Onset

ANCHOR_NIGHTS = 30
"""Nights of the anchor: a month until the first verdict, and enough to know level and noise by."""

MIN_ANCHOR_NIGHTS = 10
"""A shorter anchor says too little of the noise between nights; the threshold it needs would see nothing."""

WINDOW = 10
"""Nights that a sum reaches back: a change of more nights has long been as clear as it gets."""

THRESHOLD, THRESHOLD_PER_ANCHOR, THRESHOLD_PER_LOG = 4.75, 9.0, 0.06
"""The alarm's threshold `(4.75 + 9 / K) * (1 + 0.06 ln n)` for K anchor nights and n histories judged together.

Set where fewer than 2 % of flat histories of 100 nights alarm, with the noise measured between launches and an
assumed one between nights: `python -m benchmarks.creep`.
"""

MAX_SURPRISE = 3.5
"""No night counts for more standard deviations: one bad night alone is below the threshold, however bad."""

PRESENT_NIGHTS, PRESENT = 2, 0.5
"""A change is over when the newest two nights lie less than half a standard deviation above the level."""

MIN_NOISE = 0.005
"""Nights that differ by less than 0.5 % count as if they did: a change has to be worth an alarm, too."""

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

    The anchor is the first `num_anchor` nights, or the first of those from `pinned` on. Each later night gives its
    difference from what the anchor and the nights before it forecast (`whitening`). Their sum is taken since every
    night that a change may have begun with, weighted as a step and as a creep from there would show, and divided by
    its standard deviation; the largest is the night's CUSUM, for changes whose size and shape nobody knows. It alarms
    above its threshold; that of the other direction calls the history improved.

    Args:
        nights: Oldest first.
        is_lower_better: True for times and sizes, False for throughput.
        num_anchor: Nights of the anchor, 10 at least.
        pinned: Day (`2026-11-02`) from which the anchor's nights are taken; None for the first ones.
        num_histories: Histories judged together; the threshold grows with them, so that the 2 % of flat ones
            that alarm within 100 nights hold for all of them together.

    Raises:
        ValueError: The anchor is too short to judge by.

    Source: Page, Biometrika 41 (1954); in its form for unknown changes, the generalized likelihood ratio over a window:
    Willsky and Jones, IEEE Transactions on Automatic Control 21 (1976); Lai, Journal of the Royal Statistical Society B
    57 (1995). What an estimated level does to a CUSUM: Jones, Champ and Rigdon, Technometrics 46 (2004).
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
    threshold = find_threshold(num_anchor, num_histories)
    rising, falling = sum_up(nights[start:], num_anchor)
    cusum, improved = (rising, falling) if is_lower_better else (falling, rising)
    alarms = [index for index, g in enumerate(cusum) if g > threshold]
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
        cusum=cusum,
        threshold=threshold,
        first_alarm=end + alarms[0] if alarms else None,
        onset=onset,
        is_anchor_rising=_is_rising([sign * night.log for night in anchor]),
    )


def find_threshold(num_anchor: int, num_histories: int = 1) -> float:
    """The height above which a CUSUM alarms.

    Args:
        num_anchor: Nights of the anchor.
        num_histories: Histories judged together.
    """
    return (THRESHOLD + THRESHOLD_PER_ANCHOR / num_anchor) * (
        1 + THRESHOLD_PER_LOG * math.log(max(1, num_histories))
    )


def sum_up(nights: Sequence[Night], num_anchor: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The CUSUMs for a rise and for a fall after each night behind the anchor, in standard deviations.

    0 where the newest nights are at the level, or on its other side.

    Args:
        nights: Oldest first, the anchor's at the front.
        num_anchor: Nights of the anchor.
    """
    logs = [night.log for night in nights]
    level, spread = statistics.fmean(logs[:num_anchor]), statistics.stdev(logs[:num_anchor])
    noise = max(MIN_NOISE, spread)
    model = _build_whitening(nights, num_anchor, noise)
    ones = model.whiten([1.0] * len(logs))
    raw = model.whiten([log - level for log in logs])
    weight = sum(one**2 for one in ones[:num_anchor])
    # What the anchor's mean is off by, as nights that are alike count for less.
    shift = sum(one * value for one, value in zip(ones[:num_anchor], raw[:num_anchor], strict=True)) / weight
    rest = [value - shift * one for value, one in zip(raw, ones, strict=True)]
    scale = max(MIN_NOISE, math.sqrt(sum(value**2 for value in rest[:num_anchor]) / (num_anchor - 1)))
    surprises = [max(-MAX_SURPRISE, min(MAX_SURPRISE, value / scale)) for value in rest]
    rises, falls = [0.0] * (len(logs) - num_anchor), [0.0] * (len(logs) - num_anchor)
    for first in range(num_anchor, len(logs)):
        reach = min(WINDOW, len(logs) - first)
        for shape in ([1.0] * reach, [1.0 + night for night in range(reach)]):
            product = power = overlap = 0.0
            for night, expected in enumerate(model.whiten(shape, first), start=first):
                product += expected * surprises[night]
                power += expected**2
                overlap += expected * ones[night]
                # The error of the anchor's level returns every night.
                total, index = product / math.sqrt(power + overlap**2 / weight), night - num_anchor
                rises[index], falls[index] = max(rises[index], total), max(falls[index], -total)
    for index, night in enumerate(range(num_anchor, len(logs))):
        newest = statistics.fmean(logs[night + 1 - PRESENT_NIGHTS : night + 1]) - level
        rises[index] *= newest >= PRESENT * noise
        falls[index] *= newest <= -PRESENT * noise
    return tuple(rises), tuple(falls)


def _build_whitening(nights: Sequence[Night], num_anchor: int, noise: float) -> Whitening:
    """The noise of each night: the part that its launches have in common, and that of their mean.

    A night of fewer launches than the anchor's is noisier by what launches differ within a night; one of more counts
    as one of the anchor's.
    """
    anchor = nights[:num_anchor]
    common = _find_common_share(anchor, noise)
    launches = num_anchor / sum(1 / night.num_launches for night in anchor)
    return Whitening(common, [(1 - common) * max(1.0, launches / night.num_launches) for night in nights])


def _find_common_share(anchor: Sequence[Night], noise: float) -> float:
    """The share of the nights' variance that is not explained by what launches of one night differ by."""
    repeats = sum(night.num_launches - 1 for night in anchor)
    if not repeats:
        return UNKNOWN_SHARE
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
