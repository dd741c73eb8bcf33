"""The statistics and drawings hold for any numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from harness.budgets.gate import MIN_LAUNCHES, compare_quality, compare_with_pool
from harness.budgets.verdicts import Verdict
from harness.report.curve import draw_curve, draw_sparkline
from harness.rules.diagnosis import diagnose
from harness.rules.trend import measure_trend

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

TIMES = st.floats(1e-6, 1e6)
OCCASION = st.lists(TIMES, min_size=1, max_size=6)
# Of one occasion, or of several.
POOLS = st.lists(TIMES, min_size=5, max_size=30).map(lambda pool: [pool]) | st.lists(
    OCCASION, min_size=5, max_size=8
)
TOLERANCES = st.floats(0, 10)
LOSSES = st.floats(-1e30, 1e30)
GOODNESS = {Verdict.IMPROVED: 0, Verdict.PASS: 1, Verdict.INCONCLUSIVE: 2, Verdict.REGRESSED: 3}


def judge(
    observed: float, pool: list[list[float]], tolerance: float, *, is_lower_better: bool = True
) -> Verdict:
    return compare_with_pool([observed], pool, tolerance=tolerance, is_lower_better=is_lower_better).verdict


@given(pool=POOLS, tolerance=TOLERANCES, observed=st.tuples(TIMES, TIMES))
def test_a_larger_time_never_gets_a_better_verdict(
    pool: list[list[float]], tolerance: float, observed: tuple[float, float]
) -> None:
    smaller, larger = sorted(observed)
    assert GOODNESS[judge(smaller, pool, tolerance)] <= GOODNESS[judge(larger, pool, tolerance)]


@given(pool=POOLS, observed=TIMES, tolerances=st.tuples(TOLERANCES, TOLERANCES))
def test_a_larger_tolerance_never_turns_a_pass_into_a_failure(
    pool: list[list[float]], observed: float, tolerances: tuple[float, float]
) -> None:
    strict, lax = sorted(tolerances)
    if judge(observed, pool, strict) is Verdict.PASS:
        assert judge(observed, pool, lax) is Verdict.PASS
    if judge(observed, pool, lax) is Verdict.REGRESSED:
        assert judge(observed, pool, strict) is Verdict.REGRESSED


@given(
    exponents=st.lists(st.lists(st.integers(-20, 20), min_size=1, max_size=6), min_size=1, max_size=8).filter(
        lambda occasions: sum(map(len, occasions)) >= MIN_LAUNCHES
    ),
    observed=st.integers(-20, 20),
    tolerance=TOLERANCES,
)
def test_a_time_and_its_reciprocal_rate_are_judged_alike(
    exponents: list[list[int]], observed: int, tolerance: float
) -> None:
    # Powers of two, whose reciprocals are exact.
    as_time = judge(2.0**observed, [[2.0**number for number in one] for one in exponents], tolerance)
    rates = [[2.0**-number for number in one] for one in exponents]
    as_rate = judge(2.0**-observed, rates, tolerance, is_lower_better=False)
    assert as_time is as_rate


@given(
    value=TIMES,
    sizes=st.lists(st.integers(5, 9), min_size=1, max_size=7),
    tolerance=TOLERANCES,
    is_lower_better=st.booleans(),
)
def test_an_unchanged_value_passes(
    value: float, sizes: list[int], tolerance: float, *, is_lower_better: bool
) -> None:
    pool = [[value] * size for size in sizes]
    assert judge(value, pool, tolerance, is_lower_better=is_lower_better) is Verdict.PASS


@given(value=LOSSES, num_launches=st.integers(1, 30), tolerance=TOLERANCES)
def test_an_unchanged_loss_passes(value: float, num_launches: int, tolerance: float) -> None:
    assert compare_quality(value, [value] * num_launches, tolerance=tolerance).verdict is Verdict.PASS


@given(values=st.lists(LOSSES, min_size=6, max_size=25))
def test_any_finite_series_has_a_trend_and_never_contradicts_itself(values: list[float]) -> None:
    trend = measure_trend(values)
    assert 0 <= trend.p_fall <= 1
    assert 0 <= trend.p_rise <= 1
    assert trend.is_falling + trend.is_level() <= 1
    assert trend.is_falling + trend.is_rising() <= 1
    assert not math.isnan(trend.drop)


@given(values=st.lists(LOSSES, min_size=6, max_size=25, unique=True))
def test_a_strictly_falling_series_falls(values: list[float]) -> None:
    assert measure_trend(sorted(values, reverse=True)).is_falling


@given(points=st.lists(st.tuples(st.integers(), st.floats()), max_size=200), width=st.integers(1, 80))
def test_any_points_can_be_drawn(points: list[tuple[int, float]], width: int) -> None:
    drawn = draw_curve(points, width=width)
    assert bool(drawn) == bool(points)
    assert len(draw_sparkline([value for _, value in points], width=width)) == min(width, len(points))


@given(losses=st.lists(st.floats(), max_size=30))
def test_any_run_can_be_diagnosed(make_run: Callable[..., TrainingRun], losses: list[float]) -> None:
    diagnosis = diagnose(make_run(losses))
    is_broken = any(not math.isfinite(loss) for loss in losses)
    assert is_broken == any(finding.code == "T201" for finding in diagnosis.findings)
