"""Judges the budget of a run: limits, then the stored baseline in its three cases."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.baselines.pools import Launch
from harness.budgets.counters import tell_counters
from harness.budgets.gate import (
    ALPHA,
    MIN_LAUNCHES,
    Comparison,
    Verdict,
    compare_quality,
    compare_with_pool,
)
from harness.budgets.metrics import METRICS, Scope, explain_unmeasured, find_counted, measure
from harness.errors import BaselineError, ObservationError
from harness.record.counters import CountedStep

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.baselines.pools import Pool, PoolStore
    from harness.budgets.metrics import Metric
    from harness.budgets.spec import Budget
    from harness.record.run import TrainingRun


MAX_WAITING_SHARE = 0.05
"""A program that waited longer than this for a processor was slowed by others: its times say nothing."""


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """One judged line of a budget.

    Attributes:
        metric: Name of the measurement.
        verdict: What it came to.
        observed: The run's value.
        bound: The limit, or the baseline it was compared with; None where there was none.
        change: Relative change against the baseline; None for a limit.
        message: The verdict in words, with values and origin.
        advice: What to do next; empty where nothing needs to be done.
    """

    metric: str
    verdict: Verdict
    observed: float
    bound: float | None
    change: float | None
    message: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object; values that are not finite become text."""
        row = asdict(self) | {"verdict": str(self.verdict)}
        return {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }


