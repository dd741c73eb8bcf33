"""One number from one process of each program: step against step, without the warm-up."""

from __future__ import annotations

import math

import pytest

from harness.budgets.launch_pair import build_launch_pair, find_middle_mean
from harness.record.step_observation import StepObservation
from harness.record.warm_up import find_warm_up

TURNS = [range(number, number + 1) for number in range(1, 41)]


def make_steps(times_s: list[float], *, first: int = 0) -> list[StepObservation]:
    return [
        StepObservation(
            step=first + number,
            time_s=time_s,
            phase_times_s={"forward": time_s / 2, "backward": time_s / 2},
        )
        for number, time_s in enumerate(times_s)
    ]


def test_steps_of_unlike_length_are_compared_with_their_own_kind() -> None:
    base_s = [0.01 * (1 + number % 7) for number in range(41)]
    pair = build_launch_pair(make_steps(base_s), make_steps([time_s * 1.1 for time_s in base_s]), TURNS)
    assert pair is not None
    assert math.expm1(pair.log_ratio) == pytest.approx(0.1)
    assert pair.drift == pytest.approx(0.0, abs=1e-9)


def test_warm_up_of_either_is_left_out() -> None:
    base_s = [0.1] * 8 + [0.01] * 33
    pair = build_launch_pair(make_steps(base_s), make_steps([0.01] * 41), TURNS)
    assert pair is not None
    assert pair.num_warm_up == 7  # the step before the first turn was slow too
    assert pair.log_ratio == pytest.approx(0.0)


def test_the_first_step_of_a_long_turn_is_left_out() -> None:
    turns = [range(1, 11), range(11, 21)]
    head_s = [0.01] * 21
    head_s[1] = head_s[11] = 1.0
    pair = build_launch_pair(make_steps([0.01] * 21), make_steps(head_s), turns)
    assert pair is not None
    assert pair.num_steps == 18


def test_growth_tells_the_phase() -> None:
    base, head = make_steps([0.01] * 41), make_steps([0.01] * 41)
    for step in head:
        step.phase_times_s["backward"] += 0.002
        step.time_s = 0.012
    pair = build_launch_pair(base, head, TURNS)
    assert pair is not None
    assert pair.growth["backward"] == pytest.approx(0.2)
    assert pair.growth["forward"] == pytest.approx(0.0, abs=1e-9)


def test_too_few_common_steps_are_no_pair() -> None:
    assert build_launch_pair(make_steps([0.01] * 41), make_steps([0.01] * 5), TURNS) is None


def test_steps_that_were_not_timed_are_left_out() -> None:
    base = make_steps([0.01] * 41)
    for step in base[10:20]:
        step.time_s = None
    pair = build_launch_pair(base, make_steps([0.01] * 41), TURNS)
    assert pair is not None
    assert pair.num_steps == 30


@pytest.mark.parametrize(
    ("times_s", "num"),
    [
        ([1.0] * 20, 0),
        ([3.0, 2.0] + [1.0] * 20, 2),
        ([1.0, 1.1, 0.9] * 8, 0),
        ([float(number) for number in range(1, 21)], 0),
        ([], 0),
    ],
    ids=["steady", "two slow ones", "noise", "growing", "nothing"],
)
def test_warm_up_ends_with_the_first_steps_like_the_later_ones(times_s: list[float], num: int) -> None:
    assert find_warm_up(times_s) == num


def test_a_series_that_falls_to_the_end_is_mostly_warm_up() -> None:
    assert find_warm_up([float(number) for number in range(20, 0, -1)]) >= 5


def test_the_middle_mean_ignores_outliers_on_both_sides() -> None:
    assert find_middle_mean([1.0, 1.0, 2.0, 2.0, 100.0, -100.0]) == pytest.approx(1.5)
    assert find_middle_mean([3.0]) == 3.0
