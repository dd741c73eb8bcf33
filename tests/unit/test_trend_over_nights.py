from __future__ import annotations

import itertools
import math
import random
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from harness.budgets.nights import Night, Sample, gather_nights
from harness.budgets.onset import Shape, find_onset
from harness.budgets.trend import (
    ANCHOR_NIGHTS,
    TrendVerdict,
    find_threshold,
    judge_trend,
    sum_up,
)
from harness.budgets.whitening import CORRELATION, Whitening

if TYPE_CHECKING:
    from collections.abc import Callable

START = 40


def make_nights(
    shift: Callable[[int], float] = lambda _: 0.0, *, num: int = 50, cv: float = 0.01, seed: int = 1
) -> list[Night]:
    noise = random.Random(seed)
    return [
        Night(
            (date(2026, 1, 1) + timedelta(number)).isoformat(),
            f"{number:040x}",
            math.log(0.03) + noise.gauss(0, cv) + shift(number),
        )
        for number in range(num)
    ]


def creep(number: int) -> float:
    return 0.01 * max(0, number - START + 1)


def step(number: int) -> float:
    return 0.06 * (number >= START)


def test_launches_of_one_commit_on_one_day_are_one_night_and_its_value_their_geometric_mean() -> None:
    samples = [
        Sample("2026-01-02T03:00:00+00:00", "b", 4.0),
        Sample("2026-01-01T03:00:00+00:00", "a", 1.0),
        Sample("2026-01-01T03:05:00+00:00", "a", 4.0),
        Sample("2026-01-01T03:06:00+00:00", "c", 8.0),
        Sample("2026-01-01T03:07:00+00:00", "a", math.nan),
        Sample("2026-01-01T03:08:00+00:00", "a", 0.0),
    ]
    nights = gather_nights(samples)
    assert [(night.date, night.commit, night.num_launches) for night in nights] == [
        ("2026-01-01", "a", 2),
        ("2026-01-01", "c", 1),
        ("2026-01-02", "b", 1),
    ]
    assert nights[0].value == pytest.approx(2.0)
    assert nights[0].squares == pytest.approx(2 * math.log(2) ** 2)


def test_a_flat_history_is_steady() -> None:
    trend = judge_trend(make_nights(num=120))
    assert trend.verdict is TrendVerdict.STEADY
    assert trend.first_alarm is None
    assert trend.level == pytest.approx(0.03, rel=0.01)
    assert trend.noise == pytest.approx(0.01, rel=0.5)


def test_a_creep_is_found_with_its_first_night_rate_and_size() -> None:
    trend = judge_trend(make_nights(creep))
    assert trend.verdict is TrendVerdict.CREEPING
    assert trend.is_failing
    assert trend.onset is not None
    assert trend.onset.earliest <= START <= trend.onset.latest
    assert trend.onset.per_night == pytest.approx(0.01, rel=0.3)
    assert abs(trend.onset.change - 0.1) <= trend.onset.half_width
    assert trend.first_alarm is not None
    assert START < trend.first_alarm <= START + 6


def test_a_step_is_found_with_its_night_and_size() -> None:
    trend = judge_trend(make_nights(step))
    assert trend.verdict is TrendVerdict.STEPPED
    assert trend.onset is not None
    assert trend.onset.index == START
    assert abs(trend.onset.change - 0.06) <= trend.onset.half_width


def test_a_rolling_baseline_would_follow_what_the_pinned_anchor_sees() -> None:
    def slow(number: int) -> float:
        return 0.002 * max(0, number - START + 1)

    nights = make_nights(slow, num=START + 30)
    assert max(later.log - night.log for night, later in itertools.pairwise(nights)) < 0.05
    assert judge_trend(nights).verdict is TrendVerdict.CREEPING


def test_an_improvement_never_fails() -> None:
    trend = judge_trend(make_nights(lambda number: -step(number)))
    assert trend.verdict is TrendVerdict.IMPROVED
    assert not trend.is_failing
    assert trend.onset is not None
    assert trend.onset.change < 0


def test_a_throughput_that_falls_gets_worse() -> None:
    nights = make_nights(lambda number: -step(number))
    assert judge_trend(nights, is_lower_better=False).verdict is TrendVerdict.STEPPED
    assert judge_trend(make_nights(step), is_lower_better=False).verdict is TrendVerdict.IMPROVED


@pytest.mark.parametrize(("num", "missing"), [(0, 31), (5, 26), (30, 1)])
def test_a_short_history_is_not_judged_and_says_how_much_is_missing(num: int, missing: int) -> None:
    trend = judge_trend(make_nights(step, num=num))
    assert trend.verdict is TrendVerdict.TOO_FEW
    assert trend.num_missing == missing
    assert not trend.is_failing


def test_one_night_far_off_is_no_alarm() -> None:
    trend = judge_trend(make_nights(lambda number: 0.04 * (number == START)))
    assert trend.verdict is TrendVerdict.STEADY


def test_a_night_of_few_launches_counts_less_than_the_anchors() -> None:
    nights = [
        Night(f"2026-01-{number:02d}", str(number), 0.006 * (number % 2), 20, 19 * 0.03**2)
        for number in range(ANCHOR_NIGHTS)
    ]
    far = [Night("2026-02-01", "x", 0.03, num, 0.0) for num in (20, 1)]
    whole, single = (judge_trend([*nights, night]).cusum[0] for night in far)
    assert whole > 2 * single > 0


