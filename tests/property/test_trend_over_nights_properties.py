from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from harness.budgets.nights import Night, Sample, gather_nights
from harness.budgets.onset import find_onset
from harness.budgets.trend import ANCHOR_NIGHTS, MAX_SURPRISE, WINDOW, judge_trend

LOGS = st.lists(st.floats(-1, 1), min_size=ANCHOR_NIGHTS + 1, max_size=55)


def make_nights(logs: list[float]) -> list[Night]:
    return [Night(f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}", str(i), log) for i, log in enumerate(logs)]


@given(LOGS)
def test_every_history_gets_a_verdict_with_its_parts_in_order(logs: list[float]) -> None:
    trend = judge_trend(make_nights(logs))
    assert len(trend.cusum) == len(logs) - ANCHOR_NIGHTS
    assert all(0 <= g <= MAX_SURPRISE * WINDOW for g in trend.cusum)
    if trend.onset is not None:
        assert ANCHOR_NIGHTS <= trend.onset.earliest <= trend.onset.index <= trend.onset.latest < len(logs)
        assert (trend.onset.change > 0) == trend.is_failing


@given(LOGS, st.floats(-5, 5))
def test_the_unit_of_the_metric_changes_no_verdict(logs: list[float], shift: float) -> None:
    rounded = [round(log, 3) for log in logs]
    trend = judge_trend(make_nights(rounded))
    moved = judge_trend(make_nights([log + shift for log in rounded]))
    assert all(abs(a - b) < 1e-6 for a, b in zip(trend.cusum, moved.cusum, strict=True))


@given(LOGS)
def test_mirrored_values_of_a_metric_that_should_be_high_give_the_same_verdict(logs: list[float]) -> None:
    trend = judge_trend(make_nights(logs))
    mirrored = judge_trend(make_nights([-log for log in logs]), is_lower_better=False)
    assert (trend.verdict, trend.first_alarm) == (mirrored.verdict, mirrored.first_alarm)


@given(st.integers(0, 2**32), st.integers(2, 20), st.floats(0.05, 1.0))
def test_the_night_of_a_plain_step_lies_in_its_interval(seed: int, start: int, height: float) -> None:
    noise = random.Random(seed)
    logs = [noise.gauss(0, 0.005) + height * (night >= start) for night in range(start + 8)]
    onset = find_onset(logs, level=0.0, noise=0.005, num_anchor=20)
    assert onset.index == start
    assert onset.earliest <= start <= onset.latest


@given(
    st.lists(
        st.tuples(st.integers(1, 28), st.sampled_from("abc"), st.floats(0.001, 1000)), min_size=1, max_size=60
    )
)
def test_no_launch_is_lost_or_counted_twice(rows: list[tuple[int, str, float]]) -> None:
    samples = [Sample(f"2026-01-{day:02d}T00:00:00+00:00", commit, value) for day, commit, value in rows]
    nights = gather_nights(samples)
    assert sum(night.num_launches for night in nights) == len(samples)
    assert len({(night.date, night.commit) for night in nights}) == len(nights)
    total = sum(night.log * night.num_launches for night in nights)
    assert math.isclose(total, sum(math.log(sample.value) for sample in samples), abs_tol=1e-6)
