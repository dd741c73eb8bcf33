from __future__ import annotations

import math
import random

import pytest

from harness.budgets.gate import MIN_LAUNCHES, compare_quality, compare_with_pool
from harness.budgets.verdicts import Verdict

POOL = [1.00, 1.01, 0.99, 1.02, 0.98, 1.00, 1.01, 0.99, 1.00, 1.00]
EVEN = [2.0] * MIN_LAUNCHES


def judge(
    observed: float, pool: list[float], *, tolerance: float = 0.05, is_lower_better: bool = True
) -> Verdict:
    return compare_with_pool([observed], [pool], tolerance=tolerance, is_lower_better=is_lower_better).verdict


@pytest.mark.parametrize(
    ("observed", "tolerance", "verdict"),
    [
        (1.00, 0.05, Verdict.PASS),
        (1.049, 0.05, Verdict.PASS),
        (1.20, 0.05, Verdict.REGRESSED),
        (1.20, 0.25, Verdict.PASS),
        (1.03, 0.01, Verdict.INCONCLUSIVE),
        (0.97, 0.01, Verdict.PASS),
        (0.80, 0.05, Verdict.IMPROVED),
    ],
)
def test_a_time_fails_only_when_worse_by_more_than_the_tolerance_and_the_noise(
    observed: float, tolerance: float, verdict: Verdict
) -> None:
    assert judge(observed, POOL, tolerance=tolerance) is verdict


@pytest.mark.parametrize(("observed", "verdict"), [(0.80, Verdict.REGRESSED), (1.25, Verdict.IMPROVED)])
def test_throughput_is_worse_when_it_falls(observed: float, verdict: Verdict) -> None:
    assert judge(observed, POOL, is_lower_better=False) is verdict


@pytest.mark.parametrize("num_launches", range(1, MIN_LAUNCHES))
@pytest.mark.parametrize("observed", [1.0, 1.04, 100.0])
def test_fewer_than_five_launches_are_inconclusive(num_launches: int, observed: float) -> None:
    comparison = compare_with_pool([observed], [POOL[:num_launches]], tolerance=0.02, is_lower_better=True)
    assert comparison.verdict is Verdict.INCONCLUSIVE
    assert comparison.noise == math.inf
    assert comparison.num_launches == num_launches


@pytest.mark.parametrize(
    ("observed", "pool", "verdict"),
    [
        (1.00, [1.0, 1.001, 0.999], Verdict.PASS),
        (0.50, [1.0, 1.001, 0.999], Verdict.PASS),
        (1.04, [1.0, 1.001, 0.999, 1.0], Verdict.PASS),
        (1.049, [1.0, 1.001, 0.999], Verdict.INCONCLUSIVE),
        (1.20, [1.0, 1.001, 0.999, 1.0], Verdict.INCONCLUSIVE),
        (1.00, [1.0, 1.1, 0.9], Verdict.INCONCLUSIVE),
        (1.00, [1.0, 1.0], Verdict.INCONCLUSIVE),
    ],
)
def test_few_launches_pass_only_what_they_show_to_be_within_the_tolerance(
    observed: float, pool: list[float], verdict: Verdict
) -> None:
    assert judge(observed, pool) is verdict


@pytest.mark.parametrize("num_launches", [3, 4])
def test_few_launches_hardly_ever_pass_a_slowdown_of_the_tolerance(num_launches: int) -> None:
    passed = 0
    for seed in range(1000):
        generator = random.Random(seed)
        observed, *pool = (math.exp(generator.gauss(0, 0.02)) for _ in range(num_launches + 1))
        passed += judge(1.05 * observed, pool) is Verdict.PASS
    assert 20 <= passed <= 75


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, 7e-5, 123456789.123])
@pytest.mark.parametrize("is_lower_better", [True, False])
def test_an_unchanged_value_passes_a_pool_without_spread_at_tolerance_0(
    value: float, *, is_lower_better: bool
) -> None:
    assert judge(value, [value] * 7, tolerance=0, is_lower_better=is_lower_better) is Verdict.PASS
    assert compare_quality(value, [value] * 7, tolerance=0).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [
        (2.2, Verdict.PASS),
        (2.2001, Verdict.REGRESSED),
        (2 / 1.1, Verdict.PASS),
        (2 / 1.1001, Verdict.IMPROVED),
    ],
)
def test_the_tolerance_itself_still_passes(observed: float, verdict: Verdict) -> None:
    assert judge(observed, EVEN, tolerance=0.1) is verdict


