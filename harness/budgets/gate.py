"""The statistics of the gate: are one or a few launches worse than a pool of earlier ones?"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.budgets.machine import EXCUSING_EXPONENT, MachineRole, draw_line
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.budgets.machine import FixedWorkTimes

ALPHA = 0.001
"""Share of unchanged launches a gate with tolerance 0 may call regressed."""

MIN_LAUNCHES = 5
"""Fewer launches say too little of the noise between processes to judge by."""

MIN_OCCASIONS = 5
"""From so many occasions on, a pool tells how they differ, and so what several launches made together are worth."""

MIN_TELLING, PASS_ALPHA = 3, 0.05
"""From so many launches on, a pool lets pass what is this surely within the tolerance, and those that are judged have a
spread to trust: two have none."""

MAX_LOG = 100.0
"""Largest noise on the log scale that is turned back into a share."""

ROUNDING = 1e-9
"""Changes this small are the arithmetic's own, so that a tolerance of 0 passes an unchanged value."""


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
        num_occasions: Occasions on which those of the pool were made.
        machine_change: How much longer fixed work took than beside the pool, as a share; None where it is not known.
        net_change: The change at equal speed of the machine: by what the pool shows it to do, else as if all took as
            much longer as fixed work; None where it is not known.
        machine_role: What the machine's speed did to the verdict; None where it is not known.
    """

    verdict: Verdict
    baseline: float
    change: float
    noise: float
    num_launches: int
    num_observed: int = 1
    num_occasions: int = 1
    machine_change: float | None = None
    net_change: float | None = None
    machine_role: MachineRole | None = None


def compare_with_pool(
    observed: Sequence[float],
    pool: Sequence[Sequence[float]],
    *,
    tolerance: float,
    is_lower_better: bool,
    alpha: float = ALPHA,
    is_last: bool = True,
    works: FixedWorkTimes | None = None,
) -> Comparison:
    """Judges a time, throughput or size of a few launches by a prediction interval over the logs of a pool.

    Regressed means both: worse by more than the tolerance, and by more than launches of unchanged code differ. These
    are made together, and a machine has minutes in which all it runs is slower; more of them do not tell such minutes
    from slower code. So they are taken for one: `t(1 - alpha, K - 1) * s * sqrt(1 + 1/K)`, with `s` the standard
    deviation of the `K` logs, or that of the `m` launches where it is larger and they are three or more. A pool of five
    occasions or more shows how these differ. Then an occasion is one observation, the mean of its launches; launches
    that are fewer than an occasion usually has add what is missing of the noise within occasions, and so the bound
    narrows with them.

    Worse than the tolerance but within that noise is inconclusive. More launches may be asked for until a look decides:
    one or two, which may just have been unlucky, are neither regressed nor improved while more are to come. A pool of
    fewer than five launches is no measure of noise to fail by, and everything is inconclusive, but for one case: from
    three launches on, a value passes that is shown to be no worse than the tolerance, at a level of 5 % if all launches
    were independent. So little must they differ that even the few tell.

    Where it is known how long fixed work took beside each launch, and a line through seven occasions or more shows that
    the measurement goes with it, launches are judged as if all machines had been equally fast. How little is known of
    that line is in the noise: the more, the further the machine is from the occasions' middle. What passes by it alone
    must be shown to be within the tolerance. Without such a line, or far beyond its ends, nothing passes or is
    regressed by it. But what is regressed no further than the machine may explain is inconclusive, what is improved no
    further passes, and what would be regressed if it had gained from a faster machine all that fixed work did is
    inconclusive.

    Args:
        observed: Values of the launches that are judged, above 0, one per process, made on one occasion.
        pool: Values of earlier launches, above 0, one per process: those of each occasion.
        tolerance: Allowed change as a share; 0.05 is 5 %.
        is_lower_better: True for times and sizes, False for throughput.
        alpha: One-sided error rate.
        is_last: Whether no more launches will come: before, only what is shown to be within the tolerance passes, and
            three launches at least are regressed or improved.
        works: How long fixed work took beside each of them, in the same order.

    Raises:
        ValueError: There is no launch or no pool, a value is not a finite number above 0, or launches have no time of
            fixed work.

    Source: prediction interval for the mean of future observations of a normal sample (Hahn and Meeker, 1991), of
    occasions and launches by the one-way random model, each part with a quantile of its own (modified large samples;
    Graybill and Wang, 1980); what is shown to be within is the one-sided test of non-inferiority (Schuirmann, 1987).
    """
    _check(observed, pool, works)
    # More is slower: of a rate the log is turned around.
    sign = 1 if is_lower_better else -1
    ours = _take_logs(observed, sign)
    occasions = [_take_logs(occasion, sign) for occasion in pool if occasion]
    question = _Question(math.log1p(tolerance), alpha, is_last)
    answer = question.answer(ours, _find_units(occasions))
    comparison = Comparison(
        verdict=answer.verdict,
        baseline=math.exp(sign * answer.center),
        change=math.expm1(sign * answer.worse),
        noise=answer.noise_share,
        num_launches=sum(map(len, occasions)),
        num_observed=len(ours),
        num_occasions=len(occasions),
    )
    if works is None:
        return comparison
    our_works, work_occasions = _take_logs(works.observed), [*map(_take_logs, filter(None, works.pool))]
    machine = statistics.fmean(our_works) - _find_center(_find_units(work_occasions))
    comparison = replace(comparison, machine_change=math.expm1(machine))
    line = draw_line([*map(statistics.fmean, work_occasions)], [*map(statistics.fmean, occasions)])
    if line is None or not line.reaches(our_works):
        verdict, role = question.doubt_by_machine(answer, machine)
        net_change = math.expm1(sign * (answer.worse - machine))
        return replace(comparison, verdict=verdict, net_change=net_change, machine_role=role)
    net = question.answer(
        line.level(ours, our_works),
        [*map(line.level, occasions, work_occasions)],
        line.find_leverage(our_works),
    )
    is_shown = net.verdict is not Verdict.PASS or answer.verdict is Verdict.PASS or net.is_shown_within
    return replace(
        comparison,
        verdict=net.verdict if is_shown else Verdict.INCONCLUSIVE,
        noise=net.noise_share,
        net_change=math.expm1(sign * net.worse),
        machine_role=MachineRole.DECIDED,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a question came to; logs, more of which is slower."""

    verdict: Verdict
    center: float
    worse: float
    noise: float
    is_shown_within: bool

    @property
    def noise_share(self) -> float:
        return math.expm1(min(self.noise, MAX_LOG)) if math.isfinite(self.noise) else self.noise


