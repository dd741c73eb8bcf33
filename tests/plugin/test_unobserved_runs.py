"""A run that can't be judged is no finding: exit code 2, unless something else failed as well."""

from __future__ import annotations

import json
import re

import pytest

UNOBSERVED = """
import pytest
from harness import assert_artifacts, assert_loss_decreases
from trainings import crash, train


def test_raises(smoke_training):
    smoke_training(crash)


def test_exits(smoke_training):
    smoke_training(exit, "no data")


def test_empty(smoke_training):
    smoke_training(train, num_steps=0)


def test_nothing(smoke_training):
    smoke_training(lambda: "done")


def test_no_loss(smoke_training):
    smoke_training(lambda: {"acc": [0.1, 0.2]})


def test_unparsable(smoke_training, tmp_path):
    smoke_training(lambda: (tmp_path / "metrics.csv").write_text("step,loss\\n0,3.0\\n1,oops\\n"))


def test_not_callable(smoke_training):
    smoke_training(train())


def test_too_short(smoke_training):
    assert_loss_decreases(smoke_training(train, num_steps=5))


def test_no_pattern(smoke_training):
    assert_artifacts(smoke_training(train))


@pytest.mark.budget(wall_clock_s=60)
def test_no_run(smoke_training):
    pass


@pytest.mark.budget(step_time=0.1)
def test_no_step_times(smoke_training):
    smoke_training(train)
"""


def test_runs_that_can_not_be_judged_say_why_and_exit_with_2(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=UNOBSERVED)
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=11)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [
            "*RuntimeError: out of cheese",
            "*ObservationError: crash() raised RuntimeError: out of cheese (before any step was seen)",
            "*raised SystemExit: no data*",
            "*no optimizer step was seen in train(): *an empty returned history*",
            "*no optimizer step was seen in *(): * (the return value, str, holds none)*",
            "*no loss in the return value: it holds acc.",
            "*metrics file *metrics.csv can't be parsed at line 3: 'oops' in column 'loss' is not a number.",
            "*UsageError: smoke_training([[]3.0*) can't be called.",
            "*T101 loss-not-decreasing can't be judged for train(): it needs 6 losses, the run has 5.",
            "*assert_artifacts(run) names no file.",
            "*the budget of test_it.py::test_no_run compared nothing: the test ran no smoke_training.",
            "*the budget on step_time_s compared nothing: the return value tells no step times*",
        ]
    )
    document = json.loads((project.path / "harness-report/session.json").read_text())
    assert {test["outcome"] for test in document["tests"]} == {"not observed"}
    assert len(document["tests"]) == 11


def test_an_ordinary_failure_beside_them_exits_with_1(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from trainings import crash
        def test_raises(smoke_training): smoke_training(crash)
        def test_ordinary(): assert 1 == 2
        @pytest.mark.xfail(strict=True, reason="known")
        def test_expected(smoke_training): smoke_training(crash)
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=2, xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["test_it*::test_expected *xfailed: *crash() raised RuntimeError: out of*"])


def test_expected_failures_alone_exit_with_0(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from trainings import crash, train
        @pytest.mark.xfail(strict=True)
        @pytest.mark.budget(max_final_loss=0)
        def test_expected(smoke_training): smoke_training(train)
        @pytest.mark.skip(reason="not today")
        @pytest.mark.budget(max_final_loss=0)
        def test_skipped(smoke_training): smoke_training(crash)
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(xfailed=1, skipped=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["test_it*::test_expected *xfailed: *", "test_it*::test_skipped *skipped: not today"]
    )


def test_an_interrupt_in_a_training_ends_the_session_with_its_report(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        from trainings import train
        def interrupt(): raise KeyboardInterrupt
        def test_good(smoke_training): smoke_training(train)
        def test_interrupted(smoke_training): smoke_training(interrupt)
        """
    )
    result = project.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["test_it.py::test_good *passed", "*KeyboardInterrupt*"])


LEAVING = """
import sys
from pathlib import Path

import pytest
import torch


def train():
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for step in range(12):
        if step == 6:
            weight.data.fill_(float("nan"))
        loss = weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not loss.isfinite():
            sys.exit(3)


def test_call(smoke_training):
    smoke_training(train)


def test_command(smoke_training, tmp_path):
    (tmp_path / "train.py").write_text(Path(__file__).read_text() + "\\n\\ntrain()\\n")
    smoke_training.command([sys.executable, str(tmp_path / "train.py")])
"""


def test_a_program_that_leaves_at_nan_shows_what_leads_to_it(project: pytest.Pytester) -> None:
    project.makepyfile(LEAVING)
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=2)
    assert result.ret == 2
    told = [line.strip() for line in result.outlines]
    assert sum("Seen before that:" in line for line in told) >= 2
    assert sum("error: T2" in line for line in told) >= 2
    result.stdout.fnmatch_lines(["*Next: run the command by hand*"])


def test_a_refusal_ends_at_the_users_own_line(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from trainings import crash, train
        from harness import assert_matches_baseline

        def test_refused(smoke_training):
            assert_matches_baseline(smoke_training(train))

        def test_crashed(smoke_training):
            smoke_training(crash)
        """
    )
    project.runpytest_subprocess("--accept-baselines", "--reason", "initial")
    (stored,) = project.path.glob("baselines/trajectories/*/*.json")
    stored.write_text("{")
    result = project.runpytest_subprocess()
    told = [line.strip() for line in result.outlines]
    begin = next(number for number, line in enumerate(told) if "test_refused _" in line)
    end = next(number for number, line in enumerate(told) if "test_crashed _" in line)
    refused, crashed = told[begin:end], told[end:]
    assert any(line.startswith("E ") and "can't be read: Expecting property name" in line for line in refused)
    assert "JSONDecodeError" not in "\n".join(refused)
    assert [line for line in refused if line.startswith("> ")] == [
        ">       assert_matches_baseline(smoke_training(train))"
    ]
    # What the user's own code raised is shown with its own lines, before what became of it.
    assert ">       smoke_training(crash)" in crashed
    assert any(line.startswith("> ") and "out of cheese" in line for line in crashed)
    assert not [line for line in told if re.search(r"harness/.*\.py:\d+", line)]
