"""The machine's own speed: told by fixed work beside each launch, and taken out where a pool shows that it matters."""

from __future__ import annotations

import math
import random

import pytest

from harness.budgets.gate import Comparison, Verdict, compare_with_pool
from harness.budgets.machine import MIN_FREEDOM, FixedWorkTimes, find_effect

SPEEDS = [
    math.exp(0.03 * step) for step in (-2, 1, 0, 2, -1, 1, -2, 0, 2, -1, 0, 1, -1, 2, -2, 0, 1, -1, 2, -2)
]
"""How much longer a machine takes for everything, launch by launch."""
OWN = [math.exp(0.002 * (number % 3 - 1)) for number in range(20)]
"""What launches differ by besides."""
WORKS = [0.005 * speed for speed in SPEEDS]
TIMES = [2.0 * speed * own for speed, own in zip(SPEEDS, OWN, strict=True)]


def compare(
    observed: list[float], our_works: list[float] | None, *, works: list[float] = WORKS, rate: bool = False
) -> Comparison:
    pool = [1 / value for value in TIMES] if rate else TIMES
    return compare_with_pool(
        [1 / value for value in observed] if rate else observed,
        [pool],
        tolerance=0.05,
        is_lower_better=not rate,
        works=None if our_works is None else FixedWorkTimes(our_works, [works]),
    )


@pytest.mark.parametrize("rate", [False, True])
def test_launches_of_a_slow_machine_pass_where_fixed_work_was_as_slow(*, rate: bool) -> None:
    slow = [2.0 * 1.12] * 3
    assert compare(slow, None, rate=rate).verdict is Verdict.INCONCLUSIVE
    known = compare(slow, [0.005 * 1.12] * 3, rate=rate)
    assert known.verdict is Verdict.PASS
    assert known.change == pytest.approx(1 / 1.12 - 1 if rate else 0.12, abs=0.002)
    assert known.net_change == pytest.approx(0, abs=0.002)
    assert known.machine is not None
    assert known.machine.change == pytest.approx(0.12)
    assert known.machine.exponent == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("rate", [False, True])
def test_what_is_slower_on_an_equal_or_a_faster_machine_is_found_by_less(*, rate: bool) -> None:
    assert compare([2.0 * 1.08] * 3, None, rate=rate).verdict is Verdict.INCONCLUSIVE
    assert compare([2.0 * 1.08] * 3, [0.005] * 3, rate=rate).verdict is Verdict.REGRESSED
    # As long as before, on a machine that needs less for the same.
    assert compare([2.0] * 3, [0.005 / 1.1] * 3, rate=rate).verdict is Verdict.REGRESSED


def test_a_pool_that_does_not_go_with_fixed_work_is_judged_as_without_it() -> None:
    shuffled = random.Random(1).sample(WORKS, len(WORKS))
    unknown, known = compare([2.3] * 3, None), compare([2.3] * 3, [0.006] * 3, works=shuffled)
    assert (known.verdict, known.noise, known.net_change) == (unknown.verdict, unknown.noise, unknown.change)
    assert known.machine is not None
    assert known.machine.change == pytest.approx(0.2)
    assert not known.machine.is_taken_out


def test_the_further_the_machine_is_from_what_it_was_the_less_sure_it_is_what_it_does() -> None:
    noises = [compare([2.0 * speed] * 3, [0.005 * speed] * 3).noise for speed in (1.0, 1.2, 2.0, 5.0)]
    assert noises == sorted(noises)
    assert noises[-1] > 1.2 * noises[0]


LOGS = [math.log(work) for work in WORKS]


def test_few_launches_and_a_machine_that_never_differs_tell_nothing() -> None:
    fewest = MIN_FREEDOM + 2
    assert find_effect(0.1, [LOGS[:fewest]], [LOGS[:fewest]]).is_taken_out
    assert not find_effect(0.1, [LOGS[: fewest - 1]], [LOGS[: fewest - 1]]).is_taken_out
    assert not find_effect(0.1, [[0.5] * 20], [LOGS]).is_taken_out


def test_what_occasions_differ_by_is_no_sign_that_the_machine_matters() -> None:
    works = [[5.0 + number, 5.01 + number] * 2 for number in range(10)]
    assert not find_effect(0.1, works, [[float(number)] * 4 for number in range(10)]).is_taken_out
    assert find_effect(0.1, works, works).is_taken_out
    assert not find_effect(0.1, [[log] for log in LOGS], [[log] for log in LOGS]).is_taken_out


def test_a_measurement_that_goes_against_the_machine_or_beyond_it_is_noise() -> None:
    assert not find_effect(0.1, [LOGS], [[-log for log in LOGS]]).is_taken_out
    assert find_effect(0.1, [LOGS], [[3 * log for log in LOGS]]).exponent == 1
    assert find_effect(0.1, [LOGS], [[0.5 * log for log in LOGS]]).exponent == pytest.approx(0.5)


@pytest.mark.parametrize(
    "works",
    [
        FixedWorkTimes([1.0], [[1.0] * 20]),
        FixedWorkTimes([1.0] * 3, [[1.0] * 19]),
        FixedWorkTimes([1.0] * 3, [[1.0] * 10, [1.0] * 10]),
        FixedWorkTimes([1.0, 0.0, 1.0], [[1.0] * 20]),
        FixedWorkTimes([1.0] * 3, [[1.0] * 19 + [math.inf]]),
    ],
)
def test_every_launch_needs_a_time_of_fixed_work(works: FixedWorkTimes) -> None:
    with pytest.raises(ValueError, match="fixed work"):
        compare_with_pool([2.0] * 3, [TIMES], tolerance=0.05, is_lower_better=True, works=works)


@pytest.mark.parametrize(
    ("num_occasions", "size", "own"), [(1, 20, 0.0), (5, 8, 0.02), (10, 4, 0.02), (20, 1, 0.02)]
)
def test_unchanged_launches_are_called_regressed_at_the_error_rate(
    num_occasions: int, size: int, own: float
) -> None:
    """Occasions differ by the machine's speed, and by something that fixed work does not tell."""
    regressed = 0
    for seed in range(1000):
        generator = random.Random(seed)

        def draw(num: int, generator: random.Random = generator) -> tuple[list[float], list[float]]:
            speed, moment = generator.gauss(0, 0.05), generator.gauss(0, own)
            speeds = [speed + generator.gauss(0, 0.03) for _ in range(num)]
            times = [math.exp(0.8 * one + moment + generator.gauss(0, 0.02)) for one in speeds]
            return times, [math.exp(one + generator.gauss(0, 0.01)) for one in speeds]

        pool = [draw(size) for _ in range(num_occasions)]
        ours, our_works = draw(8)
        regressed += any(
            compare_with_pool(
                ours[:look],
                [times for times, _ in pool],
                tolerance=0.0,
                is_lower_better=True,
                alpha=0.02,
                is_last=False,
                works=FixedWorkTimes(our_works[:look], [works for _, works in pool]),
            ).verdict
            is Verdict.REGRESSED
            for look in (1, 2, 3, 5, 8)
        )
    # Of 20, twice their standard deviation more.
    assert regressed <= 29
