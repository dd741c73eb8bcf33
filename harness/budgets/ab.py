"""The statistics of head against base: pairs of processes, looked at a few times on the way to a verdict."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.budgets.launch_pair import LaunchPair

LOOKS = (3, 5, 8, 12)
"""Numbers of pairs at which a verdict may be reached, declared before the first is measured; so may be the end."""
ALPHA = 0.01
"""Share of comparisons of equal programs that may be called regressed at tolerance 0, over all looks together."""
BETA = 0.05
"""Share of comparisons of programs that differ by just the tolerance that may be called passed on the way."""
RESOLUTION = 0.01
"""A last look passes what may, at 95 %, be slower than the tolerance by this much and no more."""
CONFIDENCE = 0.95
DRIFT_ALPHA = 0.001
MIN_DRIFT = 0.02
"""A ratio that moves by less along the run is called steady, however surely it moves."""
NAMING_ALPHA = 0.05
"""Share of regressions in which one of the phases that did not grow may be named."""
MIN_PART = 0.2
"""A phase is named that makes up at least so much of what a step grew by."""
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ratio:
    """A change of head against base, as a share, with the interval that holds it with 95 % confidence."""

    change: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PhaseChange:
    """What became of one phase of a step.

    Attributes:
        phase: Its name.
        base_s: The base's time for it.
        head_s: The head's.
        growth: By how much it made the step longer, as a share of the base's step.
        low: The least that this may be, with 95 % confidence.
        high: The most.
        p_value: One-sided, that it grew at all, corrected for the number of phases.
        is_named: Whether it is told to be what made the step slower.
    """

    phase: str
    base_s: float
    head_s: float
    growth: float
    low: float
    high: float
    p_value: float
    is_named: bool


@dataclass(frozen=True, slots=True)
class PairedVerdict:
    """Head against base.

    Attributes:
        verdict: Pass, regressed, improved, inconclusive or not steady.
        step_time: The change of the step time.
        tolerance: The change that was allowed.
        num_pairs: Pairs of processes it rests on.
        phases: The phases of a step.
        drift: By how much the ratio moved from the first to the second half of the compared steps.
        is_final: False where more pairs may yet decide it.
    """

    verdict: Verdict
    step_time: Ratio
    tolerance: float
    num_pairs: int
    phases: tuple[PhaseChange, ...]
    drift: float
    is_final: bool


def judge_pairs(pairs: Sequence[LaunchPair], *, tolerance: float, is_last: bool = False) -> PairedVerdict:
    """The verdict over the pairs so far.

    Regressed means that the mean of the logarithms lies above that of the tolerance, by Student's test over the
    pairs at the level of this look; improved is its mirror image. Passed on the way means that it is shown to lie
    below. A last look also passes an estimate within the tolerance that is known to 1 %; what is left is
    inconclusive. Where the ratio itself moves along the run there is no such thing as the ratio: not steady.

    Args:
        pairs: One for every pair of processes, three at least; a verdict is final at the numbers of `LOOKS`, or last.
        tolerance: Allowed change as a share; 0.02 is 2 %.
        is_last: Whether no more pairs will come, although there could be more. The time may decide that, but not
            what the pairs show: then such a look may use all that earlier ones have left of the error rates.

    Raises:
        ValueError: There are fewer pairs than the first look takes.

    Source: alpha is spent over the looks by the function of Lan and DeMets (1983) that comes near Pocock's bounds,
    `a * ln(1 + (e - 1) * t)`; each look is tested at what it adds, so that by Bonferroni's inequality the whole
    is kept however the looks depend on each other.
    """
    if len(pairs) < LOOKS[0]:
        raise ValueError(f"{len(pairs)} pairs are fewer than the {LOOKS[0]} of the first look")
    is_last = is_last or len(pairs) >= LOOKS[-1]
    logs = [pair.log_ratio for pair in pairs]
    drifts = [pair.drift for pair in pairs]
    verdict, is_final = _decide(logs, math.log1p(tolerance), is_last=is_last)
    drift = statistics.fmean(drifts)
    moves = min(find_p_value(drifts, 0.0), find_p_value([-drift for drift in drifts], 0.0)) * 2
    if is_final and moves < DRIFT_ALPHA and abs(drift) > max(MIN_DRIFT, math.log1p(tolerance)):
        verdict = Verdict.NOT_STEADY
    return PairedVerdict(
        verdict=verdict,
        step_time=estimate(logs),
        tolerance=tolerance,
        num_pairs=len(pairs),
        phases=_compare_phases(pairs),
        drift=math.expm1(drift),
        is_final=is_final,
    )


def _decide(logs: Sequence[float], allowed: float, *, is_last: bool) -> tuple[Verdict, bool]:
    if len(logs) in LOOKS or is_last:
        level = find_level(ALPHA, len(logs), is_last=is_last)
        if find_p_value(logs, allowed + ROUNDING) < level:
            return Verdict.REGRESSED, True
        if find_p_value([-value for value in logs], allowed + ROUNDING) < level:
            return Verdict.IMPROVED, True
        # Mirrored at the bound: that the mean lies below it.
        if find_p_value([-value for value in logs], -allowed) < find_level(BETA, len(logs), is_last=is_last):
            return Verdict.PASS, True
    if not is_last:
        return Verdict.INCONCLUSIVE, False
    ratio = estimate(logs)
    bound = math.expm1(allowed + ROUNDING)
    is_known = ratio.change <= bound and ratio.high <= bound + RESOLUTION
    return (Verdict.PASS if is_known else Verdict.INCONCLUSIVE), True


def find_level(alpha: float, num_pairs: int, *, is_last: bool) -> float:
    """The part of an error rate that the look at so many pairs may use; all that is left where it is the last."""
    before = [look for look in LOOKS if look < num_pairs]
    spent = [alpha * math.log1p((math.e - 1) * num / LOOKS[-1]) for num in (*before[-1:], num_pairs)]
    return (alpha if is_last else spent[-1]) - (spent[0] if before else 0.0)


def find_p_value(values: Sequence[float], bound: float) -> float:
    """One-sided p-value that the mean of a normal population lies above a bound, by Student's test.

    Values that are all equal, as in a test of the tests, are as sure as can be: 0 above the bound, else 1.
    """
    from scipy import special  # noqa: PLC0415  imported late

    over = statistics.fmean(values) - bound
    error = statistics.stdev(values) / math.sqrt(len(values))
    if error <= abs(over) * ROUNDING or error == 0:
        return 0.0 if over > 0 else 1.0
    return float(special.stdtr(len(values) - 1, -over / error))


def estimate(logs: Sequence[float]) -> Ratio:
    """The geometric mean of ratios with its 95 % interval."""
    return Ratio(*map(math.expm1, find_interval(logs)))


def find_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of values, and the ends of its 95 % interval by Student's distribution.

    No bootstrap: resampling three to twelve pairs gives intervals that are too narrow.
    """
    from scipy import special  # noqa: PLC0415  imported late

    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error
    return mean, mean - half, mean + half


def _compare_phases(pairs: Sequence[LaunchPair]) -> tuple[PhaseChange, ...]:
    names = [phase for phase in pairs[0].phases_s if any(sum(pair.phases_s[phase]) for pair in pairs)]
    growths = {phase: [pair.growth[phase] for pair in pairs] for phase in names}
    values = correct_holm({phase: find_p_value(growth, 0.0) for phase, growth in growths.items()})
    total = statistics.fmean(pair.log_ratio for pair in pairs)
    changes = []
    for phase in names:
        growth, low, high = find_interval(growths[phase])
        base_s, head_s = (statistics.fmean(pair.phases_s[phase][arm] for pair in pairs) for arm in (0, 1))
        is_named = values[phase] < NAMING_ALPHA and growth >= MIN_PART * math.expm1(max(total, 0.0))
        changes.append(PhaseChange(phase, base_s, head_s, growth, low, high, values[phase], is_named))
    return tuple(changes)


def correct_holm(values: dict[str, float]) -> dict[str, float]:
    """P-values corrected for their number, by Holm's step-down method (Holm, 1979)."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, value * (len(values) - rank)))
        corrected[name] = largest
    return corrected
