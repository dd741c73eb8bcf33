from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.budgets.judge import Judge
from harness.budgets.verdicts import Verdict
from harness.errors import BaselineError, ObservationError
from harness.record.run import Step
from tests.unit.judging import CLASS, TEST, make_budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.pools import Launch, PoolStore
    from harness.budgets.results import BudgetResult
    from harness.record.environment import Environment
    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]
    MakeLaunch = Callable[..., Launch]


@pytest.fixture
def fill(store: PoolStore, environment: Environment, make_launch: MakeLaunch) -> Callable[..., None]:
    def fill(
        count: int, *, runner_class: str = CLASS, recorded_at: str = "2026-11-02", **values: float
    ) -> None:
        launch = replace(make_launch(**values), recorded_at=recorded_at)
        for _ in range(count):
            store.extend(TEST, [launch], environment, runner_class)

    return fill


def verdicts(results: list[BudgetResult]) -> dict[str, Verdict]:
    return {result.metric: result.verdict for result in results}


def test_a_limit_holds_without_any_baseline(judge: Judge, make_run: MakeRun) -> None:
    budget = make_budget(wall_clock_s=9, min_throughput=3, peak_memory_mb=100, max_final_loss=9)
    results = judge.judge(TEST, [make_run()], budget)
    assert verdicts(results) == {
        "wall_clock_s": Verdict.EXCEEDED,
        "throughput": Verdict.EXCEEDED,
        "peak_memory_bytes": Verdict.PASS,
        "final_loss": Verdict.PASS,
    }
    assert results[0].message == "wall_clock_s 10 s is over its limit of 9 s (the marker)."
    assert results[1].message == "throughput 2 steps/s is under its limit of 3 steps/s (the marker)."
    assert results[0].advice.endswith("if it is intended, raise wall_clock_s on the marker.")
    assert results[1].advice.endswith("if it is intended, lower min_throughput on the marker.")
    assert results[2].advice == ""


def test_a_test_without_a_baseline_in_any_class_is_missing_one_and_says_how_to_accept(
    judge: Judge, make_run: MakeRun
) -> None:
    (result,) = judge.judge(TEST, [make_run()], make_budget(wall_clock=0.1))
    assert result.verdict is Verdict.MISSING_BASELINE
    assert "in any runner class; observed 10 s" in result.message
    assert result.advice == f'pytest "{TEST}" --accept-baselines --reason "initial"'


def test_the_accept_command_of_a_second_run_names_the_test(judge: Judge, make_run: MakeRun) -> None:
    (result,) = judge.judge(f"{TEST}#2", [make_run()], make_budget(wall_clock=0.1))
    assert f'pytest "{TEST}" --accept' in result.advice


