from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness.record.run import Step, TrainingRun, find_loss_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    MakeRun = Callable[..., TrainingRun]


def time_steps(times: Sequence[float | None], **metrics: float) -> list[Step]:
    return [Step(step, {"loss": 1.0, **metrics}, time_s=time_s) for step, time_s in enumerate(times)]


def test_the_step_time_is_the_median_after_the_first_fifth(make_run: MakeRun) -> None:
    run = make_run(steps=time_steps([9.0, 9.0, 1.0, 2.0, 3.0, 2.0, 2.0, 50.0, 2.0, 1.0]))
    assert run.step_time_s == 2.0


@pytest.mark.parametrize("times", [[], [None] * 9, [1.0, 1.0, 1.0]], ids=str)
def test_fewer_than_three_steady_steps_have_no_step_time(
    make_run: MakeRun, times: list[float | None]
) -> None:
    run = make_run(steps=time_steps(times))
    assert (run.step_time_s, run.throughput) == (None, None)


@pytest.mark.parametrize(
    ("metrics", "throughput", "unit"),
    [
        ({}, 2.0, "steps/s"),
        ({"num_samples": 8.0}, 16.0, "samples/s"),
        ({"samples": 8.0, "tokens": 100.0}, 200.0, "tokens/s"),
    ],
)
def test_throughput_counts_tokens_before_samples_before_steps(
    make_run: MakeRun, metrics: dict[str, float], throughput: float, unit: str
) -> None:
    run = make_run(steps=time_steps([0.5] * 8, **metrics))
    assert (run.throughput, run.throughput_unit) == (throughput, unit)


def test_the_loss_is_the_metric_that_was_asked_for_else_a_well_known_one() -> None:
    steps = [Step(0, {"val_loss": 1.0, "train_loss": 2.0, "ce": 3.0})]
    assert find_loss_name(steps) == "train_loss"
    assert find_loss_name(steps, "ce") == "ce"
    assert find_loss_name(steps, "missing") is None
    assert find_loss_name([]) is None


def test_a_metric_that_some_steps_do_not_log_keeps_its_steps(make_run: MakeRun) -> None:
    run = make_run(steps=[Step(0, {"loss": 2.0}), Step(5, {"loss": 1.0, "val_loss": 1.5})])
    assert run.metric("val_loss") == [(5, 1.5)]
    assert run.metric_names == ["loss", "val_loss"]
    assert run.metric("missing") == []


def test_a_run_without_a_loss_has_no_losses(make_run: MakeRun) -> None:
    assert make_run(loss_name=None).losses == []


def test_the_frame_has_a_row_per_step_and_nan_where_nothing_was_logged(make_run: MakeRun) -> None:
    frame = make_run(steps=[Step(3, {"loss": 2.0}, time_s=0.5), Step(7, {"lr": 0.1})]).frame()
    assert list(frame.columns) == ["loss", "time_s", "lr"]
    assert list(frame.index) == [3, 7]
    assert frame.loc[3, "loss"] == 2.0
    assert math.isnan(float(frame["loss"].iloc[1]))


def test_a_run_without_steps_gives_an_empty_frame(make_run: MakeRun) -> None:
    assert make_run(steps=[]).frame().empty
