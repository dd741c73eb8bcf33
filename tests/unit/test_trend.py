from __future__ import annotations

import math
import random

import pytest

from harness.rules.trend import MIN_VALUES, measure_trend

NUM_SEEDS = 300


def add_noise(values: list[float], size: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [value + generator.gauss(0, size) for value in values]


@pytest.mark.parametrize("num_values", [8, 20, 60])
def test_flat_noise_is_called_falling_or_rising_at_most_about_once_in_a_hundred(num_values: int) -> None:
    trends = [measure_trend(add_noise([2.3] * num_values, 0.1, seed)) for seed in range(NUM_SEEDS)]
    assert sum(trend.is_falling for trend in trends) <= 0.02 * NUM_SEEDS
    assert sum(trend.is_rising() for trend in trends) <= 0.02 * NUM_SEEDS


def test_a_falling_series_is_hardly_ever_called_level_or_rising() -> None:
    fall = [2.0 - 0.01 * step for step in range(20)]
    trends = [measure_trend(add_noise(fall, 0.1, seed)) for seed in range(NUM_SEEDS)]
    assert sum(trend.is_level() or trend.is_rising() for trend in trends) <= 0.01 * NUM_SEEDS


@pytest.mark.parametrize(
    "values",
    [
        [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
        [3 * 0.95**step for step in range(30)],
        [1 / (1 + step) for step in range(100)],
        [-float(step) for step in range(10)],
        [4.0, 3.5, 3.0, 2.0, 1.5, *[1.0] * 25],
        [3.0, 2.9, 2.8, 2.7, 99.0, 2.5, 2.4, 2.3, 2.2, 2.1, 2.0],
    ],
    ids=["six", "exponential", "hyperbola", "below-zero", "fast-then-flat", "outlier"],
)
def test_a_clean_fall_is_seen(values: list[float]) -> None:
    trend = measure_trend(values)
    assert trend.is_falling
    assert not trend.is_level()
    assert not trend.is_rising()


@pytest.mark.parametrize("seed", range(20))
def test_a_fast_fall_under_a_noisy_floor_is_seen(seed: int) -> None:
    assert measure_trend(add_noise([4.0, 3.4, 2.8, 2.2, 1.6, *[1.0] * 25], 0.1, seed)).is_falling


def test_a_rise_is_told_from_a_level() -> None:
    rising = measure_trend([1.0 + 0.1 * step for step in range(12)])
    level = measure_trend([2.0] * 12)
    assert (rising.is_rising(), rising.is_falling) == (True, False)
    assert (level.is_level(), level.is_falling, level.is_rising()) == (True, False, False)


def test_a_short_noisy_series_is_neither_falling_nor_level() -> None:
    trend = measure_trend([2.0, 1.5, 2.2, 1.7, 1.9, 1.8])
    assert not trend.is_falling
    assert not trend.is_level()


def test_the_drop_is_a_share_of_the_start() -> None:
    assert measure_trend([4.0] * 6 + [3.0] * 6).drop == pytest.approx(0.25)
    assert measure_trend([-4.0] * 6 + [-5.0] * 6).drop == pytest.approx(0.25)
    assert measure_trend([0.0] * 6 + [-5.0] * 6).drop == pytest.approx(5.0)


def test_too_few_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 values, got 5"):
        measure_trend([1.0] * (MIN_VALUES - 1))


@pytest.mark.parametrize("size", [1e-300, 1e-90, 1e38, 1e300])
def test_the_size_of_the_numbers_does_not_matter(size: float) -> None:
    trend = measure_trend([size * value for value in (6, 5.5, 5, 4, 4.5, 3, 2, 1.5, 1)])
    assert trend.is_falling
    assert math.isfinite(trend.max_drop)