@dataclass(frozen=True, slots=True)
class Judge:
    """The circumstances in which budgets are judged.

    Attributes:
        store: Where the pools lie.
        runner_class: The class of this machine.
        reason: Why baselines are being accepted; None when they are only compared.
        is_crowded: Whether other tests run beside this one, so that its times say nothing.
        root: Folder that paths in messages are relative to; None shows them as they are.
    """

    store: PoolStore
    runner_class: str
    reason: str | None = None
    is_crowded: bool = False
    root: Path | None = None

    def judge_all(self, runs: Mapping[str, TrainingRun], budget: Budget) -> list[BudgetResult]:
        """Judges the runs of one test, by the name of their baselines; accepts all of them or none.

        Raises:
            ObservationError: A metric of the budget could not be read off a run.
            BaselineError: A baseline can't be read or written.
        """
        if self.reason is not None:
            only_judge = replace(self, reason=None)
            results = [result for name, run in runs.items() for result in only_judge.judge(name, run, budget)]
            if any(
                result.verdict is Verdict.EXCEEDED or not math.isfinite(result.observed) for result in results
            ):
                return results
        return [result for name, run in runs.items() for result in self.judge(name, run, budget)]

    def judge(self, test: str, run: TrainingRun, budget: Budget) -> list[BudgetResult]:
        """Judges every line of a budget; accepts the run as baseline where that was asked for.

        Nothing is accepted from a run that exceeds a limit or ends in NaN.

        Raises:
            ObservationError: A metric of the budget could not be read off the run.
            BaselineError: A baseline can't be read or written.
        """
        values = measure(run)
        for metric in (*budget.limits, *budget.tolerances):
            if metric.name not in values:
                raise ObservationError(
                    f"{budget.source}: the budget on {metric.name} compared nothing: "
                    f"{explain_unmeasured(run, metric)}"
                )
        unit = run.throughput_unit
        results = [
            _judge_limit(metric, values[metric.name], limit, budget, unit)
            for metric, limit in budget.limits.items()
        ]
        broken = [metric for metric in budget.tolerances if not math.isfinite(values[metric.name])]
        if broken or not budget.tolerances:
            return results + [_refuse(metric, values[metric.name], budget) for metric in broken]
        pool = self.store.read(test, self.runner_class)
        if pool is not None:
            compared = [
                self._excuse(result, run)
                for result in _compare_all(values, pool, budget, unit, self.runner_class)
            ]
            compared = _explain_by_counters(compared, run, pool)
        else:
            compared = self._judge_without_pool(test, values, budget, unit)
        if self.reason is not None and not any(result.verdict is Verdict.EXCEEDED for result in results):
            return results + self._accept(test, run, values, compared, self.reason)
        return results + compared

    def _excuse(self, result: BudgetResult, run: TrainingRun) -> BudgetResult:
        """A regressed time is inconclusive when others had the processor meanwhile."""
        is_time = result.metric in {metric.name for metric in METRICS if metric.is_time}
        is_busy = run.waiting_share > MAX_WAITING_SHARE
        if result.verdict is not Verdict.REGRESSED or not is_time or not (is_busy or self.is_crowded):
            return result
        advice = "other tests ran beside it; judge times without pytest-xdist (-n 0)."
        if is_busy:
            advice = (
                f"the machine was busy: the program waited {run.waiting_share:.0%} of its time for a processor; "
                "run it again when nothing else runs."
            )
        return replace(
            result,
            verdict=Verdict.INCONCLUSIVE,
            message=result.message.replace(str(Verdict.REGRESSED), str(Verdict.INCONCLUSIVE), 1),
            advice=advice,
        )

    def _judge_without_pool(
        self, test: str, values: dict[str, float], budget: Budget, unit: str
    ) -> list[BudgetResult]:
        others = self.store.find_classes(test)
        if not others:
            return [
                BudgetResult(
                    metric.name,
                    Verdict.MISSING_BASELINE,
                    values[metric.name],
                    None,
                    None,
                    f"{metric.name} has no baseline for {test} in any runner class; observed "
                    f"{metric.show(values[metric.name], unit)}.",
                    _accept_command(test, "initial"),
                )
                for metric in budget.tolerances
            ]
        results = []
        for metric, tolerance in budget.tolerances.items():
            observed = values[metric.name]
            elsewhere = self._read_portable(test, others, metric)
            if elsewhere is not None:
                comparison = compare_quality(observed, elsewhere.values(metric.name), tolerance=tolerance)
                results.append(
                    _tell(metric, observed, comparison, tolerance, budget, unit, elsewhere.runner_class)
                )
            else:
                message = (
                    f"{metric.name} {metric.show(observed, unit)} is not comparable: this is runner class "
                    f"{self.runner_class}, baselines are there for {', '.join(others)}."
                )
                advice = f"to judge it here, {_accept_command(test, 'new runner class')}"
                if metric.is_time:
                    advice += "; without a baseline: harness ab --base origin/main -- COMMAND"
                results.append(
                    BudgetResult(metric.name, Verdict.NOT_COMPARABLE, observed, None, None, message, advice)
                )
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
        self, test: str, run: TrainingRun, values: dict[str, float], compared: list[BudgetResult], reason: str
    ) -> list[BudgetResult]:
        moved = [result for result in compared if result.verdict in (Verdict.REGRESSED, Verdict.IMPROVED)]
        launch = Launch(
            values={name: value for name, value in values.items() if math.isfinite(value)},
            recorded_at=clock.now_utc(),
            commit=run.environment.commit,
            is_dirty=run.environment.is_dirty,
            reason=reason,
            counted=None if (counted := find_counted(run)) is None else asdict(counted),
        )
        pool = self.store.extend(test, launch, run.environment, self.runner_class, anew=bool(moved))
        path = self.store.path(test, self.runner_class)
        if self.root is not None and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        why = f" (started anew: {', '.join(result.metric for result in moved)} moved)" if moved else ""
        return [
            BudgetResult(
                result.metric,
                Verdict.ACCEPTED,
                result.observed,
                result.bound,
                result.change,
                f"{result.metric} accepted as launch {len(pool.launches)} of {path}{why}.",
            )
            for result in compared
        ]


def _refuse(metric: Metric, observed: float, budget: Budget) -> BudgetResult:
    message = f"{metric.name} is {observed}, which is neither compared nor accepted ({budget.source})."
    advice = "assert_finite(run) in the test names the first such value."
    return BudgetResult(metric.name, Verdict.REGRESSED, observed, None, None, message, advice)


