"""A training function called in this process."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from harness.errors import ObservationError, UsageError
from harness.watch.call import run_call
from harness.watch.devices import Gpu, explain_missing_gpu, limited_threads, seeded
from harness.watch.launch import RunOptions
from harness.watch.options import ObserverOptions
from harness.watch.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.run import TrainingRun


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., TrainingRun]:
    def call(function: Callable[[], Any], **options: Any) -> TrainingRun:
        return run_call(function, options=RunOptions("train()", tmp_path, **options), recorder=Recorder())

    return call


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002  the global ones


def test_a_run_tells_what_it_was_and_what_it_cost(call: Callable[..., TrainingRun]) -> None:
    run = call(lambda: [3.0, 2.0], seed=7, threads=1)
    assert (run.losses, run.source, run.seed, run.threads, run.device) == (
        [3.0, 2.0],
        "return value",
        7,
        1,
        "cpu",
    )
    assert run.result == [3.0, 2.0]
    assert run.wall_clock_s > 0
    assert run.peak_memory_bytes is not None
    assert run.peak_memory_bytes > 2**20
    assert run.environment.torch == torch.__version__


def test_one_element_tensors_are_losses_also_while_they_need_a_gradient(
    call: Callable[..., TrainingRun],
) -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    assert call(lambda: [weight * 2, weight.sum()]).losses == [4.0, 2.0]
    assert call(lambda: torch.tensor([2.0, 1.0])).losses == [2.0, 1.0]


def test_a_seed_makes_all_generators_repeat_and_gives_their_states_back(
    call: Callable[..., TrainingRun],
) -> None:
    seen = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002  the global generator
        torch.manual_seed(1)
        before = draw()
        seen.append(call(draw, seed=5).losses)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        with pytest.raises(ObservationError), seeded(None):
            call(lambda: 1 / 0, seed=9)
        assert draw() == before
    assert seen[0] == seen[1]
    assert call(draw, seed=6).losses != seen[0]


def test_threads_are_given_back_also_after_an_exception(call: Callable[..., TrainingRun]) -> None:
    with limited_threads(3):
        assert call(lambda: [float(torch.get_num_threads())], threads=2).losses == [2.0]
        assert call(lambda: [float(torch.get_num_threads())], threads=None).losses == [3.0]
        with pytest.raises(ObservationError):
            call(lambda: 1 / 0, threads=2)
        assert torch.get_num_threads() == 3


def test_what_the_function_raises_is_the_cause_of_the_error(call: Callable[..., TrainingRun]) -> None:
    with pytest.raises(
        ObservationError, match=r"train\(\) raised ZeroDivisionError: .*before any step"
    ) as caught:
        call(lambda: 1 / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_tells_how_far_the_training_came(tmp_path: Path) -> None:
    recorder = Recorder()

    def train() -> None:
        recorder.record(step=3, loss=2.5)
        raise RuntimeError("boom")

    with pytest.raises(ObservationError, match=r"RuntimeError: boom \(after step 3: loss 2\.5\)"):
        run_call(train, options=RunOptions("train()", tmp_path), recorder=recorder)


@pytest.mark.parametrize("code", [0, None])
def test_a_program_that_exits_with_0_has_ended_well(
    call: Callable[..., TrainingRun], tmp_path: Path, code: int | None
) -> None:
    def main() -> None:
        (tmp_path / "metrics.csv").write_text("loss\n2\n")
        raise SystemExit(code)

    assert call(main).losses == [2.0]


def test_a_program_that_exits_otherwise_has_failed(call: Callable[..., TrainingRun]) -> None:
    def main() -> None:
        raise SystemExit("no data")

    with pytest.raises(ObservationError, match="raised SystemExit: no data"):
        call(main)


def test_an_interrupt_and_misuse_of_the_harness_pass_through(call: Callable[..., TrainingRun]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(interrupt)
    with pytest.raises(UsageError, match="got no metric"):
        call(lambda: Recorder().record())


def test_a_history_without_a_loss_names_what_it_holds(call: Callable[..., TrainingRun]) -> None:
    history = {"accuracy": [0.1], "ce": [2.0]}
    with pytest.raises(ObservationError, match="no loss in the return value: it holds accuracy, ce"):
        call(lambda: history)
    with pytest.raises(ObservationError, match="no metric 'nll'; it holds accuracy, ce"):
        call(lambda: history, loss="nll")
    assert call(lambda: history, loss="ce").losses == [2.0]


@pytest.mark.parametrize(
    ("gpus", "wanted", "told"),
    [
        ([], {}, "torch sees none"),
        ([Gpu("NVIDIA H200", 140)], {"name": "h200", "memory_gb": 100}, None),
        ([Gpu("NVIDIA H200", 140)], {"count": 2}, "needs 2 GPUs; this machine has NVIDIA H200 (140 GiB)"),
        (
            [Gpu("T4", 15)],
            {"memory_gb": 40},
            "needs 1 GPU with at least 40 GiB; this machine has T4 (15 GiB)",
        ),
        ([Gpu("T4", 15)], {"name": "A100"}, "needs 1 GPU named like 'A100'; this machine has T4 (15 GiB)"),
    ],
)
def test_a_missing_gpu_is_explained(gpus: list[Gpu], wanted: dict[str, Any], told: str | None) -> None:
    explained = explain_missing_gpu(gpus, **{"count": 1, "memory_gb": 0, "name": "", **wanted})
    assert explained is None if told is None else told in str(explained)


def update_by_hand(record: Callable[..., None] | None = None) -> None:
    weight = torch.ones(3, requires_grad=True)
    for step in range(1000):
        loss = (weight * weight).sum()
        loss.backward()
        assert weight.grad is not None
        weight.data -= 0.01 * weight.grad
        weight.grad = None
        if record is not None:
            record(step=step, loss=loss)


def test_max_steps_ends_a_program_without_an_optimizer_and_says_what_it_counted(tmp_path: Path) -> None:
    options = RunOptions("train()", tmp_path, watch=ObserverOptions(max_steps=30))
    with pytest.raises(ObservationError) as caught:
        run_call(update_by_hand, options=options, recorder=Recorder())
    message = str(caught.value)
    assert message.startswith(
        "no optimizer step was seen in train(): 0 forward and 30 backward passes were seen; "
    )
    assert (
        "ended from outside after 30 updates of the parameters by hand (max_steps=30; no optimizer" in message
    )
    assert "record" in message.rpartition("Next:")[2]


def test_a_program_without_an_optimizer_that_logs_is_judged_by_its_log(tmp_path: Path) -> None:
    options = RunOptions("train()", tmp_path, watch=ObserverOptions(max_steps=30))
    recorder = Recorder()
    run = run_call(lambda: update_by_hand(recorder.record), options=options, recorder=recorder)
    assert (len(run.losses), run.source) == (30, "record() callback")