def test_a_baseline_of_another_class_makes_times_not_comparable_and_still_judges_the_loss(
    judge: Judge, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    fill(5, runner_class="a", wall_clock_s=1.0, final_loss=9.0, recorded_at="2026-01-01")
    fill(5, runner_class="b", wall_clock_s=1.0, final_loss=1.0, recorded_at="2026-02-02")
    results = judge.judge(TEST, [make_run()], make_budget(wall_clock=0.1, final_loss=0.1))
    assert verdicts(results) == {"wall_clock_s": Verdict.NOT_COMPARABLE, "final_loss": Verdict.REGRESSED}
    assert "this is runner class this-class, baselines are there for a, b" in results[0].message
    assert "baseline 1, observed 1.4" in results[1].message
    assert "5 launches of b" in results[1].message


def test_a_baseline_of_this_class_judges(judge: Judge, make_run: MakeRun, fill: Callable[..., None]) -> None:
    fill(6, wall_clock_s=5.0, throughput=2.0, final_loss=1.4)
    budget = make_budget(wall_clock=0.1, throughput=0.1, final_loss=0.1)
    results = judge.judge(TEST, [make_run()], budget)
    assert verdicts(results) == {
        "wall_clock_s": Verdict.REGRESSED,
        "throughput": Verdict.PASS,
        "final_loss": Verdict.PASS,
    }
    assert results[0].message == (
        "wall_clock_s regressed: baseline 5 s, observed 10 s (+100.0%, allowed 10.0% by the marker; "
        "6 launches of this-class)."
    )
    assert "--accept-baselines" in results[0].advice


def test_accepting_on_a_busy_machine_says_so(judge: Judge, make_run: MakeRun) -> None:
    accepting = replace(judge, reason="first")
    (result,) = accepting.judge(TEST, [make_run(waiting_s=5.0)], make_budget(wall_clock=0.05))
    assert result.verdict is Verdict.ACCEPTED
    assert (
        "(a busy machine: the program waited 50% of its time for a processor; better accept anew)"
        in result.message
    )


def test_a_young_pool_is_inconclusive_and_says_how_many_launches_it_needs(
    judge: Judge, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    fill(2, wall_clock_s=5.0)
    (result,) = judge.judge(TEST, [make_run()], make_budget(wall_clock=0.1))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "five are needed" in result.advice


def test_a_noisy_pool_is_inconclusive_and_says_how_noisy(
    judge: Judge, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    for wall_clock_s in (2.0, 16.0) * 3:
        fill(1, wall_clock_s=wall_clock_s)
    (result,) = judge.judge(TEST, [make_run()], make_budget(wall_clock=0.1))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "unchanged launches differ by up to" in result.advice
    assert "inf" not in result.advice


def test_a_metric_new_in_the_budget_is_missing_its_baseline(
    judge: Judge, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    fill(5, wall_clock_s=10.0)
    results = judge.judge(TEST, [make_run()], make_budget(wall_clock=0.1, peak_memory=0.1))
    assert verdicts(results)["peak_memory_bytes"] is Verdict.MISSING_BASELINE
    assert "is new in this budget" in results[1].message


def test_a_metric_that_was_not_measured_is_an_error(judge: Judge, make_run: MakeRun) -> None:
    with pytest.raises(ObservationError, match="the budget on step_time_s compared nothing"):
        judge.judge(TEST, [make_run(steps=[])], make_budget(step_time=0.1))


def test_a_loss_that_is_nan_is_a_regression_with_or_without_a_baseline(
    store: PoolStore, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    run = make_run([3.0, 2.0, math.nan])
    accepting = Judge(store, CLASS, reason="why not")
    for _ in range(2):
        (result,) = accepting.judge(TEST, [run], make_budget(final_loss=0.1, wall_clock=0.1))
        assert result.verdict is Verdict.REGRESSED
        assert "final_loss is nan, which is neither compared nor accepted" in result.message
        fill(5, final_loss=1.0)
    assert len(store.read(TEST, CLASS).launches) == 10  # type: ignore[union-attr]  # it was just filled


def test_a_pool_with_a_time_of_0_is_a_damaged_baseline(
    judge: Judge, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    fill(5, wall_clock_s=0.0)
    with pytest.raises(BaselineError, match="holds a wall_clock_s of 0"):
        judge.judge(TEST, [make_run()], make_budget(wall_clock=0.1))


def test_accepting_stores_what_was_measured_with_reason_and_commit(
    store: PoolStore, make_run: MakeRun
) -> None:
    (result,) = Judge(store, CLASS, reason="new data").judge(TEST, [make_run()], make_budget(wall_clock=0.1))
    assert result.verdict is Verdict.ACCEPTED
    assert "accepted as launch 1 of" in result.message
    pool = store.read(TEST, CLASS)
    assert pool is not None
    (launch,) = pool.launches
    assert launch.values["wall_clock_s"] == 10.0
    assert (launch.reason, launch.commit, launch.is_dirty) == ("new data", "1a2b3c4", False)


def test_accepting_an_unchanged_run_extends_the_pool(
    store: PoolStore, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    fill(6, wall_clock_s=10.0)
    (result,) = Judge(store, CLASS, reason="r").judge(TEST, [make_run()], make_budget(wall_clock=0.1))
    assert "launch 7 of" in result.message


@pytest.mark.parametrize("wall_clock_s", [5.0, 50.0])
def test_accepting_a_moved_run_starts_the_pool_anew(
    store: PoolStore, make_run: MakeRun, fill: Callable[..., None], wall_clock_s: float
) -> None:
    fill(6, wall_clock_s=wall_clock_s)
    (result,) = Judge(store, CLASS, reason="r").judge(TEST, [make_run()], make_budget(wall_clock=0.1))
    assert "launch 1 of" in result.message
    assert "started anew: wall_clock_s moved" in result.message


def test_a_run_over_a_limit_is_not_accepted(store: PoolStore, make_run: MakeRun) -> None:
    budget = make_budget(wall_clock_s=1, peak_memory=0.1)
    results = Judge(store, CLASS, reason="r").judge(TEST, [make_run()], budget)
    assert verdicts(results) == {
        "wall_clock_s": Verdict.EXCEEDED,
        "peak_memory_bytes": Verdict.MISSING_BASELINE,
    }
    assert store.read(TEST, CLASS) is None


def test_a_result_is_json_data_without_nan(judge: Judge, make_run: MakeRun) -> None:
    (result,) = judge.judge(TEST, [make_run([1.0, math.nan, 1.0])], make_budget(max_final_loss=1))
    assert result.to_json()["observed"] == "nan"
    assert result.to_json()["verdict"] == "limit exceeded"


def test_a_regressed_time_is_inconclusive_when_others_had_the_processor(
    judge: Judge, make_run: MakeRun, fill: Callable[..., None]
) -> None:
    for wall_clock_s in (5.0, 5.1, 4.9, 5.05, 4.95):
        fill(1, wall_clock_s=wall_clock_s, peak_memory_bytes=50 * 2**20)
    budget = make_budget(wall_clock=0.1, peak_memory=0.1)
    quiet = judge.judge(TEST, [make_run(waiting_s=0.1)], budget)
    assert verdicts(quiet) == {"wall_clock_s": Verdict.REGRESSED, "peak_memory_bytes": Verdict.REGRESSED}
    busy = judge.judge(TEST, [make_run(waiting_s=4.0)], budget)
    assert verdicts(busy) == {"wall_clock_s": Verdict.INCONCLUSIVE, "peak_memory_bytes": Verdict.REGRESSED}
    assert "waited 40% of its time" in busy[0].advice
    assert "inconclusive" in busy[0].message


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("t.py::test_a[x y]#2", 'pytest "t.py::test_a[x y]" --accept'),
        ("t.py::test_a[$(touch x)]", "pytest 't.py::test_a[$(touch x)]' --accept"),
        ("t.py::test_a[`{reason}`]", "pytest 't.py::test_a[`{reason}`]' --accept"),
    ],
)
def test_the_command_that_accepts_runs_nothing_of_an_id(
    store: PoolStore, make_run: MakeRun, test: str, told: str
) -> None:
    (result,) = Judge(store, CLASS).judge(test, [make_run()], make_budget(wall_clock=0.1))
    assert told in result.advice


def test_the_runs_of_a_test_are_accepted_together_or_not_at_all(store: PoolStore, make_run: MakeRun) -> None:
    judge = Judge(store, CLASS, reason="initial")
    budget = make_budget(wall_clock_s=11, final_loss=0.1)
    runs = {TEST: [make_run()], f"{TEST}#2": [make_run(wall_clock_s=12.0)]}
    assert Verdict.EXCEEDED in {
        result.verdict for result in judge.judge_all(runs, dict.fromkeys(runs, budget))
    }
    assert store.read(TEST, CLASS) is None
    runs = {TEST: [make_run()], f"{TEST}#2": [make_run()]}
    accepted = judge.judge_all(runs, dict.fromkeys(runs, budget))
    assert [result.verdict for result in accepted].count(Verdict.ACCEPTED) == 2
    assert store.read(TEST, CLASS) is not None
    assert store.read(f"{TEST}#2", CLASS) is not None


def test_the_tolerances_of_a_session_share_one_error_rate(
    store: PoolStore, fill: Callable[..., None], make_run: MakeRun
) -> None:
    for value in (9.0, 9.2, 8.8, 9.1, 8.9, 9.0):
        fill(1, wall_clock_s=value)
    run = make_run(wall_clock_s=10.2)
    alone = Judge(store, CLASS).judge(TEST, [run], make_budget(wall_clock=0.05))
    among_many = Judge(store, CLASS, num_session_tolerances=1000).judge(
        TEST, [run], make_budget(wall_clock=0.05)
    )
    assert [result.verdict for result in alone] == [Verdict.REGRESSED]
    assert [result.verdict for result in among_many] == [Verdict.INCONCLUSIVE]


def test_several_launches_are_accepted_one_by_one(store: PoolStore, make_run: MakeRun) -> None:
    runs = [make_run(wall_clock_s=value) for value in (9.0, 10.0, 11.0)]
    (result,) = Judge(store, CLASS, reason="r").judge(TEST, runs, make_budget(wall_clock=0.1))
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.values("wall_clock_s") == [9.0, 10.0, 11.0]
    assert "accepted as launches 1 to 3 of" in result.message


def test_a_step_time_that_moves_along_the_run_is_not_steady(
    judge: Judge, fill: Callable[..., None], make_run: MakeRun
) -> None:
    fill(6, step_time_s=0.02, wall_clock_s=10.0)
    steps = [Step(number, {"loss": 1.0}, time_s=0.01 + 0.0005 * number) for number in range(40)]
    results = judge.judge(TEST, [make_run(steps=steps)], make_budget(step_time=0.5, wall_clock=0.5))
    assert verdicts(results) == {"step_time_s": Verdict.NOT_STEADY, "wall_clock_s": Verdict.PASS}
    assert "not steady" in results[0].message
    assert "along the run; train more steps" in results[0].advice


@pytest.mark.parametrize(
    ("commit", "is_dirty", "is_dirty_now", "starts_anew"),
    [
        ("1a2b3c4", False, False, False),
        ("another", False, False, True),
        ("1a2b3c4", True, False, True),
        ("1a2b3c4", False, True, True),
        (None, None, False, True),
    ],
)
def test_accepting_a_moved_run_of_the_same_commit_leaves_the_pool(
    store: PoolStore,
    make_launch: MakeLaunch,
    make_run: MakeRun,
    environment: Environment,
    commit: str | None,
    *,
    is_dirty: bool | None,
    is_dirty_now: bool,
    starts_anew: bool,
) -> None:
    launch = replace(make_launch(wall_clock_s=5.0), commit=commit, is_dirty=is_dirty)
    store.extend(TEST, [launch] * 6, environment, CLASS)
    run = make_run(environment=replace(environment, is_dirty=is_dirty_now))
    (result,) = Judge(store, CLASS, reason="r").judge(TEST, [run], make_budget(wall_clock=0.1))
    assert ("started anew" in result.message) is starts_anew
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.values("wall_clock_s") == ([10.0] if starts_anew else [5.0] * 6 + [10.0])


NIGHTS = [f"2026-11-{day:02}T03:00:00+00:00" for day in range(1, 9)]


@pytest.mark.parametrize(
    ("nights", "verdict"), [(NIGHTS, Verdict.REGRESSED), (NIGHTS[:1] * 8, Verdict.INCONCLUSIVE)]
)
def test_launches_of_several_nights_tell_what_several_launches_are_worth(
    judge: Judge, fill: Callable[..., None], make_run: MakeRun, nights: list[str], verdict: Verdict
) -> None:
    for night in nights:
        for wall_clock_s in (9.9, 10.0, 10.1, 9.95, 10.05):
            fill(1, recorded_at=night, wall_clock_s=wall_clock_s)
    runs = [make_run(wall_clock_s=10.24)] * 5
    (result,) = judge.judge(TEST, runs, make_budget(wall_clock=0.02))
    assert result.verdict is verdict
    if verdict is Verdict.INCONCLUSIVE:
        assert "on each of 5 occasions, more than an hour apart (the baseline has 1): 5 then" in result.advice
        (alone,) = judge.judge(TEST, runs[:1], make_budget(wall_clock=0.02))
        assert alone.verdict is Verdict.INCONCLUSIVE
        assert "occasions" not in alone.advice


def test_of_many_accepted_launches_it_is_told_how_many_a_full_pool_keeps(
    store: PoolStore, fill: Callable[..., None], make_run: MakeRun
) -> None:
    for month in range(1, 11):
        fill(4, recorded_at=f"2025-{month:02}-01T03:00:00+00:00", wall_clock_s=10.0)
    runs = [make_run(wall_clock_s=10.0)] * 20
    (result,) = Judge(store, CLASS, reason="r").judge(TEST, runs, make_budget(wall_clock=0.1))
    assert "accepted as launches 37 to 40 of" in result.message
    assert result.message.endswith("(the newest 4 of 20: a pool holds 40, of many occasions).")