def _judge_limit(metric: Metric, observed: float, limit: float, budget: Budget, unit: str) -> BudgetResult:
    is_within = observed <= limit if metric.is_lower_better else observed >= limit
    relation = "within" if is_within else "over" if metric.is_lower_better else "under"
    message = (
        f"{metric.name} {metric.show(observed, unit)} is {relation} its limit of {metric.show(limit, unit)} "
        f"({budget.source})."
    )
    if is_within:
        return BudgetResult(metric.name, Verdict.PASS, observed, limit, None, message)
    return BudgetResult(metric.name, Verdict.EXCEEDED, observed, limit, None, message, _advise_limit(metric))


def _advise_limit(metric: Metric) -> str:
    move = "raise" if metric.is_lower_better else "lower"
    if metric.scope is Scope.ANY:
        first = "compare the curve with that of a run which kept the limit, and find the change that did it"
    elif metric.is_time:
        first = "run it again alone on the machine; if it stays so, find the change that slowed it down"
    else:
        first = "find the change that did it"
    return f"{first}; if it is intended, {move} {metric.limit_name} on the marker."


def _compare_all(
    values: dict[str, float], pool: Pool, budget: Budget, unit: str, runner_class: str
) -> list[BudgetResult]:
    results = []
    alpha = ALPHA / len(budget.tolerances)
    for metric, tolerance in budget.tolerances.items():
        observed, earlier = values[metric.name], pool.values(metric.name)
        if not earlier:
            message = f"{metric.name} is new in this budget: the baseline of {pool.test} on {runner_class} holds none."
            advice = _accept_command(pool.test, f"budget on {metric.name}")
            results.append(
                BudgetResult(metric.name, Verdict.MISSING_BASELINE, observed, None, None, message, advice)
            )
            continue
        if metric.scope is Scope.ANY or metric.is_counted:
            comparison = compare_quality(observed, earlier, tolerance=tolerance)
        elif min(earlier) <= 0:
            raise BaselineError(
                f"the baseline of {pool.test} on {runner_class} holds a {metric.name} of {min(earlier):g}.\n"
                "Next: restore it from version control, or delete it and accept a new one."
            )
        else:
            comparison = compare_with_pool(
                observed, earlier, tolerance=tolerance, is_lower_better=metric.is_lower_better, alpha=alpha
            )
        results.append(_tell(metric, observed, comparison, tolerance, budget, unit, runner_class))
    return results


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


def _tell(
    metric: Metric,
    observed: float,
    comparison: Comparison,
    tolerance: float,
    budget: Budget,
    unit: str,
    runner_class: str,
) -> BudgetResult:
    where = f"{comparison.num_launches} launches of {runner_class}"
    message = (
        f"{metric.name} {comparison.verdict}: baseline {metric.show(comparison.baseline, unit)}, observed "
        f"{metric.show(observed, unit)} ({comparison.change:+.1%}, allowed {tolerance:.1%} by {budget.source}; "
        f"{where})."
    )
    advice = _advise(comparison)
    return BudgetResult(
        metric.name, comparison.verdict, observed, comparison.baseline, comparison.change, message, advice
    )


def _advise(comparison: Comparison) -> str:
    match comparison.verdict:
        case Verdict.INCONCLUSIVE if comparison.num_launches < MIN_LAUNCHES:
            return "accept more launches; five are needed, twenty judge well."
        case Verdict.INCONCLUSIVE:
            return (
                f"unchanged launches differ by up to {comparison.noise:.1%}, so this may be noise; run it again, "
                "or on a quieter machine."
            )
        case Verdict.IMPROVED:
            return 'to hold the gain, --accept-baselines --reason "...".'
        case Verdict.REGRESSED:
            return 'find the change that did it; if it is intended, --accept-baselines --reason "...".'
        case _:
            return ""


def _accept_command(test: str, reason: str) -> str:
    # The second run of a test is named `nodeid#2`, which pytest does not know.
    nodeid = re.sub(r"#\d+$", "", test)
    return f'pytest "{nodeid}" --accept-baselines --reason "{reason}"'
