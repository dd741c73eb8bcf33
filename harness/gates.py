"""Judges budgets inside tests: the marker's at the end of a test, those of the `budget` fixture where they stand."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError, UsageError
from harness.fixtures import SETTINGS, STATE, is_crowded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.budgets.judge import Judge
    from harness.budgets.results import BudgetResult
    from harness.budgets.spec import Budget
    from harness.record.run import TrainingRun
    from harness.state import TestState

NUM_TOLERANCES: pytest.StashKey[int] = pytest.StashKey()


class RunBudget:
    """Judges what a run cost, where the test stands; what the `budget` fixture gives a test."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, run: TrainingRun, /, **bounds: float) -> None:
        """Fails the test where a run of this test exceeds a limit, or is worse than its baseline allows.

        With `--accept-baselines` only limits are judged, and the run is accepted once the whole test has passed.

        Args:
            run: What `smoke_training` returned.
            bounds: What `@pytest.mark.budget` takes: `wall_clock_s=60, throughput=0.05`.

        Raises:
            UsageError: A bound is unknown or can't be used, or the run is not one of this test.
        """
        __tracebackhide__ = True
        from harness.budgets.spec import parse_budget  # noqa: PLC0415  late

        state = self._item.stash.get(STATE, None)
        runs = [] if state is None else state.runs
        number = next((index for index, known in enumerate(runs) if known is run), None)
        if state is None or number is None:
            raise UsageError(
                f"budget({run!r}) is given no run of {self._item.nodeid}.\n"
                "Next: run = smoke_training(train, config), then budget(run, wall_clock_s=60)."
            )
        found = parse_budget(bounds, source=f"budget() in {self._item.nodeid}")
        budget = dataclasses.replace(found, place="in the call of budget()")
        if self._item.config.stash[SETTINGS]["accept"]:
            if budget.tolerances:
                state.claims.append((number, budget))
            budget = dataclasses.replace(budget, tolerances={})
        if budget.metrics:
            name = _name_run(self._item, number)
            _judge(self._item, state, {name: [run]}, {name: budget})


@pytest.fixture
def budget(request: pytest.FixtureRequest) -> RunBudget:
    """Judges a run by limits and tolerances: `budget(run, wall_clock_s=60, throughput=0.05)`."""
    return RunBudget(request.node)


def judge_marker(item: pytest.Item, state: TestState) -> None:
    """Judges every run of a test by its marker, with further launches where the marker asks for them.

    Where runs are accepted, what the `budget` fixture claimed of them goes into the same launches of their pools.
    """
    assert state.budget is not None  # noqa: S101  the caller checked it
    if not state.runs:
        state.is_not_observed = True
        pytest.fail(
            f"the budget of {item.nodeid} compared nothing: the test ran no smoke_training.\n"
            "Next: run the training through the smoke_training fixture, or drop the budget marker.",
            pytrace=False,
        )
    launches: dict[str, Sequence[TrainingRun]] = {
        _name_run(item, number): [run] for number, run in enumerate(state.runs)
    }
    if state.launches is not None:
        problem = ""
        try:
            launches = _launch_again(item, state, launches)
        except HarnessError as error:
            problem = str(error)
        if problem:
            state.is_not_observed = True
            pytest.fail(problem, pytrace=False)
    budgets = dict.fromkeys(launches, state.budget) | _merge_claims(item, state)
    _judge(item, state, launches, budgets, accepts=True)


def accept_claims(item: pytest.Item, state: TestState) -> None:
    """Accepts the runs that the `budget` fixture judged in a test without a marker, which would have accepted them."""
    if state.budget is None and state.claims:
        launches = {_name_run(item, number): [state.runs[number]] for number, _ in state.claims}
        _judge(item, state, launches, _merge_claims(item, state), accepts=True)


def _merge_claims(item: pytest.Item, state: TestState) -> dict[str, Budget]:
    """The tolerances claimed of each run behind those of the marker, so that one launch of its pool holds them all."""
    merged: dict[str, Budget] = {}
    for number, claim in state.claims:
        name = _name_run(item, number)
        # The limits of a claim were judged where it stands.
        before = merged.get(name, state.budget or dataclasses.replace(claim, limits={}))
        # Where both name a metric, the marker's tolerance holds.
        merged[name] = dataclasses.replace(
            before, tolerances=before.tolerances | claim.tolerances | before.tolerances
        )
    return merged


