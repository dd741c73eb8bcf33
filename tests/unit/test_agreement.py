"""Logged losses against watched ones: the cases that a curve alone does not make."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING

import pytest

from harness.record.agreement import Kind, compare_logged
from harness.record.loader_observation import EpochObservation, LoaderObservation
from harness.record.observation import Outcome, RunObservation
from harness.record.run import Step
from harness.record.step_observation import StepObservation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun

RANDOM = random.Random(0)
LOSSES = [3.0 * 0.98**step * (1 + 0.1 * RANDOM.gauss(0, 1)) for step in range(60)]


def observe(losses: Sequence[Sequence[float]], **changes: object) -> RunObservation:
    steps = [StepObservation(step, sum(parts), list(parts)) for step, parts in enumerate(losses)]
    return RunObservation(steps=steps, outcome=Outcome.COMPLETED, **changes)  # type: ignore[arg-type]


def to_log(values: Sequence[float], name: str = "loss") -> list[Step]:
    return [Step(number, {name: value}) for number, value in enumerate(values)]


def test_the_last_of_several_micro_batches_is_told_from_their_sum(
    make_run: Callable[..., TrainingRun],
) -> None:
    parts = [[loss / 2, loss / 2 * (1 + 0.1 * RANDOM.gauss(0, 1))] for loss in LOSSES]
    observed = observe(parts)
    found = compare_logged(make_run(observed=observed, logged=to_log([part[-1] for part in parts])))
    assert (found.kind, found.of) == (Kind.SAME, "last micro-batch")
    found = compare_logged(make_run(observed=observed, logged=to_log([sum(part) / 2 for part in parts])))
    assert found.kind is Kind.SAME
    assert found.of == "mean of micro-batches"


def test_the_loss_of_rank_0_is_told_from_the_mean_of_the_ranks(make_run: Callable[..., TrainingRun]) -> None:
    first, second = observe([[loss] for loss in LOSSES]), observe([[loss] for loss in reversed(LOSSES)])
    means = [statistics.fmean(pair) for pair in zip(LOSSES, reversed(LOSSES), strict=True)]
    run = make_run(means, observed=first, ranks=(first, second), logged=to_log(LOSSES))
    assert (compare_logged(run).kind, compare_logged(run).of) == (Kind.SAME, "rank 0")
    run.logged = to_log(means)
    assert (compare_logged(run).kind, compare_logged(run).of) == (Kind.SAME, "step")


def test_a_mean_that_starts_anew_in_each_epoch_is_found(make_run: Callable[..., TrainingRun]) -> None:
    epochs = [EpochObservation(after_step=start, num_batches=20) for start in (0, 20, 40)]
    loader = LoaderObservation("Digits", 80, 4, 0, "RandomSampler", drop_last=True, epochs=epochs)
    observed = observe([[loss] for loss in LOSSES], loaders=[loader])
    logged = [statistics.fmean(LOSSES[step - step % 20 : step + 1]) for step in range(60)]
    found = compare_logged(make_run(observed=observed, logged=to_log(logged)))
    assert (found.kind, found.window) == (Kind.MEAN, 0)


def test_steps_that_a_scaler_skipped_may_be_left_out_of_the_log(make_run: Callable[..., TrainingRun]) -> None:
    observed = observe([[loss] for loss in LOSSES])
    observed.steps[0].was_skipped = observed.steps[7].was_skipped = True
    kept = [loss for step, loss in enumerate(LOSSES) if step not in (0, 7)]
    assert compare_logged(make_run(observed=observed, logged=to_log(kept))).kind is Kind.SAME
    assert compare_logged(make_run(observed=observed, logged=to_log(LOSSES))).kind is Kind.SAME


def test_losses_in_half_precision_may_differ_in_their_last_bits(make_run: Callable[..., TrainingRun]) -> None:
    rounded = [math.ldexp(round(math.ldexp(part, 8)), power - 8) for part, power in map(math.frexp, LOSSES)]
    run = make_run(observed=observe([[loss] for loss in rounded]), logged=to_log(LOSSES))
    assert compare_logged(run).kind is Kind.SAME


def test_a_coarse_log_tells_nothing_of_factors(make_run: Callable[..., TrainingRun]) -> None:
    losses = [2.0 + 0.001 * loss for loss in LOSSES]
    logged = to_log([round(loss / 4, 2) for loss in losses])
    found = compare_logged(make_run(observed=observe([[loss] for loss in losses]), logged=logged))
    assert (found.kind, found.scale) == (Kind.TOO_FEW, 1.0)


@pytest.mark.parametrize(
    "logged", [[], to_log(LOSSES[:5]), to_log(LOSSES, "accuracy"), to_log([math.nan] * 60)]
)
def test_too_little_to_compare_is_said(make_run: Callable[..., TrainingRun], logged: list[Step]) -> None:
    found = compare_logged(make_run(observed=observe([[loss] for loss in LOSSES]), logged=logged))
    assert found.kind is Kind.TOO_FEW
    assert not found.is_disagreement


def test_a_run_that_was_not_watched_has_nothing_to_compare_with(make_run: Callable[..., TrainingRun]) -> None:
    assert compare_logged(make_run(logged=to_log(LOSSES))).kind is Kind.TOO_FEW
    observed = observe([[loss] for loss in LOSSES])
    for row in observed.steps:
        row.loss, row.losses = None, []
    assert compare_logged(make_run(observed=observed, logged=to_log(LOSSES))).kind is Kind.TOO_FEW


def test_the_metric_named_as_the_loss_is_the_one_compared(make_run: Callable[..., TrainingRun]) -> None:
    logged = [Step(number, {"loss": -1.0, "nll": loss}) for number, loss in enumerate(LOSSES)]
    run = make_run(observed=observe([[loss] for loss in LOSSES]), logged=logged, loss_name="nll")
    assert (compare_logged(run).metric, compare_logged(run).kind) == ("nll", Kind.SAME)


def test_a_final_value_beside_every_step_is_not_called_stale(make_run: Callable[..., TrainingRun]) -> None:
    observed = observe([[loss] for loss in LOSSES])
    for value in (LOSSES[-1], statistics.fmean(LOSSES), 1.234567):
        found = compare_logged(make_run(observed=observed, logged=to_log([value] * 60)))
        assert (found.kind, found.is_disagreement) == (Kind.UNRELATED, False)