@dataclass(frozen=True, slots=True)
class _Question:
    """Are launches slower than those of a pool by more than is allowed, on the log scale?"""

    allowed: float
    alpha: float
    is_last: bool

    def answer(
        self, ours: Sequence[float], units: Sequence[Sequence[float]], leverage: float | None = None
    ) -> _Answer:
        """By the logs of our launches, and of those of each unit of the pool: an occasion, or a launch.

        Args:
            ours: Logs of our launches.
            units: Those of the pool's.
            leverage: What not knowing the line adds, where both have been levelled by one through the units.
        """
        logs = [log for unit in units for log in unit]
        center = _find_center(units)
        worse = statistics.fmean(ours) - center
        has_enough = len(logs) >= MIN_LAUNCHES
        noise = _measure_noise(ours, units, self.alpha, leverage) if has_enough else math.inf
        doubt = _measure_doubt(ours, logs, leverage) if len(logs) >= MIN_TELLING else math.inf
        is_shown_within = worse + doubt <= self.allowed + ROUNDING
        verdict = self.decide(worse, noise)
        if not has_enough:
            verdict = Verdict.PASS if is_shown_within else Verdict.INCONCLUSIVE
        elif not self.is_last and (
            not is_shown_within if verdict is Verdict.PASS else len(ours) < MIN_TELLING
        ):
            verdict = Verdict.INCONCLUSIVE
        return _Answer(verdict, center, worse, noise, is_shown_within)

    def doubt_by_machine(self, answer: _Answer, machine: float) -> tuple[Verdict, MachineRole]:
        """The verdict where the log of the time of fixed work differs by so much, and what that did to it."""
        explained = self.decide(answer.worse - EXCUSING_EXPONENT * machine, answer.noise)
        if answer.verdict is Verdict.REGRESSED and explained is not Verdict.REGRESSED:
            return Verdict.INCONCLUSIVE, MachineRole.EXCUSED
        is_good = answer.verdict in (Verdict.PASS, Verdict.IMPROVED)
        if is_good and self.decide(answer.worse - machine, answer.noise) is Verdict.REGRESSED:
            return Verdict.INCONCLUSIVE, MachineRole.HID
        if answer.verdict is Verdict.IMPROVED and explained is not Verdict.IMPROVED:
            return Verdict.PASS, MachineRole.EXCUSED
        return answer.verdict, MachineRole.TOLD

    def decide(self, worse: float, noise: float) -> Verdict:
        """What so much slower comes to, where launches of unchanged code stay under the noise."""
        if math.isinf(noise):
            return Verdict.INCONCLUSIVE
        if worse > self.allowed + ROUNDING:
            return Verdict.REGRESSED if worse > noise else Verdict.INCONCLUSIVE
        if worse < -self.allowed - ROUNDING:
            return Verdict.IMPROVED if -worse > noise else Verdict.PASS
        return Verdict.PASS


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