def test_the_comparison_tells_baseline_change_and_noise() -> None:
    comparison = compare_with_pool([2.1], [POOL], tolerance=0.05, is_lower_better=True)
    assert comparison.baseline == pytest.approx(1.0, abs=1e-3)
    assert comparison.change == pytest.approx(1.1, abs=1e-3)
    assert 0.01 < comparison.noise < 0.1


def test_a_very_noisy_pool_tells_its_noise_as_a_number() -> None:
    comparison = compare_with_pool([5.0], [[1.0, 9.0] * 3], tolerance=0.05, is_lower_better=True)
    assert comparison.verdict is Verdict.INCONCLUSIVE
    assert 1.0 < comparison.noise < math.inf


def test_unchanged_launches_are_hardly_ever_called_regressed() -> None:
    alarms = 0
    for seed in range(400):
        generator = random.Random(seed)
        observed, *pool = (math.exp(generator.gauss(0, 0.03)) for _ in range(21))
        alarms += judge(observed, pool, tolerance=0) is Verdict.REGRESSED
    assert alarms <= 2


def test_a_slowdown_of_a_quarter_is_found_through_three_percent_noise() -> None:
    found = 0
    for seed in range(100):
        generator = random.Random(seed)
        observed, *pool = (math.exp(generator.gauss(0, 0.03)) for _ in range(21))
        found += judge(1.25 * observed, pool) is Verdict.REGRESSED
    assert found >= 95


@pytest.mark.parametrize(
    ("observed", "pool"),
    [(1.0, []), (0.0, POOL), (-1.0, POOL), (math.nan, POOL), (math.inf, POOL), (1.0, [0.0])],
)
def test_numbers_that_have_no_logarithm_are_refused(observed: float, pool: list[float]) -> None:
    with pytest.raises(ValueError, match="a comparison needs launches and a pool"):
        judge(observed, pool)


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [
        (2.0, Verdict.PASS),
        (2.2, Verdict.PASS),
        (2.21, Verdict.REGRESSED),
        (1.79, Verdict.IMPROVED),
        (math.nan, Verdict.REGRESSED),
        (math.inf, Verdict.REGRESSED),
        (-math.inf, Verdict.REGRESSED),
    ],
)
def test_a_loss_is_judged_by_its_tolerance_alone(observed: float, verdict: Verdict) -> None:
    assert compare_quality(observed, [2.0], tolerance=0.1).verdict is verdict


def test_a_negative_loss_is_worse_when_it_is_larger() -> None:
    assert compare_quality(-1.0, [-2.0], tolerance=0.1).verdict is Verdict.REGRESSED
    assert compare_quality(-3.0, [-2.0], tolerance=0.1).verdict is Verdict.IMPROVED


def test_a_loss_without_a_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="a comparison needs a pool"):
        compare_quality(1.0, [], tolerance=0.1)


# Five launches of 0.8 % noise on each of eight occasions that are alike, and on eight that differ by 2 %.
ALIKE = [[0.99, 1.00, 1.01, 0.995, 1.005]] * 8
DIFFERENT = [[value * factor for value in ALIKE[0]] for factor in (0.98, 1.0, 1.02, 0.99) * 2]


@pytest.mark.parametrize(
    ("pool", "verdicts"),
    [
        (ALIKE, [Verdict.INCONCLUSIVE, Verdict.REGRESSED]),
        ([[value] for occasion in ALIKE for value in occasion], [Verdict.INCONCLUSIVE] * 2),
        (ALIKE[:4], [Verdict.INCONCLUSIVE] * 2),
        ([[value for occasion in ALIKE for value in occasion]], [Verdict.INCONCLUSIVE] * 2),
        (DIFFERENT, [Verdict.INCONCLUSIVE] * 2),
    ],
)
def test_several_launches_see_what_one_does_not_where_occasions_are_shown_to_be_alike(
    pool: list[list[float]], verdicts: list[Verdict]
) -> None:
    assert [
        compare_with_pool([1.024] * number, pool, tolerance=0.02, is_lower_better=True).verdict
        for number in (1, 5)
    ] == verdicts


def test_occasions_count_alike_however_many_launches_they_have() -> None:
    pool = [[2.0] * 20, [1.0], [1.0], [1.0], [1.0]]
    comparison = compare_with_pool([1.0], pool, tolerance=0.05, is_lower_better=True)
    assert comparison.baseline == pytest.approx(2 ** (1 / 5))
    assert (comparison.num_launches, comparison.num_occasions) == (24, 5)