def count_tolerances(items: Sequence[pytest.Item]) -> int:
    """How many tolerances of markers are judged in a session, so that they share its error rate."""
    states = (item.stash.get(STATE, None) for item in items)
    return sum(
        len(state.budget.tolerances) for state in states if state is not None and state.budget is not None
    )


def _name_run(item: pytest.Item, number: int) -> str:
    return item.nodeid if number == 0 else f"{item.nodeid}#{number + 1}"


def _launch_again(
    item: pytest.Item, state: TestState, launches: dict[str, Sequence[TrainingRun]]
) -> dict[str, Sequence[TrainingRun]]:
    """The launches of each run: the test's own, and as many more as it takes to decide."""
    from harness.budgets.launches import spend_launches  # noqa: PLC0415  late

    assert state.launches is not None  # noqa: S101  the caller checked it
    assert state.budget is not None  # noqa: S101
    judge = dataclasses.replace(_build_judge(item, state), reason=None)
    budget = state.budget
    spent = {}
    for (name, (first,)), relaunch in zip(launches.items(), state.relaunches, strict=True):
        if relaunch is None:
            raise UsageError(
                f"{item.nodeid}: launches on the budget marker needs a command; a called function can't be launched "
                "again in a fresh process.\nNext: smoke_training.command([...]), or leave out launches."
            )
        spent[name] = spend_launches(
            _Launches(first, relaunch),
            functools.partial(_judge_launches, judge, name, budget),
            state.launches,
            _tell,
            all_at_once=item.config.stash[SETTINGS]["accept"],
        ).runs
    return spent


class _Launches:
    """The test's own launch first, then further ones."""

    def __init__(self, first: TrainingRun, again: Callable[[], TrainingRun]) -> None:
        self._first: TrainingRun | None = first
        self._again = again

    def __call__(self) -> TrainingRun:
        first, self._first = self._first, None
        return self._again() if first is None else first


def _judge_launches(
    judge: Judge,
    name: str,
    budget: Budget,
    runs: Sequence[TrainingRun],
    is_last: bool,  # noqa: FBT001  of a callback
) -> list[BudgetResult]:
    return judge.judge(name, runs, budget, is_last=is_last)


def _tell(line: str) -> None:
    """Progress, to be read in the captured output of a test."""
    sys.stdout.write(f"harness: {line}\n")


def _judge(
    item: pytest.Item,
    state: TestState,
    launches: Mapping[str, Sequence[TrainingRun]],
    budgets: Mapping[str, Budget],
    *,
    accepts: bool = False,
) -> None:
    from harness.budgets.verdicts import find_failing  # noqa: PLC0415  late

    settings = item.config.stash[SETTINGS]
    judge = _build_judge(item, state)
    if not accepts:
        judge = dataclasses.replace(judge, reason=None)
    results: list[BudgetResult] = []
    try:
        results = judge.judge_all(launches, budgets)
    except HarnessError as error:
        problem = str(error)
    else:
        problem = ""
    if problem:  # out of the except block, so that the message is told once and not as a chain
        state.is_not_observed = True
        pytest.fail(problem, pytrace=False)
    state.results += results
    failing = find_failing(
        fails_inconclusive=settings["inconclusive"] == "fail", requires_baseline=settings["require_baseline"]
    )
    failed = [result for result in results if result.verdict in failing]
    if failed:
        advice = dict.fromkeys(f"Next: {result.advice}" for result in failed if result.advice)
        pytest.fail("\n".join([*(result.message for result in failed), *advice]), pytrace=False)


def _build_judge(item: pytest.Item, state: TestState) -> Judge:
    from harness.baselines.pools import PoolStore  # noqa: PLC0415  late
    from harness.baselines.shelves import open_shelf  # noqa: PLC0415
    from harness.budgets.judge import Judge  # noqa: PLC0415

    settings = item.config.stash[SETTINGS]
    stash: Any = item.config.stash
    return Judge(
        store=PoolStore(open_shelf(settings["baselines"], root=item.config.rootpath)),
        runner_class=state.runner_class or "",
        reason=settings["reason"] if settings["accept"] else None,
        is_crowded=is_crowded(item.config),
        num_session_tolerances=stash.get(NUM_TOLERANCES, 0),
    )