def _check(observed: Sequence[float], pool: Sequence[Sequence[float]], works: FixedWorkTimes | None) -> None:
    values = [value for occasion in (observed, *pool) for value in occasion]
    if not observed or len(values) == len(observed) or not all(0 < value < math.inf for value in values):
        raise ValueError("a comparison needs launches and a pool, and finite values above 0")
    if works is None:
        return
    if [*map(len, (works.observed, *works.pool))] != [*map(len, (observed, *pool))]:
        raise ValueError("every launch needs a time of fixed work, or none")
    if not all(0 < time_s < math.inf for times_s in (works.observed, *works.pool) for time_s in times_s):
        raise ValueError("times of fixed work must be finite and above 0")


def _take_logs(values: Sequence[float], sign: int = 1) -> list[float]:
    return [sign * math.log(value) for value in values]


def _find_units(occasions: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """What is one observation each: occasions, or launches where there are fewer than tell how occasions differ."""
    if len(occasions) >= MIN_OCCASIONS:
        return occasions
    return [[log] for occasion in occasions for log in occasion]


def _find_center(units: Sequence[Sequence[float]]) -> float:
    return statistics.fmean(map(statistics.fmean, units))


def _measure_noise(
    ours: Sequence[float], units: Sequence[Sequence[float]], alpha: float, leverage: float | None
) -> float:
    """What the mean of ours may differ by from that of the units: by how these differ, and what we have less."""
    num = len(units)
    num_drawn = 1 if leverage is None else 2
    means = [statistics.fmean(logs) for logs in units]
    freedom = sum(map(len, units)) - num
    squares = sum((log - mean) ** 2 for logs, mean in zip(units, means, strict=True) for log in logs)
    within = max(squares / freedom if freedom else 0.0, _measure_spread(ours) ** 2)
    typical_size = statistics.harmonic_mean([len(logs) for logs in units])
    variance = statistics.variance(means) * (num - 1) / (num - num_drawn)
    between = max(variance, within / typical_size) * (1 + 1 / num + (leverage or 0.0))
    noise = _find_quantile(alpha, num - num_drawn) * math.sqrt(between)
    # An occasion of the pool that has one launch lacks nothing that ours have.
    if (missing := within * (1 / len(ours) - 1 / typical_size)) > 0:
        noise = math.hypot(noise, _find_quantile(alpha, freedom) * math.sqrt(missing))
    return noise


def _measure_doubt(ours: Sequence[float], logs: Sequence[float], leverage: float | None) -> float:
    """What the true change may be above the one that is seen, if all launches are independent."""
    spread = max(statistics.stdev(logs), _measure_spread(ours))
    share = 1 / len(ours) + 1 / len(logs) + (leverage or 0.0)
    return _find_quantile(PASS_ALPHA, len(logs) - 1) * spread * math.sqrt(share)


def _measure_spread(ours: Sequence[float]) -> float:
    """The standard deviation of the launches that are judged, where they are enough to have one."""
    return statistics.stdev(ours) if len(ours) >= MIN_TELLING else 0.0


def _find_quantile(alpha: float, freedom: float) -> float:
    from scipy import special  # noqa: PLC0415  imported late

    return float(special.stdtrit(freedom, 1 - alpha))
