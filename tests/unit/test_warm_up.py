"""Which steps of a run count, and whether they are steady."""

from __future__ import annotations

import random

import pytest

from harness.record.warm_up import find_steady_steps


def draw(num_steps: int, *, seed: int = 0, drift: float = 0.0) -> list[float]:
    generator = random.Random(seed)
    return [
        0.01 * (1 + drift * number / num_steps) * (1 + abs(generator.gauss(0, 0.05)))
        for number in range(num_steps)
    ]


def test_a_fifth_of_the_steps_is_warm_up_at_least() -> None:
    assert find_steady_steps([1.0] * 20).num_warm_up == 4
    assert find_steady_steps([1.0] * 2).num_warm_up == 1


def test_warm_up_lasts_as_long_as_steps_are_slower() -> None:
    found = find_steady_steps([3.0] * 12 + [1.0] * 28)
    assert found.num_warm_up == 12
    assert found.step_time_s == 1.0
    assert found.is_steady


@pytest.mark.parametrize(("num_steps", "step_time_s"), [(0, None), (1, None), (3, None), (4, 1.0), (5, 1.0)])
def test_a_step_time_takes_three_steps_after_the_warm_up(num_steps: int, step_time_s: float | None) -> None:
    assert find_steady_steps([1.0] * num_steps).step_time_s == step_time_s


def test_few_steps_with_a_slow_start_still_have_a_step_time() -> None:
    assert find_steady_steps([5.0, 4.0, 3.0, 2.0, 1.0]).step_time_s == 2.5


@pytest.mark.parametrize("drift", [1.5, -0.6])
def test_a_step_time_that_moves_along_the_run_is_not_steady(drift: float) -> None:
    found = find_steady_steps(draw(80, drift=drift))
    assert not found.is_steady
    assert abs(found.drift) > 0.25
    assert (found.drift > 0) == (drift > 0)


def test_noise_alone_is_steady() -> None:
    assert sum(not find_steady_steps(draw(40, seed=seed)).is_steady for seed in range(300)) == 0


def test_a_little_drift_does_not_matter_however_sure_it_is() -> None:
    times_s = [1.0 + 0.2 * number / 100 for number in range(100)]
    assert find_steady_steps(times_s).is_steady


def test_too_few_steps_are_not_called_unsteady() -> None:
    assert find_steady_steps([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]).is_steady
