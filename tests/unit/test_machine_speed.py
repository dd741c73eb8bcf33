"""The machine's own speed: told by fixed work beside each launch, and taken out where a pool shows that it matters."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from harness.budgets.gate import Comparison, compare_with_pool
from harness.budgets.machine import MIN_LINE, FixedWorkTimes, MachineRole, draw_line
from harness.budgets.verdicts import Verdict

OCCASIONS = [0.06, -0.03, 0.0, 0.03, -0.06, 0.04, -0.04, 0.02, -0.02, 0.0]
"""The logs of how much longer a machine takes for everything, occasion by occasion."""
LAUNCHES = [0.01, -0.02, 0.02, -0.01]
OWN = itertools.cycle([0.002, 0.0, -0.002, 0.001, -0.001])
"""What launches differ by besides."""

WORKS = [[0.005 * math.exp(speed + one) for one in LAUNCHES] for speed in OCCASIONS]
TIMES = [[400 * work * math.exp(next(OWN)) for work in works] for works in WORKS]


def compare(
    observed: list[float],
    our_works: list[float] | None,
    *,
    works: list[list[float]] = WORKS,
    times: list[list[float]] = TIMES,
    rate: bool = False,
    is_last: bool = True,
) -> Comparison:
    return compare_with_pool(
        [1 / value for value in observed] if rate else observed,
        [[1 / value for value in occasion] for occasion in times] if rate else times,
        tolerance=0.05,
        is_lower_better=not rate,
        is_last=is_last,
        works=None if our_works is None else FixedWorkTimes(our_works, works),
    )


def merge(occasions: list[list[float]]) -> list[list[float]]:
    """All launches as of one occasion."""
    return [[value for occasion in occasions for value in occasion]]


@pytest.mark.parametrize("rate", [False, True])
def test_launches_of_a_slow_machine_pass_where_fixed_work_was_as_slow(*, rate: bool) -> None:
    slow = [2.0 * 1.1] * 3
    assert compare(slow, None, rate=rate).verdict is Verdict.INCONCLUSIVE
    known = compare(slow, [0.005 * 1.1] * 3, rate=rate)
    assert known.verdict is Verdict.PASS
    assert known.change == pytest.approx(1 / 1.1 - 1 if rate else 0.1, abs=0.002)
    assert known.net_change == pytest.approx(0, abs=0.002)
    assert known.machine_change == pytest.approx(0.1, abs=0.001)
    assert known.machine_role is MachineRole.DECIDED


@pytest.mark.parametrize("rate", [False, True])
def test_what_is_slower_on_an_equal_or_a_faster_machine_is_found_by_less(*, rate: bool) -> None:
    assert compare([2.0 * 1.08] * 3, None, rate=rate).verdict is Verdict.INCONCLUSIVE
    assert compare([2.0 * 1.08] * 3, [0.005] * 3, rate=rate).verdict is Verdict.REGRESSED
    # As long as before, on a machine that needs less for the same.
    assert compare([2.0] * 3, [0.005 / 1.1] * 3, rate=rate).verdict is Verdict.REGRESSED


def test_a_pool_of_few_occasions_excuses_what_the_machine_explains_and_decides_nothing_else_by_it() -> None:
    works, times = merge(WORKS), merge(TIMES)

    def judge(time: float, work: float) -> Comparison:
        return compare([2.0 * time] * 3, [0.005 * work] * 3, works=works, times=times)

    assert judge(1.3, 1.0).verdict is Verdict.REGRESSED
    slow = judge(1.3, 1.3)
    assert (slow.verdict, slow.machine_role) == (Verdict.INCONCLUSIVE, MachineRole.EXCUSED)
    assert slow.net_change == pytest.approx(0, abs=0.01)
    assert judge(0.7, 1.0).verdict is Verdict.IMPROVED
    fast = judge(0.7, 0.7)
    assert (fast.verdict, fast.machine_role) == (Verdict.PASS, MachineRole.EXCUSED)
    # Much slower code on a machine that much faster does not pass unseen.
    for time, work in ((1.0, 0.7), (0.8, 0.5)):
        hidden = judge(time, work)
        assert (hidden.verdict, hidden.machine_role) == (Verdict.INCONCLUSIVE, MachineRole.HID)
    assert judge(1.0, 0.95).verdict is Verdict.PASS
    unsure = judge(1.1, 1.1)
    assert (unsure.verdict, unsure.machine_role) == (Verdict.INCONCLUSIVE, MachineRole.TOLD)
    # Slower by more than the machine.
    assert judge(1.6, 1.1).verdict is Verdict.REGRESSED


def test_from_seven_occasions_on_a_line_decides() -> None:
    def judge(num: int) -> Verdict:
        return compare([2.2] * 3, [0.0055] * 3, works=WORKS[:num], times=TIMES[:num]).verdict

    assert [judge(num) for num in (MIN_LINE - 1, MIN_LINE)] == [Verdict.INCONCLUSIVE, Verdict.PASS]


def test_a_machine_that_is_slower_excuses_also_where_the_pool_does_not_show_what_that_does() -> None:
    # Beside a busy program, say, which none of the pool has met.
    works = [[0.005] * len(occasion) for occasion in TIMES]
    for pool in (works, random.Random(3).sample(WORKS, len(WORKS))):
        unknown, known = (compare([2.5] * 3, one, works=pool) for one in (None, [0.006] * 3))
        assert (unknown.verdict, known.verdict) == (Verdict.REGRESSED, Verdict.INCONCLUSIVE)
        assert known.machine_role is MachineRole.EXCUSED
        assert (known.noise, known.change) == (unknown.noise, unknown.change)
        assert known.machine_change == pytest.approx(0.2, abs=0.002)
        assert known.net_change == pytest.approx(2.5 / 2.4 - 1, abs=0.002)
        assert compare([3.2] * 3, [0.006] * 3, works=pool).verdict is Verdict.REGRESSED


def test_the_further_the_machine_is_from_what_it_was_the_less_is_known_and_far_off_nothing_is_decided() -> (
    None
):
    found = [compare([2.0 * speed] * 3, [0.005 * speed] * 3) for speed in (1.0, 1.06, 1.12, 1.3)]
    assert [one.machine_role for one in found[:3]] == [MachineRole.DECIDED] * 3
    noises = [one.noise for one in found[:3]]
    assert noises == sorted(noises)
    assert noises[2] > 1.1 * noises[0]
    assert found[0].verdict is found[2].verdict is Verdict.PASS
    assert (found[3].verdict, found[3].machine_role) == (Verdict.INCONCLUSIVE, MachineRole.EXCUSED)
    # What does not change on a machine that was never as fast, as it waits for something else, is no regression.
    assert compare([2.0] * 3, [0.005 / 1.2] * 3).verdict is Verdict.INCONCLUSIVE


def test_before_the_last_look_one_launch_is_not_regressed_by_the_machine_either() -> None:
    for number, verdict in ((2, Verdict.INCONCLUSIVE), (3, Verdict.REGRESSED)):
        assert compare([2.0 * 1.08] * number, [0.005] * number, is_last=False).verdict is verdict


LOGS = [math.log(work) for work in merge(WORKS)[0]]


def test_few_and_a_machine_that_never_differs_draw_no_line() -> None:
    assert draw_line(LOGS[:MIN_LINE], LOGS[:MIN_LINE]) is not None
    assert draw_line(LOGS[: MIN_LINE - 1], LOGS[: MIN_LINE - 1]) is None
    assert draw_line([0.5] * 20, LOGS[:20]) is None


def test_a_line_has_the_slope_that_it_has_and_must_rise() -> None:
    assert draw_line(LOGS, [-log for log in LOGS]) is None
    for exponent in (0.5, 1.5):
        line = draw_line(LOGS, [exponent * log for log in LOGS])
        assert line is not None
        assert line.exponent == pytest.approx(exponent)


@pytest.mark.parametrize(
    "works",
    [
        FixedWorkTimes([1.0], WORKS),
        FixedWorkTimes([1.0] * 3, WORKS[1:]),
        FixedWorkTimes([1.0] * 3, merge(WORKS)),
        FixedWorkTimes([1.0, 0.0, 1.0], WORKS),
        FixedWorkTimes([1.0, math.inf, 1.0], WORKS),
    ],
)
def test_every_launch_needs_a_time_of_fixed_work(works: FixedWorkTimes) -> None:
    with pytest.raises(ValueError, match="fixed work"):
        compare_with_pool([2.0] * 3, TIMES, tolerance=0.05, is_lower_better=True, works=works)


@pytest.mark.parametrize(("num_occasions", "size"), [(1, 20), (5, 8), (7, 4), (10, 4)])
@pytest.mark.parametrize(
    ("machine", "work", "follows"),
    [(0.05, 0.0, 1.0), (0.05, 0.0, 0.5), (0.0, 0.05, 1.0)],
    ids=["the machine", "the machine, followed half", "fixed work alone"],
)
def test_unchanged_launches_are_called_regressed_at_the_error_rate(
    num_occasions: int, size: int, machine: float, work: float, follows: float
) -> None:
    """Whatever it is that occasions differ by."""
    regressed = 0
    for seed in range(200):
        generator = random.Random(seed)

        def draw(num: int, generator: random.Random = generator) -> tuple[list[float], list[float]]:
            speed, moment = generator.gauss(0, machine), generator.gauss(0, work)
            speeds = [generator.gauss(0, 0.02) for _ in range(num)]
            times = [math.exp(follows * speed + one + generator.gauss(0, 0.02)) for one in speeds]
            return times, [math.exp(speed + moment + one + generator.gauss(0, 0.01)) for one in speeds]

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
    # Of 4, three times their standard deviation more.
    assert regressed <= 10
