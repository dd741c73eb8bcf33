from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness.budgets.metrics import (
    FINAL_LOSS,
    PEAK_MEMORY,
    STEP_TIME,
    THROUGHPUT,
    WALL_CLOCK,
    Metric,
    measure,
)
from harness.budgets.unmeasured import explain_unmeasured

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]


def test_every_metric_is_read_off_a_run(make_run: MakeRun) -> None:
    assert measure(make_run([9.0] * 17 + [3.0, 2.0, 1.0])) == {
        "wall_clock_s": 10.0,
        "step_time_s": 0.5,
        "throughput": 2.0,
        "peak_memory_bytes": 100 * 2**20,
        "final_loss": 2.0,
    }


def test_a_profiled_run_has_no_times(make_run: MakeRun) -> None:
    assert set(measure(make_run(is_profiled=True))) == {"peak_memory_bytes", "final_loss"}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, None])
def test_a_cost_that_is_no_number_above_0_was_not_measured(make_run: MakeRun, value: float | None) -> None:
    run = make_run(wall_clock_s=value, peak_memory_bytes=value)
    assert not {"wall_clock_s", "peak_memory_bytes"} & set(measure(run))


@pytest.mark.parametrize("losses", [[1.0, math.nan, 1.0], [math.inf, -math.inf, 1.0], [1e308] * 3])
def test_a_final_loss_that_is_not_finite_is_measured_as_such(make_run: MakeRun, losses: list[float]) -> None:
    assert not math.isfinite(measure(make_run(losses))["final_loss"])


def test_a_run_without_a_loss_has_no_final_loss(make_run: MakeRun) -> None:
    assert "final_loss" not in measure(make_run(loss_name=None))


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        (WALL_CLOCK, 12.345, "12.3 s"),
        (STEP_TIME, 0.01234, "12.3 ms"),
        (THROUGHPUT, 12345.6, "12,346 tokens/s"),
        (THROUGHPUT, 12.3456, "12.35 tokens/s"),
        (PEAK_MEMORY, 3 * 2**20, "3.0 MiB"),
        (FINAL_LOSS, 1.23456789, "1.23457"),
        (FINAL_LOSS, math.nan, "nan"),
    ],
)
def test_a_value_is_shown_with_its_unit(metric: Metric, value: float, shown: str) -> None:
    assert metric.show(value, "tokens/s") == shown


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (THROUGHPUT, "tells no step times"),
        (PEAK_MEMORY, "could not be read"),
        (FINAL_LOSS, "the run has none"),
    ],
)
def test_a_metric_that_was_not_measured_says_why_and_what_to_do(
    make_run: MakeRun, metric: Metric, told: str
) -> None:
    explained = explain_unmeasured(make_run(), metric)
    assert told in explained
    assert "Next:" in explained
