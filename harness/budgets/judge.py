"""Judges launches by their budget: limits, and pools of earlier launches."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from harness import clock
from harness.baselines.pools import MAX_LAUNCHES, Launch
from harness.budgets.counters import tell_counters
from harness.budgets.gate import ALPHA, compare_quality, compare_with_pool
from harness.budgets.machine import MachineRole
from harness.budgets.metrics import (
    STEP_TIME,
    THROUGHPUT,
    Scope,
    find_counted,
    measure,
)
from harness.budgets.results import BudgetResult, judge_limit, refuse_non_finite, tell_comparison
from harness.budgets.unmeasured import explain_unmeasured
from harness.budgets.verdicts import Verdict
from harness.budgets.work_beside import explain_unknown, list_works
from harness.errors import BaselineError, ObservationError
from harness.record.counters import CountedStep
from harness.record.request import quote_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.baselines.pools import Pool, PoolStore
    from harness.budgets.metrics import Metric
    from harness.budgets.spec import Budget
    from harness.record.environment import Environment
    from harness.record.run import TrainingRun


MAX_WAITING_SHARE = 0.05
"""A program that waited longer than this for a processor was slowed by others: its times say nothing."""

SESSION_ALPHA = 0.01
"""Share of sessions of unchanged code in which any of their tolerances, each of 0, may be called regressed."""

ACCEPT_TEST = 'pytest {test} --accept-baselines --reason "{reason}"'
"""The command that accepts a baseline of a test."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The circumstances in which budgets are judged.

    Attributes:
        store: Where the pools lie.
        runner_class: The class of this machine.
        reason: Why baselines are being accepted; None when they are only compared.
        is_crowded: Whether other tests run beside this one, so that its times say nothing.
        num_session_tolerances: Tolerances that are judged in the whole session, which share one error rate; where
            it is less than those of a budget, these are meant.
        accept_command: The command that accepts, with `{test}`, to come in quotes, and `{reason}` where they belong.
    """

    store: PoolStore
    runner_class: str
    reason: str | None = None
    is_crowded: bool = False
    num_session_tolerances: int = 0
    accept_command: str = ACCEPT_TEST

    def judge_all(
        self, launches: Mapping[str, Sequence[TrainingRun]], budgets: Mapping[str, Budget]
    ) -> list[BudgetResult]:
        """Judges the launches of each run of one test, by the name of its baseline; accepts all of them or none.

        Args:
            launches: Those of each run.
            budgets: What each may cost.

        Raises:
            ObservationError: A metric of the budget could not be read off a run.
            BaselineError: A baseline can't be read or written.
        """
        if self.reason is not None:
            only_judge = replace(self, reason=None)
            results = [
                result
                for name, runs in launches.items()
                for result in only_judge.judge(name, runs, budgets[name])
            ]
            if any(
                result.verdict is Verdict.EXCEEDED or not math.isfinite(result.observed) for result in results
            ):
                return results
        return [result for name, runs in launches.items() for result in self.judge(name, runs, budgets[name])]

    def judge(
        self, test: str, runs: Sequence[TrainingRun], budget: Budget, *, is_last: bool = True
    ) -> list[BudgetResult]:
        """Judges every line of a budget; accepts the launches as baseline where that was asked for.

        Nothing is accepted from launches that exceed a limit or end in NaN.

        Args:
            test: Name of the baseline.
            runs: Launches of the same program.
            budget: What it may cost.
            is_last: Whether no more launches will come; before, only what is shown to be within passes, and three
                launches at least are regressed or improved.

        Raises:
            ObservationError: A metric of the budget could not be read off a run.
            BaselineError: A baseline can't be read or written.
        """
        measured = _measure_all(runs, budget)
        values = {metric: [found[metric.name] for found in measured] for metric in budget.metrics}
        unit = runs[0].throughput_unit
        results = [
            judge_limit(metric, statistics.fmean(values[metric]), limit, budget, unit)
            for metric, limit in budget.limits.items()
        ]
        broken = [
            refuse_non_finite(
                metric, next(value for value in values[metric] if not math.isfinite(value)), budget
            )
            for metric in budget.tolerances
            if not all(map(math.isfinite, values[metric]))
        ]
        if broken or not budget.tolerances:
            return results + broken
        pool = self.store.read(test, self.runner_class)
        if pool is not None:
            compared = [
                self._excuse(_doubt(result, runs), runs, budget)
                for result in self._compare_all(runs, values, pool, budget, is_last=is_last)
            ]
            compared = _explain_by_counters(compared, runs[-1], pool)
        else:
            compared = self._judge_without_pool(test, values, budget, unit)
        if self.reason is not None and not any(result.verdict is Verdict.EXCEEDED for result in results):
            return results + self._accept(test, runs, measured, compared, pool, self.reason)
        return results + compared

    def _compare_all(
        self,
        runs: Sequence[TrainingRun],
        values: Mapping[Metric, list[float]],
        pool: Pool,
        budget: Budget,
        *,
        is_last: bool,
    ) -> list[BudgetResult]:
        return [
            self._compare(runs, values[metric], pool, metric, budget, is_last=is_last)
            for metric in budget.tolerances
        ]

    def _compare(
        self,
        runs: Sequence[TrainingRun],
        observed: Sequence[float],
        pool: Pool,
        metric: Metric,
        budget: Budget,
        *,
        is_last: bool,
    ) -> BudgetResult:
        """Compares one measurement with its pool; a time on a CPU with how fast the machine was."""
        mean, tolerance = statistics.fmean(observed), budget.tolerances[metric]
        earlier = pool.values(metric.name)
        if not earlier:
            return BudgetResult(
                metric.name,
                Verdict.MISSING_BASELINE,
                mean,
                None,
                None,
                f"{metric.name} is new in this budget: the baseline of {pool.test} on {self.runner_class} holds none.",
                self._tell_accepting(pool.test, f"budget on {metric.name}"),
            )
        unknown_speed = ""
        if metric.scope is Scope.ANY or metric.is_counted:
            comparison = compare_quality(
                mean, earlier, tolerance=tolerance, is_lower_better=metric.is_lower_better
            )
        elif min(earlier) <= 0:
            raise BaselineError(
                f"the baseline of {pool.test} on {self.runner_class} holds a {metric.name} of "
                f"{min(earlier):g}.\nNext: restore it from version control, or delete it and accept a new one."
            )
        else:
            occasions = pool.list_occasions(metric.name)
            # Fixed work tells nothing of a GPU, and beside other tests of them.
            goes_with_machine = metric.is_time and runs[0].device == "cpu" and not self.is_crowded
            unknown_speed = explain_unknown(runs, occasions) if goes_with_machine else ""
            comparison = compare_with_pool(
                observed,
                [[launch.values[metric.name] for launch in occasion] for occasion in occasions],
                tolerance=tolerance,
                is_lower_better=metric.is_lower_better,
                alpha=self._find_alpha(budget),
                is_last=is_last,
                works=list_works(runs, occasions) if goes_with_machine and not unknown_speed else None,
            )
        result = tell_comparison(
            metric, mean, comparison, tolerance, budget, runs[0].throughput_unit, self.runner_class
        )
        if not unknown_speed or not result.advice:
            return result
        return replace(result, advice=f"{result.advice} {unknown_speed}")

    def _find_alpha(self, budget: Budget) -> float:
        """The error rate of one tolerance."""
        num_tolerances = len(budget.tolerances)
        return min(ALPHA / num_tolerances, SESSION_ALPHA / max(self.num_session_tolerances, num_tolerances))

    def _excuse(self, result: BudgetResult, runs: Sequence[TrainingRun], budget: Budget) -> BudgetResult:
        """A regressed time is inconclusive when others had the processor meanwhile."""
        waiting_share = _find_waiting_share(runs)
        is_busy = waiting_share > MAX_WAITING_SHARE
        is_time = result.metric in {metric.name for metric in budget.metrics if metric.is_time}
        is_excused = result.machine_role == MachineRole.EXCUSED and is_busy
        is_regressed = result.verdict is Verdict.REGRESSED and (is_busy or self.is_crowded)
        if not is_time or not (is_excused or is_regressed):
            return result
        advice = "other tests ran beside it; judge times without pytest-xdist (-n 0)."
        if is_busy:
            advice = (
                f"the machine was busy: the program waited {waiting_share:.0%} of its time for a processor; "
                "run it again when nothing else runs."
            )
        return _change_verdict(result, Verdict.INCONCLUSIVE, advice)

    def _judge_without_pool(
        self, test: str, values: Mapping[Metric, list[float]], budget: Budget, unit: str
    ) -> list[BudgetResult]:
        others = self.store.find_classes(test)
        results = []
        for metric, tolerance in budget.tolerances.items():
            observed = statistics.fmean(values[metric])
            shown = metric.show(observed, unit)
            elsewhere = self._read_portable(test, others, metric)
            if not others:
                message = f"{metric.name} has no baseline for {test} in any runner class; observed {shown}."
                advice = self._tell_accepting(test, "initial")
                result = BudgetResult(
                    metric.name, Verdict.MISSING_BASELINE, observed, None, None, message, advice
                )
            elif elsewhere is not None:
                comparison = compare_quality(
                    observed,
                    elsewhere.values(metric.name),
                    tolerance=tolerance,
                    is_lower_better=metric.is_lower_better,
                )
                result = tell_comparison(
                    metric, observed, comparison, tolerance, budget, unit, elsewhere.runner_class
                )
            else:
                message = (
                    f"{metric.name} {shown} is not comparable: this is runner class {self.runner_class}, baselines "
                    f"are there for {', '.join(others)}."
                )
                advice = f"to judge it here, {self._tell_accepting(test, 'new runner class')}"
                if metric.is_time:
                    advice += "; without a baseline: harness ab --base origin/main -- COMMAND"
                result = BudgetResult(
                    metric.name, Verdict.NOT_COMPARABLE, observed, None, None, message, advice
                )
            results.append(result)
        return results

    def _read_portable(self, test: str, classes: list[str], metric: Metric) -> Pool | None:
        """The pool with the newest launch, for a metric that may be compared between machines."""
        if metric.scope is not Scope.ANY:
            return None
        pools = [
            pool for name in classes if (pool := self.store.read(test, name)) and pool.values(metric.name)
        ]
        return max(pools, key=lambda pool: pool.launches[-1].recorded_at, default=None)

    def _accept(
        self,
        test: str,
        runs: Sequence[TrainingRun],
        measured: Sequence[Mapping[str, float]],
        compared: list[BudgetResult],
        earlier: Pool | None,
        reason: str,
    ) -> list[BudgetResult]:
        moved = [result for result in compared if result.verdict in (Verdict.REGRESSED, Verdict.IMPROVED)]
        if earlier is not None and _is_same_code(earlier.launches[-1], runs[0].environment):
            # Then it is the machine that is slower or faster at the moment.
            moved = []
        added = []
        for run, found in zip(runs, measured, strict=True):
            counted = find_counted(run)
            added.append(
                Launch(
                    values={name: value for name, value in found.items() if math.isfinite(value)},
                    recorded_at=clock.now_utc(),
                    commit=run.environment.commit,
                    is_dirty=run.environment.is_dirty,
                    reason=reason,
                    counted=None if counted is None else asdict(counted),
                    fixed_work=run.fixed_work,
                )
            )
        pool, num_kept = self.store.extend(
            test, added, runs[-1].environment, self.runner_class, anew=bool(moved)
        )
        path = self.store.locate(test, self.runner_class)
        why = f" (started anew: {', '.join(result.metric for result in moved)} moved)" if moved else ""
        if (share := _find_waiting_share(runs)) > MAX_WAITING_SHARE:
            why += f" (a busy machine: the program waited {share:.0%} of its time for a processor; better accept anew)"
        last = len(pool.launches)
        numbers = f"launch {last}" if num_kept == 1 else f"launches {last - num_kept + 1} to {last}"
        if num_kept < len(runs):
            why += f" (the newest {num_kept} of {len(runs)}: a pool holds {MAX_LAUNCHES}, of many occasions)"
        return [
            replace(
                result,
                verdict=Verdict.ACCEPTED,
                message=f"{result.metric} accepted as {numbers} of {path}{why}.",
                advice="",
            )
            for result in compared
        ]

    def _tell_accepting(self, test: str, reason: str) -> str:
        # The second run of a test is named `nodeid#2`, which pytest does not know.
        return self.accept_command.format(test=quote_test(re.sub(r"#\d+$", "", test)), reason=reason)


def _is_same_code(launch: Launch, environment: Environment) -> bool:
    is_known = launch.commit is not None and launch.is_dirty is False and environment.is_dirty is False
    return is_known and launch.commit == environment.commit


def _measure_all(runs: Sequence[TrainingRun], budget: Budget) -> list[dict[str, float]]:
    measured = [measure(run, budget.metrics, peak_tflops=budget.peak_tflops) for run in runs]
    for metric in budget.metrics:
        for run, found in zip(runs, measured, strict=True):
            if metric.name not in found:
                raise ObservationError(
                    f"{budget.source}: the budget on {metric.name} compared nothing: "
                    f"{explain_unmeasured(run, metric, budget.peak_tflops)}"
                )
    return measured


def _find_waiting_share(runs: Sequence[TrainingRun]) -> float:
    return statistics.median(run.waiting_share for run in runs)


def _doubt(result: BudgetResult, runs: Sequence[TrainingRun]) -> BudgetResult:
    """A step time that moves along most of the launches is none to compare, if it is the program that moves it."""
    if _find_waiting_share(runs) > MAX_WAITING_SHARE:
        return result
    if result.metric not in (STEP_TIME.name, THROUGHPUT.name) or result.verdict is Verdict.MISSING_BASELINE:
        return result
    drifts = [steady.drift for run in runs if not (steady := run.steady_steps).is_steady]
    if len(drifts) * 2 <= len(runs):
        return result
    advice = (
        f"after the warm-up the step time still changes by {statistics.median(drifts):+.0%} along the run; train more "
        "steps, or on a quieter machine."
    )
    return _change_verdict(result, Verdict.NOT_STEADY, advice)


def _change_verdict(result: BudgetResult, verdict: Verdict, advice: str) -> BudgetResult:
    message = result.message.replace(f" {result.verdict}:", f" {verdict}:", 1)
    return replace(result, verdict=verdict, message=message, advice=advice)


def _explain_by_counters(results: list[BudgetResult], run: TrainingRun, pool: Pool) -> list[BudgetResult]:
    """The results, the first that moved with what changed in the operations of a step since the newest launch."""
    counted = find_counted(run)
    moved = next((one for one in results if one.verdict in (Verdict.REGRESSED, Verdict.IMPROVED)), None)
    if counted is None or pool.counted is None or moved is None:
        return results
    changes = tell_counters(CountedStep.from_json(pool.counted), counted)
    told = f"Operations of a step: {'; '.join(changes) or 'unchanged'}."
    return [
        replace(result, message=f"{result.message}\n{told}") if result is moved else result
        for result in results
    ]