def test_a_repaired_regression_is_over_and_a_new_one_is_dated_by_itself() -> None:
    def shift(number: int) -> float:
        return 0.06 * (34 <= number < 40 or number >= 60)

    nights = make_nights(shift, num=66)
    repaired = judge_trend(nights[:54])
    assert repaired.verdict is TrendVerdict.STEADY
    assert repaired.first_alarm is not None
    again = judge_trend(nights)
    assert again.onset is not None
    assert again.onset.index == 60


def test_changes_below_one_percent_are_no_alarm_however_quiet_the_anchor() -> None:
    nights = make_nights(lambda number: 0.005 * (number >= START), cv=0.00001)
    assert judge_trend(nights).verdict is TrendVerdict.STEADY


def test_a_pinned_day_moves_the_anchor() -> None:
    nights = make_nights(step, num=80)
    pinned = judge_trend(nights, pinned=nights[START].date)
    assert pinned.verdict is TrendVerdict.STEADY
    assert pinned.anchor == (START, START + ANCHOR_NIGHTS)
    assert judge_trend(nights, pinned="2027-01-01").verdict is TrendVerdict.TOO_FEW


def test_an_anchor_that_rises_itself_is_told() -> None:
    assert judge_trend(make_nights(lambda number: 0.01 * number)).is_anchor_rising
    assert not judge_trend(make_nights()).is_anchor_rising
    assert not judge_trend(make_nights(cv=0.0)).is_anchor_rising


def test_the_threshold_grows_with_the_histories_and_with_a_shorter_anchor() -> None:
    assert find_threshold(10) > find_threshold(20) > find_threshold(40) > 3
    assert find_threshold(20, 10) > find_threshold(20, 2) > find_threshold(20)


def test_nights_that_are_alike_count_for_less_than_independent_ones() -> None:
    """Five nights in a row that lie 2 % off: a change, or a busy neighbour where launches of a night are alike."""

    def judge(within: float) -> float:
        squares = 9 * within**2
        nights = [
            Night(night.date, night.commit, night.log, 10, squares)
            for night in make_nights(lambda number: 0.02 * (number >= START), num=START + 5)
        ]
        return judge_trend(nights).cusum[-1]

    independent, alike = judge(0.03), judge(0.003)
    assert independent > find_threshold(ANCHOR_NIGHTS) > alike > 0


def test_one_night_is_no_alarm_however_bad() -> None:
    nights = make_nights(lambda number: 3.0 * (number == START), num=START + 1)
    assert judge_trend(nights).verdict is TrendVerdict.STEADY
    assert judge_trend([*nights, nights[-1], nights[-1]]).verdict is TrendVerdict.STEPPED


def test_most_creeps_of_a_noise_a_night_are_found_within_five_nights_and_flat_histories_are_quiet() -> None:
    """Nights whose means differ by 0.7 % and by nothing in common, as those of several launches do."""
    histories = [
        [
            Night(night.date, night.commit, night.log, 4, 3 * 0.014**2)
            for night in make_nights(shift, cv=0.007, num=num, seed=seed)
        ]
        for shift, num in ((creep, START + 5), (lambda _: 0.0, START + 60))
        for seed in range(30)
    ]
    alarms = [judge_trend(nights).first_alarm for nights in histories]
    assert sum(night is not None and night >= START for night in alarms[:30]) >= 27
    assert alarms[30:] == [None] * 30


def test_an_anchor_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="10 nights"):
        judge_trend(make_nights(), num_anchor=9)


def test_the_cusum_is_the_largest_sum_over_its_standard_deviation_since_any_night() -> None:
    """Independent nights: two in a row at d, of a noise s, sum up to 2 d / (s sqrt(2 + 4 / K))."""
    anchor = [Night("2026-01-01", None, 0.01 * (-1) ** number, 2, 1.0) for number in range(30)]
    judged = [Night("2026-02-01", None, log, 2, 1.0) for log in (-0.01, 0.02, 0.02)]
    (before, first, second), falls = sum_up([*anchor, *judged], 30)
    noise = 0.01 * math.sqrt(30 / 29)
    assert before == 0
    assert falls[1:] == (0, 0)
    assert first == 0  # the newest two nights lie but half a standard deviation off
    assert second == pytest.approx(0.04 / noise / math.sqrt(2 + 4 / 30))


def test_whitening_leaves_independent_nights_and_takes_out_what_alike_ones_forecast() -> None:
    assert Whitening(0.0, [1.0] * 3).whiten([1.0, -2.0, 3.0]) == [1.0, -2.0, 3.0]
    width = math.sqrt(1 - CORRELATION**2)
    alike = Whitening(1.0, [0.0] * 3).whiten([1.0, 2.0, 1.0])
    assert alike == pytest.approx([1.0, 1.5 / width, 0.0])


def test_the_onset_of_a_clean_step_and_a_clean_creep_is_exact() -> None:
    flat = [0.0] * 5
    clean_step = find_onset([*flat, 1.0, 1.0, 1.0], level=0.0, noise=0.01, num_anchor=20)
    assert (clean_step.shape, clean_step.index) == (Shape.STEP, 5)
    assert clean_step.change == pytest.approx(1.0)
    clean_creep = find_onset([*flat, 0.1, 0.2, 0.3, 0.4], level=0.0, noise=0.01, num_anchor=20)
    assert (clean_creep.shape, clean_creep.index) == (Shape.CREEP, 5)
    assert clean_creep.per_night == pytest.approx(0.1)
    assert clean_creep.change == pytest.approx(0.4)


def test_an_onset_needs_a_night() -> None:
    with pytest.raises(ValueError, match="a night"):
        find_onset([], level=0.0, noise=0.01, num_anchor=20)