def test_occasions_without_launches_are_none() -> None:
    comparison = compare_with_pool([1.0], [POOL, [], [], [], []], tolerance=0.05, is_lower_better=True)
    assert comparison.num_occasions == 1


@pytest.mark.parametrize(("num_occasions", "size", "spread"), [(5, 8, 0.04), (10, 4, 0.04), (20, 1, 0.02)])
def test_a_machine_that_is_slower_at_times_is_called_a_regression_at_the_error_rate(
    num_occasions: int, size: int, spread: float
) -> None:
    looks = (1, 2, 3, 5, 8)
    regressed = 0
    for seed in range(1000):
        generator = random.Random(seed)
        pool, (ours,) = (
            [
                [math.exp(moment + generator.gauss(0, 0.02)) for _ in range(num)]
                for moment in [generator.gauss(0, spread) for _ in range(count)]
            ]
            for count, num in ((num_occasions, size), (1, looks[-1]))
        )
        regressed += any(
            compare_with_pool(
                ours[:look], pool, tolerance=0.0, is_lower_better=True, alpha=0.02, is_last=False
            ).verdict
            is Verdict.REGRESSED
            for look in looks
        )
    # Of 20, twice their standard deviation more.
    assert 5 <= regressed <= 29


def test_several_launches_narrow_the_noise_of_occasions_that_are_alike_and_never_widen_it() -> None:
    noises = [
        compare_with_pool([1.0] * number, ALIKE, tolerance=0.02, is_lower_better=True).noise
        for number in (1, 2, 3, 5, 8)
    ]
    assert noises == sorted(noises, reverse=True)
    assert noises[0] > 1.5 * noises[3]
    assert noises[3] == noises[4]


def test_launches_that_differ_more_than_those_of_an_occasion_widen_the_noise() -> None:
    even, uneven = (
        compare_with_pool(ours, ALIKE, tolerance=0.02, is_lower_better=True).noise
        for ours in ([1.0, 1.0, 1.0], [0.9, 1.0, 1.1])
    )
    assert uneven > 5 * even


def test_occasions_whose_means_are_equal_by_chance_still_differ_by_their_launches() -> None:
    comparison = compare_with_pool([1.0] * 5, ALIKE, tolerance=0.02, is_lower_better=True)
    assert comparison.noise > 0.01


@pytest.mark.parametrize(("value", "decided"), [(1.5, "regressed"), (0.5, "improved")])
def test_while_more_are_to_come_three_launches_at_least_are_regressed_or_improved(
    value: float, decided: str
) -> None:
    def judge_launches(number: int, *, is_last: bool) -> Verdict:
        return compare_with_pool(
            [value] * number, [POOL], tolerance=0.05, is_lower_better=True, is_last=is_last
        ).verdict

    early = [judge_launches(number, is_last=False) for number in (1, 2, 3)]
    assert early == ["inconclusive", "inconclusive", decided]
    assert judge_launches(1, is_last=True) == decided


def test_minutes_in_which_all_is_slower_are_no_regression_against_a_pool_of_other_minutes() -> None:
    pool = [1.0, 1.05, 0.95, 1.06, 0.94] * 4
    assert judge(1.15, pool) is Verdict.INCONCLUSIVE
    slow = compare_with_pool([1.15] * 8, [pool], tolerance=0.05, is_lower_better=True)
    assert slow.verdict is Verdict.INCONCLUSIVE


def test_launches_that_differ_more_than_the_pool_widen_the_noise() -> None:
    even = compare_with_pool([1.06, 1.06, 1.06], [POOL], tolerance=0.02, is_lower_better=True)
    uneven = compare_with_pool([0.9, 1.06, 1.22], [POOL], tolerance=0.02, is_lower_better=True)
    assert even.verdict is Verdict.REGRESSED
    assert uneven.verdict is Verdict.INCONCLUSIVE
    assert uneven.noise > 3 * even.noise


@pytest.mark.parametrize(
    ("observed", "before", "last"), [(1.0, "pass", "pass"), (1.045, "inconclusive", "pass")]
)
def test_before_the_last_look_only_what_is_shown_to_be_within_passes(
    observed: float, before: str, last: str
) -> None:
    verdicts = [
        compare_with_pool([observed], [POOL], tolerance=0.05, is_lower_better=True, is_last=is_last).verdict
        for is_last in (False, True)
    ]
    assert verdicts == [before, last]
