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


def test_a_training_is_watched_whatever_it_returns_and_ended_where_it_has_no_limit(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        test_it="""
        import pytest, torch
        from harness import UsageError, assert_healthy

        def train(result, steps=10**9):
            model = torch.nn.Linear(4, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            ended = False
            try:
                for _ in range(steps):
                    inputs = torch.randn(32, 4)
                    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            finally:
                ended = True
            return result, model.state_dict()

        @pytest.mark.smoke_training(seed=0, max_steps=25)
        @pytest.mark.parametrize("result", [None, {"train": [1.0, 2.0], "val": [1.0]}])
        def test_watched(smoke_training, result):
            run = smoke_training(train, result)
            assert len(run.losses) == 25
            assert run.source == "watched optimizer steps"
            assert run.throughput_unit == "samples/s"
            assert [rate for _, rate in run.metric("learning_rate")] == [0.1] * 25
            assert run.observed.outcome == "stopped"
            assert_healthy(run)

        @pytest.mark.smoke_training(seed=0)
        def test_columns_that_do_not_fit(smoke_training):
            run = smoke_training(lambda: train(None, 30) and {"train": [1.0, 2.0], "val": [1.0]})
            assert len(run.losses) == 30
            assert "different lengths" in run.notes[0]

        def test_unwatched_has_no_limit(smoke_training, request):
            with pytest.raises(UsageError, match="watching is off"):
                smoke_training.options(max_steps=5)
        """
    )
    result = project.runpytest_subprocess("-k", "not unwatched")
    result.assert_outcomes(passed=3, deselected=1)
    result = project.runpytest_subprocess("-k", "unwatched", "--harness-watch=off")
    result.assert_outcomes(passed=1, deselected=3)


def test_a_rerun_forgets_the_attempt_before_it(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            if any(report.failed for report in reports):
                item._initrequest()
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    project.makepyfile(
        test_it="""
        import pytest
        attempts = []

        @pytest.mark.budget(final_loss=0.1)
        def test_r(smoke_training):
            smoke_training(lambda: [2.0 - step / 20 for step in range(20)])
            attempts.append(0)
            assert len(smoke_training.runs) == 1
            assert len(attempts) == 2
        """
    )
    result = project.runpytest_subprocess("--accept-baselines", "--reason", "initial")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*#2*")
