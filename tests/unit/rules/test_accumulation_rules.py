"""Losses of micro-batches, on records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.rules.gradient_records import CALL, find, make_observation, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.observation import RunObservation
    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]


def make_accumulating(
    scales: tuple[float, ...],
    counts: tuple[int, ...] = (40, 40),
    *,
    name: str = "cross_entropy",
    **deep: Any,
) -> RunObservation:
    """Two micro-batches of 8 sequences, whose mean losses reach the gradient with these scales."""
    calls = [
        replace(CALL, name=name, scale=scale, input_shape=(count, 9), target_shape=(count,))
        for scale, count in zip(scales, counts, strict=True)
    ]
    num = len(scales)
    return make_observation(
        deep={
            "batch_fingerprints": [str(number) for number in range(num)],
            "grad_norms_before_backward": [None, *[0.5] * (num - 1)],
            "grad_norms_after_backward": [0.6] * (num - 1) + [1.0],
            "loss_functions": calls,
            **deep,
        },
        step={
            "num_micro_batches": num,
            "losses": [2.0 * scale for scale in scales],
            "batch_shapes": [[(8, count // 8)] for count in counts],
        },
    )


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        ((0.5, 0.5), []),
        ((1.0, 1.0), [("T411", "warning")]),
        ((0.25, 0.25), [("T411", "warning")]),
        ((0.8, 0.2), [("T411", "note")]),
    ],
)
def test_weights_of_micro_batches_must_add_up_to_one(
    make_run: MakeRun, scales: tuple[float, ...], told: list[tuple[str, str]]
) -> None:
    assert tell(find(make_run, make_accumulating(scales))) == told


def test_half_of_a_squared_error_is_not_taken_for_a_loss_divided_twice(make_run: MakeRun) -> None:
    assert find(make_run, make_accumulating((0.25, 0.25), name="mse_loss")) == []


def test_one_batch_with_two_losses_and_another_term_in_the_loss_are_not_judged(make_run: MakeRun) -> None:
    assert find(make_run, make_accumulating((1.0, 1.0), batch_fingerprints=["a"])) == []
    observed = make_accumulating((1.0, 1.0))
    for step in observed.steps:
        step.losses = [2.5, 2.5]
    assert find(make_run, observed) == []


def test_micro_batches_with_different_counts_must_weigh_as_their_targets(make_run: MakeRun) -> None:
    (finding,) = find(make_run, make_accumulating((0.5, 0.5), (48, 32)))
    assert tell([finding]) == [("T412", "warning")]
    assert "48, 32 targets" in finding.message
    assert find(make_run, make_accumulating((0.6, 0.4), (48, 32))) == []


def test_a_smaller_batch_of_samples_is_silent(make_run: MakeRun) -> None:
    observed = make_accumulating((0.5, 0.5), (48, 32))
    for step in observed.steps:
        step.batch_shapes = [[(48, 8)], [(32, 8)]]
    assert find(make_run, observed) == []


def test_micro_batches_that_are_cleared_away_are_told(make_run: MakeRun) -> None:
    observed = make_accumulating((0.5, 0.5), grad_norms_before_backward=[None, None])
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T413", "warning")]
    # As the optimizer gets them, not as they are under a GradScaler.
    scaled = make_accumulating((0.5, 0.5), grad_norms_before_backward=[None, None])
    for deep in scaled.deep_steps:
        deep.loss_scale = 1024.0
        deep.grad_norms_after_backward = [1024.0 * (norm or 0.0) for norm in deep.grad_norms_after_backward]
    assert find(make_run, scaled)[0].message == finding.message
    # A sharpness-aware step uses one batch; gradients combined by hand are not the last one's.
    same_batch = make_accumulating(
        (0.5, 0.5), grad_norms_before_backward=[None, None], batch_fingerprints=["a", "a"]
    )
    assert find(make_run, same_batch) == []
    combined = make_accumulating((0.5, 0.5), grad_norms_before_backward=[None, None], grad_norm=1.4)
    assert find(make_run, combined) == []


def test_a_loss_propagated_back_twice_is_told(make_run: MakeRun) -> None:
    observed = make_observation(
        deep={"grad_norms_before_backward": [None, 1.0], "grad_norms_after_backward": [1.0, 2.0]},
        step={"num_micro_batches": 2, "losses": [2.0, 2.0]},
    )
    assert tell(find(make_run, observed)) == [("T414", "warning")]
    two_tasks = make_observation(
        deep={"grad_norms_before_backward": [None, 1.0], "grad_norms_after_backward": [1.0, 1.4]},
        step={"num_micro_batches": 2, "losses": [2.0, 2.0]},
    )
    assert find(make_run, two_tasks) == []
