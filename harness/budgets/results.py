"""One judged line of a budget, and the words for it: values, where the bound came from, and what to do next."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.budgets.gate import MIN_LAUNCHES, MIN_OCCASIONS, Comparison
from harness.budgets.machine import MIN_LINE, MachineRole
from harness.budgets.metrics import Scope
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from harness.budgets.metrics import Metric
    from harness.budgets.spec import Budget


MACHINE_DOUBTS: dict[MachineRole | None, str] = {
    MachineRole.EXCUSED: "the machine needed {:.1%} more time for fixed work, which may be all of it",
    MachineRole.HID: "the machine needed {:.1%} less time for fixed work, which may hide that this is slower",
}
TOLD_MACHINE_CHANGE = 0.03
"""From here on it is told that the machine was slower or faster, also where nothing is decided by it."""


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """One judged line of a budget.

    Attributes:
        metric: Name of the measurement.
        verdict: What it came to.
        observed: The value of the run; the mean over several launches.
        bound: The limit, or the baseline it was compared with; None where there was none.
        change: Relative change against the baseline; None for a limit.
        message: The verdict in words, with values and origin.
        advice: What to do next; empty where nothing needs to be done.
        machine_role: What the machine's speed did to the verdict: decided, excused, hid or told.
        machine_change: How much longer fixed work took than beside the baseline, as a share; None where not known.
        net_change: The change at equal speed of the machine; None where that is not known.
    """

    metric: str
    verdict: Verdict
    observed: float
    bound: float | None
    change: float | None
    message: str
    advice: str = ""
    machine_role: str | None = None
    machine_change: float | None = None
    net_change: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object; values that are not finite become text."""
        row = asdict(self) | {"verdict": str(self.verdict)}
        return {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }


def judge_limit(metric: Metric, observed: float, limit: float, budget: Budget, unit: str) -> BudgetResult:
    """Whether a value keeps an absolute limit."""
    is_within = observed <= limit if metric.is_lower_better else observed >= limit
    relation = "within" if is_within else "over" if metric.is_lower_better else "under"
    message = (
        f"{metric.name} {metric.show(observed, unit)} is {relation} its limit of {metric.show(limit, unit)} "
        f"({budget.source})."
    )
    if is_within:
        return BudgetResult(metric.name, Verdict.PASS, observed, limit, None, message)
    return BudgetResult(
        metric.name, Verdict.EXCEEDED, observed, limit, None, message, _advise_limit(metric, budget)
    )


def refuse_non_finite(metric: Metric, observed: float, budget: Budget) -> BudgetResult:
    """A value that can be neither compared nor accepted."""
    message = f"{metric.name} is {observed}, which is neither compared nor accepted ({budget.source})."
    advice = "assert_finite(run) in the test names the first such value."
    return BudgetResult(metric.name, Verdict.REGRESSED, observed, None, None, message, advice)


def tell_comparison(
    metric: Metric,
    observed: float,
    comparison: Comparison,
    tolerance: float,
    budget: Budget,
    unit: str,
    runner_class: str,
) -> BudgetResult:
    """What came of comparing with a pool."""
    where = f"{comparison.num_launches} launches of {runner_class}"
    ours = f"mean of {comparison.num_observed} launches, " if comparison.num_observed > 1 else ""
    machine = _tell_machine(comparison)
    net = f"{_show_change(comparison.net_change or 0.0)} at equal speed of the machine, " if machine else ""
    if comparison.machine_role is MachineRole.DECIDED:
        net = f"judged as {net}"
    message = (
        f"{metric.name} {comparison.verdict}: baseline {metric.show(comparison.baseline, unit)}, observed "
        f"{metric.show(observed, unit)} ({ours}{comparison.change:+.1%}, {net}allowed {tolerance:.1%} by "
        f"{budget.source}; {where}).{machine}"
    )
    return BudgetResult(
        metric.name,
        comparison.verdict,
        observed,
        comparison.baseline,
        comparison.change,
        message,
        _advise(comparison),
        machine_role=None if comparison.machine_role is None else str(comparison.machine_role),
        machine_change=comparison.machine_change,
        net_change=comparison.net_change,
    )


def _show_change(change: float) -> str:
    return f"{change:+.1%}".replace("-0.0%", "+0.0%")


def _tell_machine(comparison: Comparison) -> str:
    """That the machine itself was slower or faster, where that is more than noise or was taken out."""
    change = comparison.machine_change
    if change is None or (comparison.machine_role is MachineRole.TOLD and abs(change) < TOLD_MACHINE_CHANGE):
        return ""
    return f" Fixed work took {abs(change):.1%} {'more' if change > 0 else 'less'} time than beside the baseline."


def _advise_limit(metric: Metric, budget: Budget) -> str:
    move = "raise" if metric.is_lower_better else "lower"
    if metric.scope is Scope.ANY:
        first = "compare the curve with that of a run which kept the limit, and find the change that did it"
    elif metric.is_time:
        first = "run it again alone on the machine; if it stays so, find the change that slowed it down"
    else:
        first = "find the change that did it"
    return f"{first}; if it is intended, {move} {metric.limit_name} {budget.place}."


def _advise(comparison: Comparison) -> str:
    match comparison.verdict:
        case Verdict.INCONCLUSIVE:
            return _advise_inconclusive(comparison)
        case Verdict.IMPROVED:
            return 'to hold the gain, --accept-baselines --reason "...".'
        case Verdict.REGRESSED:
            return 'find the change that did it; if it is intended, --accept-baselines --reason "...".'
        case _:
            return ""


def _advise_inconclusive(comparison: Comparison) -> str:
    if comparison.machine_role in MACHINE_DOUBTS:
        doubt = MACHINE_DOUBTS[comparison.machine_role].format(abs(comparison.machine_change or 0.0))
        return (
            f"{doubt}; run it again later, ask harness ab, or accept launches on {MIN_LINE} occasions, more than an "
            f"hour apart (the baseline has {comparison.num_occasions}), which tell what the machine does."
        )
    if comparison.machine_role is MachineRole.DECIDED:
        return (
            f"at this speed of the machine unchanged launches are known to {comparison.noise:.1%} only; run it later, "
            "ask harness ab, or accept launches on more occasions."
        )
    if comparison.num_launches < MIN_LAUNCHES:
        return "accept more launches; five are needed, twenty judge well."
    return (
        f"unchanged launches differ by up to {comparison.noise:.1%}, so this may be noise; run it again, or "
        f"on a quieter machine{_advise_occasions(comparison)}."
    )


def _advise_occasions(comparison: Comparison) -> str:
    """What several launches lack to tell more than one."""
    if comparison.num_observed == 1 or comparison.num_occasions >= MIN_OCCASIONS:
        return ""
    return (
        f", or accept several launches on each of {MIN_OCCASIONS} occasions, more than an hour apart (the baseline has "
        f"{comparison.num_occasions}): {comparison.num_observed} then tell more than one"
    )
