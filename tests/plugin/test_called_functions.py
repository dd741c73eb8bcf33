"""What a test may call, and where the history of the call is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

GOOD_CALLS = """
import dataclasses
import numpy as np
import pytest
from harness import HarnessError, SmokeTraining, assert_healthy, assert_loss_decreases
from trainings import crash, train


def write_csv(folder, rows="step,loss\\n0,3\\n1,2\\n"):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.csv").write_text(rows)


def test_returned(smoke_training):
    run = smoke_training(train, num_steps=30)
    assert run.source == "return value"
    assert run.result == run.losses
    assert_healthy(run)
    assert_loss_decreases(run, min_drop=0.5)


def test_recorded(smoke_training):
    def loop(record):
        for step in range(10):
            record(step=10 * step, loss=3.0 - 0.1 * step, num_samples=4)
    run = smoke_training(loop, smoke_training.record)
    assert (run.source, run.steps[-1].step) == ("record() callback", 90)
    assert run.throughput_unit == "samples/s"
    # Other options share the callback: the program was handed it already.
    assert smoke_training.options(loss="loss")(loop, record=smoke_training.record).losses == run.losses


def test_file_of_the_usual_name(smoke_training, tmp_path):
    run = smoke_training(write_csv, tmp_path / "deep")
    assert run.losses == [3.0, 2.0]
    assert run.source.endswith("deep/metrics.csv")


@pytest.mark.smoke_training(metrics="logs/*.jsonl", loss="ce", seed=5)
def test_file_named_by_the_marker(smoke_training, tmp_path):
    def loop():
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs/a.jsonl").write_text('{"ce": 1.5}')
        return train()
    run = smoke_training(loop)
    assert (run.losses, run.seed) == ([1.5], 5)
    assert smoke_training.seed == 5


def test_two_runs_that_write_side_by_side(smoke_training, tmp_path):
    first = smoke_training(write_csv, tmp_path / "a")
    second = smoke_training(write_csv, tmp_path / "b", "step,loss\\n0,1\\n")
    assert (first.losses, second.losses) == ([3.0, 2.0], [1.0])
    assert list(smoke_training.runs) == [first, second]


def test_a_file_of_an_earlier_run_is_not_read_again(smoke_training, tmp_path):
    smoke_training(write_csv, tmp_path)
    with pytest.raises(HarnessError, match="no optimizer step was seen"):
        smoke_training(lambda: None)


def test_arguments_reach_the_function_under_any_name(smoke_training):
    def loop(function, options, recorder, around):
        return [function, options, recorder, around]
    assert smoke_training(loop, function=4.0, options=3.0, recorder=2.0, around=1.0).losses == [4, 3, 2, 1]


def test_a_fixture_asked_for_late(request):
    assert request.getfixturevalue("smoke_training")(train).losses == train()


def test_another_folder(smoke_training, tmp_path):
    other = smoke_training.options(run_dir=tmp_path / "x", metrics="m.csv")
    (tmp_path / "x").mkdir()
    run = other(lambda: (tmp_path / "x/m.csv").write_text("loss\\n1\\n"))
    assert run.run_dir == tmp_path / "x"


def test_numbers_of_numpy(smoke_training):
    assert smoke_training(lambda: {"loss": np.array([2, 1], dtype=np.float32)}).losses == [2.0, 1.0]


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.smoke_training(seed=0)
def test_a_seed_repeats(smoke_training, seen, turn):
    import random
    seen.append(smoke_training(lambda: [random.random() for _ in range(9)]).losses)
    assert seen[0] == seen[-1]


def test_an_error_can_be_expected(smoke_training):
    with pytest.raises(HarnessError, match="out of cheese") as caught:
        smoke_training(crash)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not smoke_training.runs
"""


def test_a_history_is_found_wherever_a_program_leaves_it(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=GOOD_CALLS)
    result = project.runpytest_subprocess("-p", "no:benchmark")
    result.assert_outcomes(passed=13)
    assert result.ret == 0
