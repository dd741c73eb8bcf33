from __future__ import annotations

from itertools import pairwise

import pytest

from reference_model.schedule import lr_factor


def factors(num_steps: int, warmup_fraction: float, min_ratio: float) -> list[float]:
    return [
        lr_factor(step, num_steps=num_steps, warmup_fraction=warmup_fraction, min_ratio=min_ratio)
        for step in range(num_steps + 1)
    ]


def test_warm_up_rises_in_equal_steps_to_one() -> None:
    assert factors(40, 0.1, 0.1)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_after_the_warm_up_it_falls_to_the_least_ratio() -> None:
    after = factors(40, 0.1, 0.1)[4:]
    assert after[0] == 1.0
    assert all(later < earlier for earlier, later in pairwise(after))
    assert after[-1] == pytest.approx(0.1)


def test_half_way_it_is_half_way() -> None:
    assert factors(100, 0.0, 0.2)[50] == pytest.approx(0.6)


def test_past_the_end_it_stays_at_the_least_ratio() -> None:
    assert lr_factor(99, num_steps=10, warmup_fraction=0.1, min_ratio=0.05) == pytest.approx(0.05)


@pytest.mark.parametrize("warmup_fraction", [0.0, 1.0])
def test_all_or_no_warm_up_stays_within_bounds(warmup_fraction: float) -> None:
    assert all(0.0 < factor <= 1.0 for factor in factors(5, warmup_fraction, 0.1))
