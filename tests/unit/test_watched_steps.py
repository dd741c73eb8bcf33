from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness.errors import ObservationError
from harness.record.observation import Outcome, RunObservation
from harness.record.run import Step
from harness.record.step_observation import StepObservation
from harness.record.watched import build_watched_steps, find_phase_shares, has_several_optimizers
from harness.rules.diagnosis import diagnose
from harness.watch.launch import Cost, Logged, RunOptions, build_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.run import TrainingRun

COST = Cost(1.0, None, None)


def observe(*optimizers: list[int], **changes: object) -> RunObservation:
    steps = [
        StepObservation(step=step, loss=3.0 - 0.1 * step, optimizers=indices, learning_rates=[[0.1]])
        for step, indices in enumerate(optimizers)
    ]
    for step in steps:
        for name, value in changes.items():
            setattr(step, name, value)
    return RunObservation(steps=steps, outcome=Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("optimizers", "takes_turns"),
    [
        ([[0]] * 4, False),
        ([[0], [1], [0], [1]], True),
        ([[0], [0], [1], [1]], False),
        ([[0], [0, 1], [0], [0, 1]], False),
        ([[0], [0], [1], [0], [0], [1]], True),
    ],
    ids=["one", "gan", "stages", "rarer", "uneven turns"],
)
def test_optimizers_take_turns_only_when_disjoint_ones_alternate(
    optimizers: list[list[int]], takes_turns: bool
) -> None:
    assert has_several_optimizers(observe(*optimizers)) is takes_turns


def test_losses_of_optimizers_that_take_turns_are_kept_apart() -> None:
    steps = build_watched_steps(observe([0], [1], [0], [1]))
    assert [max(step.metrics) for step in steps] == ["loss/0", "loss/1"] * 2


def test_a_learning_rate_that_is_no_number_is_left_out() -> None:
    (step,) = build_watched_steps(observe([0], learning_rates=[[None, 0.5]]))
    assert step.metrics["learning_rate"] == 0.5
    (step,) = build_watched_steps(observe([0], learning_rates=[[None]]))
    assert "learning_rate" not in step.metrics


def test_the_norm_of_a_step_that_the_scaler_skipped_is_left_out() -> None:
    (step,) = build_watched_steps(observe([0], was_skipped=True, grad_norm=float("inf")))
    assert "grad_norm" not in step.metrics


def test_phases_share_the_median_step() -> None:
    observation = observe(*[[0]] * 3, time_s=1.0, phase_times_s={"data": 1.0, "forward": 3.0})
    assert find_phase_shares(observation) == {"data": 0.25, "forward": 0.75}
    assert find_phase_shares(observe([0])) == {}


def test_a_named_logged_loss_keeps_the_watched_times(tmp_path: Path) -> None:
    seen = [observe(*[[0]] * 8, time_s=0.5)]
    logged = Logged([Step(step, {"nll": 5.0 - step}) for step in range(4)], "return value")
    run = build_run(RunOptions("train()", tmp_path, loss="nll"), logged, seen, COST)
    assert run.losses == [5.0, 4.0, 3.0, 2.0]
    assert (run.loss_name, run.source, run.step_time_s) == ("nll", "return value", 0.5)


def test_a_rank_that_was_killed_is_no_whole_run_whatever_its_launcher_says(tmp_path: Path) -> None:
    broken = observe(*[[0]] * 8)
    broken.outcome = Outcome.CRASHED
    with pytest.raises(ObservationError, match=r"ended well, but rank 0 .*crashed .after step 7: loss 2.3"):
        build_run(RunOptions("train()", tmp_path), Logged([], ""), [broken], COST)


def test_a_level_loss_is_an_error_only_where_something_shows_that_nothing_moves(
    make_run: Callable[..., TrainingRun],
) -> None:
    losses = [2.0 + 0.001 * (step % 3) for step in range(30)]
    (finding,) = diagnose(make_run(losses)).findings
    assert finding.severity == "note"
    still = observe(*[[0]] * 30, learning_rates=[[0.0]])
    (finding,) = diagnose(make_run(losses, observed=still)).errors
    assert "the learning rate is 0 in all 30 steps" in finding.message
    frozen = observe(*[[0]] * 30, update_norm=0.0)
    (finding,) = diagnose(make_run(losses, observed=frozen)).errors
    assert "no parameter changes in the 30 steps" in finding.message


