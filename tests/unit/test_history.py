from __future__ import annotations

import math
from collections import deque
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from harness.errors import ObservationError
from harness.record.history import as_number, build_steps, read_returned

LOSSES = [3.0, 2.0, 1.0]
ROWS = [{"loss": loss} for loss in LOSSES]


def read_losses(value: object) -> list[float] | None:
    steps = read_returned(value)
    return None if steps is None else [step.metrics["loss"] for step in steps]


@pytest.mark.parametrize(
    "returned",
    [
        LOSSES,
        deque(LOSSES),
        np.array(LOSSES),
        [np.float32(loss) for loss in LOSSES],
        [np.array([loss]) for loss in LOSSES],
        ROWS,
        {"loss": LOSSES},
        {"loss": np.array(LOSSES), "split": ["train"] * 3},
        {"history": ROWS, "model": object()},
        {"log_history": ROWS},
        SimpleNamespace(losses=LOSSES),
        SimpleNamespace(history={"loss": LOSSES}),
        pd.DataFrame({"loss": LOSSES}),
        (object(), LOSSES),
        ({"accuracy": 0.9}, ROWS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_history_is_found_in_what_training_functions_return(returned: object) -> None:
    assert read_losses(returned) == LOSSES


@pytest.mark.parametrize(
    "returned", [None, 0.5, "done", b"123", object(), {"accuracy": 0.9}, {}, [object()], (LOSSES, LOSSES)]
)
def test_other_return_values_hold_no_history(returned: object) -> None:
    assert read_returned(returned) is None


def test_a_final_loss_and_a_score_are_no_history() -> None:
    assert read_returned((0.31, 0.93)) is None


@pytest.mark.parametrize("returned", [[], {"loss": []}, {"history": []}])
def test_an_empty_history_is_told_from_none(returned: object) -> None:
    assert read_returned(returned) == []


def test_columns_of_different_lengths_are_refused_with_their_lengths() -> None:
    with pytest.raises(ObservationError, match=r"loss: 2, lr: 1") as caught:
        read_returned({"loss": [1.0, 2.0], "lr": [0.1]})
    assert "Next:" in str(caught.value)


def test_a_step_is_read_from_its_column_else_from_the_position() -> None:
    assert [step.step for step in build_steps([{"global_step": 10, "loss": 1}, {"loss": 2}])] == [10, 1]


def test_rows_of_one_step_are_merged_and_the_later_value_wins() -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 1, "val_loss": 3.0, "loss": 1.5}, {"step": 2, "loss": 1.0}]
    first, second = build_steps(rows)
    assert first.metrics == {"loss": 1.5, "val_loss": 3.0}
    assert second.metrics == {"loss": 1.0}


def test_values_that_are_no_numbers_are_passed_over_and_rows_without_any_too() -> None:
    (step,) = build_steps(
        [{"step": 0, "split": "train", "run": None}, {"step": 1, "split": "train", "loss": 2}]
    )
    assert (step.step, step.metrics) == (1, {"loss": 2.0})


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_the_row_its_position(number: float) -> None:
    (step,) = build_steps([{"step": number, "loss": 2.0}])
    assert (step.step, step.metrics["loss"]) == (0, 2.0)


def test_the_step_time_a_program_logs_is_taken_over() -> None:
    first, second = build_steps([{"time/step_s": 0.0, "loss": 2.0}, {"time/step_s": 0.25, "loss": 1.0}])
    assert (first.time_s, second.time_s) == (None, 0.25)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (True, 1.0),
        (np.float16(0.5), 0.5),
        (np.bool_(True), 1.0),
        (np.int64(7), 7.0),
        (np.array([[2.5]]), 2.5),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        ("3", None),
        (None, None),
        (1j, None),
        (np.array([1.0, 2.0]), None),
        ([1.0], None),
        (np.array("text"), None),
    ],
)
def test_one_number_is_a_number_whatever_holds_it(value: object, number: float | None) -> None:
    assert as_number(value) == number


def test_weights_and_strangers_are_no_history() -> None:
    class Stranger:
        @property
        def history(self) -> object:
            raise RuntimeError("not ready")

    assert read_returned(Stranger()) is None
    assert read_returned({"weight": np.zeros((3, 3)), "bias": np.zeros((3, 1))}) is None
