from __future__ import annotations

import pytest

from harness.budgets.metrics import FINAL_LOSS, METRICS, PEAK_MEMORY, THROUGHPUT, WALL_CLOCK
from harness.budgets.spec import parse_budget
from harness.errors import UsageError

SOURCE = "@pytest.mark.budget on test_a"


def test_limits_are_told_from_tolerances_and_scaled_to_the_metrics_unit() -> None:
    budget = parse_budget(
        {"wall_clock_s": 60, "peak_memory_mb": 2, "throughput": 0.05, "final_loss": 0}, source=SOURCE
    )
    assert budget.limits == {WALL_CLOCK: 60, PEAK_MEMORY: 2 * 2**20}
    assert budget.tolerances == {THROUGHPUT: 0.05, FINAL_LOSS: 0}
    assert budget.wall_clock_limit_s == 60
    assert budget.source == SOURCE


def test_a_budget_without_a_wall_clock_limit_has_none() -> None:
    assert parse_budget({"wall_clock": 0.1}, source=SOURCE).wall_clock_limit_s is None


@pytest.mark.parametrize(
    "name", [name for metric in METRICS for name in (metric.limit_name, metric.tolerance_name)]
)
def test_every_metric_takes_a_limit_and_a_tolerance(name: str) -> None:
    budget = parse_budget({name: 0.5}, source=SOURCE)
    assert len(budget.limits) + len(budget.tolerances) == 1


@pytest.mark.parametrize(
    ("name", "suggestion"), [("wallclock_s", "wall_clock_s"), ("troughput", "throughput")]
)
def test_an_unknown_argument_is_refused_with_its_source_and_the_nearest_name(
    name: str, suggestion: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget({name: 1}, source=SOURCE)
    assert str(caught.value).startswith(
        f"{SOURCE}: budget has no argument '{name}' (did you mean '{suggestion}'?)"
    )


@pytest.mark.parametrize("value", ["60", None, True, -1, float("nan"), float("inf"), 10**400, [1]])
def test_a_value_that_is_no_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="wall_clock_s=.* must be a number of at least 0"):
        parse_budget({"wall_clock_s": value}, source=SOURCE)


def test_a_percentage_in_place_of_a_share_is_refused() -> None:
    with pytest.raises(UsageError, match=r"throughput=50 is a tolerance of 5000%.*\nNext: throughput=0\.05"):
        parse_budget({"throughput": 50}, source=SOURCE)


def test_a_budget_that_sets_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="sets nothing"):
        parse_budget({}, source=SOURCE)
