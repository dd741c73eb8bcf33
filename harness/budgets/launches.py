"""Spends launches of a program until its budget is decided, or the time is up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import clock
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.budgets.results import BudgetResult
    from harness.record.run import TrainingRun

LOOKS = (1, 2, 3, 5, 8)
"""Numbers of launches at which a verdict may be reached, declared before the first is measured."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How many launches a budget may take.

    Attributes:
        most: The largest number of launches.
        allowance_s: Seconds all of them may take; the first is run in any case.
    """

    most: int = LOOKS[-1]
    allowance_s: float = 120.0

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of launches at which the verdict is looked at; the last is all of them."""
        return (*(look for look in LOOKS if look < self.most), self.most)


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of it.

    Attributes:
        runs: The launches, in order.
        results: The judged lines over all of them.
        is_cut_short: Whether the time was up while a line was still inconclusive.
        spent_s: Seconds that the launches took, and what is done beside them.
    """

    runs: Sequence[TrainingRun]
    results: Sequence[BudgetResult]
    is_cut_short: bool
    spent_s: float


def spend_launches(
    launch: Callable[[], TrainingRun],
    judge: Callable[[Sequence[TrainingRun], bool], Sequence[BudgetResult]],
    plan: LaunchPlan,
    tell: Callable[[str], None],
    *,
    all_at_once: bool = False,
) -> Judged:
    """Launches a program until no line of its budget is inconclusive, at the numbers of launches of the plan.

    Args:
        launch: Runs the program once, in a fresh process.
        judge: The lines over the launches so far, and whether these are all: before, only what is shown to be
            within its tolerance passes, and one launch or two fail nothing.
        plan: How many launches, and how long.
        tell: Takes a line of progress.
        all_at_once: Whether to look at the end only, and make all the launches that the time is enough for.
    """
    started_s = clock.monotonic_s()
    runs: list[TrainingRun] = []
    while True:
        runs.append(launch())
        spent_s = clock.monotonic_s() - started_s
        is_out_of_time = spent_s / len(runs) * (len(runs) + 1) > plan.allowance_s
        is_last = len(runs) >= plan.most or is_out_of_time
        progress = (
            f"{len(runs)} {'launch' if len(runs) == 1 else 'launches'} of {plan.most} at most, {spent_s:.0f} s of "
            f"{plan.allowance_s:g} s"
        )
        if not is_last and (all_at_once or len(runs) not in plan.looks):
            tell(progress)
            continue
        results = judge(runs, is_last)
        is_open = any(result.verdict is Verdict.INCONCLUSIVE for result in results)
        if is_last or not is_open:
            is_cut_short = (is_open or all_at_once) and len(runs) < plan.most
            return Judged(runs, results, is_cut_short, spent_s)
        open_ones = ", ".join(result.metric for result in results if result.verdict is Verdict.INCONCLUSIVE)
        tell(f"{progress}; not decided: {open_ones}")
