"""A judge that knows how fast the machine was, by fixed work beside each launch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.budgets.verdicts import Verdict
from harness.record.fixed_work import FixedWork
from tests.unit.judging import CLASS, TEST, make_budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.pools import Launch, PoolStore
    from harness.budgets.judge import Judge
    from harness.budgets.results import BudgetResult
    from harness.record.environment import Environment
    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]
    MakeLaunch = Callable[..., Launch]


@pytest.fixture
def fill_occasions(
    store: PoolStore, environment: Environment, make_launch: MakeLaunch
) -> Callable[[int], None]:
    """Stores three launches on each of so many days, on a machine that is as fast as it is."""

    def fill_occasions(num: int) -> None:
        for day in range(num):
            speeds = [math.exp(0.05 * (day % 4 - 1.5) + 0.01 * number) for number in (-1, 0, 1)]
            launches = [
                replace(
                    make_launch(wall_clock_s=8.9 * speed, throughput=2.3 / speed),
                    fixed_work=FixedWork(0.005 * speed, "1"),
                    recorded_at=f"2026-11-{day + 1:02}",
                )
                for speed in speeds
            ]
            store.extend(TEST, launches, environment, CLASS)

    return fill_occasions


def test_a_slow_machine_is_told_from_slow_code_where_the_pool_shows_how(
    judge: Judge, fill_occasions: Callable[[int], None], make_run: MakeRun
) -> None:
    fill_occasions(8)

    def compare(*runs: TrainingRun) -> BudgetResult:
        (result,) = judge.judge(TEST, runs, make_budget(wall_clock=0.05))
        return result

    def add_work(change: float, made_with: str = "1") -> TrainingRun:
        return make_run(fixed_work=FixedWork(0.005 * change, made_with))

    slow = compare(add_work(1.124))
    assert slow.verdict is Verdict.PASS
    assert (
        "(+12.4%, judged as +0.0% at equal speed of the machine, allowed 5.0% by the marker;" in slow.message
    )
    assert slow.message.endswith("). Fixed work took 12.4% more time than beside the baseline.")
    assert slow.machine_change == pytest.approx(0.124, abs=0.001)
    assert slow.net_change == pytest.approx(0, abs=0.001)
    assert slow.change == pytest.approx(0.124, abs=0.001)

    regressed = compare(add_work(1.0))
    assert regressed.verdict is Verdict.REGRESSED
    assert "(+12.4%, judged as +12.4% at equal speed" in regressed.message


@pytest.mark.parametrize(
    ("made_with", "told"),
    [
        (
            ["2"],
            "fixed work was done with 1 and 2, which can't be compared; launches accepted from now on can.",
        ),
        (["1", "2"], "fixed work was done with 1 and 2, which can't be"),
        ([None], "fixed work could not be timed beside this program."),
        (["1", None], "fixed work could not be timed beside this program."),
    ],
)
def test_without_the_same_work_beside_all_launches_it_is_told_that_the_speed_is_not_known(
    judge: Judge,
    fill_occasions: Callable[[int], None],
    make_run: MakeRun,
    made_with: list[str | None],
    told: str,
) -> None:
    fill_occasions(8)
    runs = [
        make_run(fixed_work=None if version is None else FixedWork(0.005 * 1.124, version))
        for version in made_with
    ]
    (unknown,) = judge.judge(TEST, runs, make_budget(wall_clock=0.05))
    assert unknown.verdict is not Verdict.PASS
    assert unknown.machine_change is None
    assert f" How fast the machine was is not known: {told}" in unknown.advice
    # Nothing needs to be known of a machine that slows nothing down.
    within = [replace(run, wall_clock_s=8.9) for run in runs]
    (result,) = judge.judge(TEST, within, make_budget(wall_clock=0.05))
    assert (result.verdict, result.advice) == (Verdict.PASS, "")


def test_a_baseline_of_launches_without_fixed_work_says_so(
    judge: Judge, store: PoolStore, environment: Environment, make_launch: MakeLaunch, make_run: MakeRun
) -> None:
    launches = [make_launch(wall_clock_s=7.0, peak_memory_bytes=50 * 2**20) for _ in range(5)]
    launches[0] = replace(launches[0], fixed_work=FixedWork(0.005, "1"))
    store.extend(TEST, launches, environment, CLASS)
    run = make_run(fixed_work=FixedWork(0.005, "1"))
    (result,) = judge.judge(TEST, [run], make_budget(wall_clock=0.05))
    assert result.verdict is Verdict.REGRESSED
    assert result.advice.endswith(
        "4 of the 5 launches of the baseline have no time of fixed work; those accepted from now on have one."
    )
    # Of memory it would tell nothing.
    (memory,) = judge.judge(TEST, [run], make_budget(peak_memory=0.0))
    assert memory.verdict is Verdict.REGRESSED
    assert "fixed work" not in memory.advice
    (on_gpu,) = judge.judge(TEST, [replace(run, device="cuda")], make_budget(wall_clock=0.05))
    assert on_gpu.verdict is Verdict.REGRESSED
    assert "fixed work" not in on_gpu.advice


def test_throughput_goes_with_the_machine_the_other_way(
    judge: Judge, fill_occasions: Callable[[int], None], make_run: MakeRun
) -> None:
    fill_occasions(8)
    run = make_run(fixed_work=FixedWork(0.005 * 1.15, "1"))
    (result,) = judge.judge(TEST, [run], make_budget(throughput=0.05))
    assert result.verdict is Verdict.PASS
    assert result.change == pytest.approx(-0.13, abs=0.001)
    assert result.net_change == pytest.approx(0, abs=0.001)


def test_a_young_baseline_excuses_what_the_machine_explains(
    judge: Judge, fill_occasions: Callable[[int], None], make_run: MakeRun
) -> None:
    fill_occasions(4)
    run = make_run(wall_clock_s=12.0, fixed_work=FixedWork(0.005 * 1.348, "1"))
    (result,) = judge.judge(TEST, [run], make_budget(wall_clock=0.05))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "+34.8%, +0.0% at equal speed of the machine" in result.message
    assert result.machine_role == "excused"
    more = "the machine needed 34.8% more time for fixed work, which may be all of it; run it again later"
    assert result.advice.startswith(more)
    assert "on 7 occasions, more than an hour apart (the baseline has 4)" in result.advice


@pytest.mark.parametrize("waiting_s", [0.0, 2.0])
def test_what_a_faster_machine_may_hide_and_what_a_busy_one_explains_say_so(
    judge: Judge, fill_occasions: Callable[[int], None], make_run: MakeRun, waiting_s: float
) -> None:
    fill_occasions(4)
    hidden = make_run(wall_clock_s=9.0, fixed_work=FixedWork(0.003, "1"))
    (result,) = judge.judge(TEST, [hidden], make_budget(wall_clock=0.05))
    assert (result.verdict, result.machine_role) == (Verdict.INCONCLUSIVE, "hid")
    assert result.advice.startswith("the machine needed 40.0% less time for fixed work, which may hide that")
    slow = make_run(wall_clock_s=12.0, waiting_s=waiting_s, fixed_work=FixedWork(0.005 * 1.348, "1"))
    (result,) = judge.judge(TEST, [slow], make_budget(wall_clock=0.05))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert ("the machine was busy" in result.advice) == bool(waiting_s)


def test_fixed_work_tells_nothing_of_a_gpu(
    judge: Judge, fill_occasions: Callable[[int], None], make_run: MakeRun
) -> None:
    fill_occasions(8)
    run = make_run(device="cuda", fixed_work=FixedWork(0.005 * 1.124, "1"))
    (result,) = judge.judge(TEST, [run], make_budget(wall_clock=0.05))
    assert result.machine_change is None


def test_beside_other_tests_fixed_work_tells_nothing(
    judge: Judge, fill_occasions: Callable[[int], None], make_run: MakeRun
) -> None:
    fill_occasions(8)
    run = make_run(fixed_work=FixedWork(0.005 * 1.124, "1"))
    crowded = replace(judge, is_crowded=True)
    (result,) = crowded.judge(TEST, [run], make_budget(wall_clock=0.05))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.machine_change is None


def test_a_machine_that_differs_is_told_where_it_explains_nothing(
    judge: Judge, store: PoolStore, environment: Environment, make_launch: MakeLaunch, make_run: MakeRun
) -> None:
    works = [FixedWork(0.005 * speed, "1") for speed in (1.0, 1.0, 1.01, 0.99, 1.0)]
    launches = [replace(make_launch(wall_clock_s=7.0), fixed_work=work) for work in works]
    store.extend(TEST, launches, environment, CLASS)

    def tell(time_s: float) -> str:
        run = make_run(fixed_work=FixedWork(time_s, "1"))
        (result,) = judge.judge(TEST, [run], make_budget(wall_clock=0.05))
        assert result.verdict is Verdict.REGRESSED
        return result.message

    assert tell(0.006).endswith("). Fixed work took 20.0% more time than beside the baseline.")
    assert "(+42.9%, +19.0% at equal speed of the machine, allowed" in tell(0.006)
    assert tell(0.004).endswith("). Fixed work took 20.0% less time than beside the baseline.")
    assert "machine" not in tell(0.0051)
    assert "(+42.9%, allowed 5.0%" in tell(0.0051)


def test_how_fast_the_machine_was_is_accepted_with_a_launch(
    store: PoolStore, judge: Judge, make_run: MakeRun
) -> None:
    work = FixedWork(0.005, "1")
    accepting = replace(judge, reason="first")
    accepting.judge(TEST, [make_run(fixed_work=work)], make_budget(wall_clock=0.05))
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.launches[0].fixed_work == work