def test_nan_that_the_program_logged_is_found_beside_watched_steps(
    make_run: Callable[..., TrainingRun],
) -> None:
    logged = [Step(5, {"val/loss": float("nan")})]
    (finding,) = diagnose(make_run(logged=logged, logged_source="metrics file m.csv")).errors
    assert finding.message.startswith("val/loss is nan at step 5, for the first time; 1 of 1 values")
    assert "metrics file m.csv" in finding.message


def join(*ranks: RunObservation) -> list[RunObservation]:
    for rank, run in enumerate(ranks):
        run.rank, run.world_size, run.has_process_group = rank, len(ranks), True
    return list(ranks)


def test_the_loss_of_ranks_that_train_together_is_their_mean(tmp_path: Path) -> None:
    ranks = join(observe(*[[0]] * 8), observe(*[[0]] * 8, loss=1.0))
    run = build_run(RunOptions("train()", tmp_path), Logged([], ""), ranks, COST)
    assert run.losses == pytest.approx([(4.0 - 0.1 * step) / 2 for step in range(8)])
    assert run.source == "watched optimizer steps, mean loss of 2 ranks"
    assert [rank.losses[0] for rank in run.ranks] == [3.0, 1.0]
    assert run.notes == []


def test_a_loss_that_is_nan_on_one_rank_is_nan() -> None:
    ranks = join(observe(*[[0]] * 2), observe(*[[0]] * 2))
    ranks[1].steps[1].loss = math.nan
    steps = build_watched_steps(ranks[0], ranks)
    assert steps[0].metrics["loss"] == 3.0
    assert math.isnan(steps[1].metrics["loss"])


def test_of_a_pipeline_the_stage_that_sees_a_loss_tells_it() -> None:
    ranks = join(observe(*[[0]] * 2, loss=None), observe(*[[0]] * 2))
    assert [step.metrics["loss"] for step in build_watched_steps(ranks[0], ranks)] == [3.0, 2.9]


def test_ranks_without_a_process_group_are_separate_trainings_and_a_note_says_so(tmp_path: Path) -> None:
    ranks = join(observe(*[[0]] * 8), observe(*[[0]] * 8, loss=1.0))
    for rank in ranks:
        rank.has_process_group = False
    run = build_run(RunOptions("train()", tmp_path), Logged([], ""), ranks, COST)
    assert run.losses == ranks[0].losses
    (note,) = run.notes
    assert note.startswith("2 ranks trained beside one another, each for itself")
    assert "init_process_group" in note


def test_two_trainings_of_one_command_are_neither_averaged_nor_noted(tmp_path: Path) -> None:
    first, second = observe(*[[0]] * 8), observe(*[[0]] * 8, loss=1.0)
    run = build_run(RunOptions("train()", tmp_path), Logged([], ""), [first, second], COST)
    assert (run.losses, run.notes) == (first.losses, [])


def test_ranks_with_different_steps_are_not_averaged() -> None:
    ranks = join(observe(*[[0]] * 8), observe(*[[0]] * 7))
    assert build_watched_steps(ranks[0], ranks) == build_watched_steps(ranks[0])


@pytest.mark.parametrize(("peak_bytes", "device"), [(None, "cpu"), (0, "cpu"), (1024, "cuda")])
def test_a_run_that_had_memory_of_a_gpu_trained_there_though_nobody_asked_for_it(
    tmp_path: Path, peak_bytes: int | None, device: str
) -> None:
    observed = observe([0], [0], [0], [0])
    observed.cuda_peak_bytes = peak_bytes
    options = RunOptions("train.py", tmp_path)
    assert build_run(options, Logged([], "nothing"), [observed], COST).device == device
