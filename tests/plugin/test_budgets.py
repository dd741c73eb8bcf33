"""Budgets fail the test they are on, in the three cases of a baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.pools import Launch, PoolStore
from harness.baselines.shelves import FolderShelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.environment import Environment

    Fill = Callable[..., None]

CLASS = "own-runner"
PROGRAM = """
import torch
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(8):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()
"""
TESTS = """
import pytest
from trainings import train_timed


@pytest.mark.budget(wall_clock_s=60, step_time_s=0.05, min_throughput=100, max_final_loss=1)
def test_limits(smoke_training):
    smoke_training(train_timed)


@pytest.mark.budget(step_time=0.1, final_loss=0.1)
def test_baseline(smoke_training):
    smoke_training(train_timed)
"""


@pytest.fixture
def fill(project: pytest.Pytester, environment: Environment, make_launch: Callable[..., Launch]) -> Fill:
    """Stores five even launches of a test."""

    def fill(*, runner_class: str = CLASS, test: str = "test_it.py::test_baseline", **values: float) -> None:
        for number in range(5):
            launch = replace(make_launch(**values), recorded_at=f"2026-11-0{number + 1}")
            store = PoolStore(FolderShelf(project.path / "baselines"))
            store.extend(test, [launch], environment, runner_class)

    return fill


@pytest.fixture
def run(project: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    def run(*arguments: str, test: str = "test_baseline") -> pytest.RunResult:
        options: list[Any] = [f"--harness-runner-class={CLASS}", "-k", test, *arguments]
        return project.runpytest_subprocess(*options)

    project.makepyfile(test_it=TESTS)
    return run


def test_a_limit_holds_without_a_baseline_and_says_by_whom_it_was_set(
    run: Callable[..., pytest.RunResult],
) -> None:
    result = run(test="test_limits")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "step_time_s 100 ms is over its limit of 50 ms (@pytest.mark.budget on test_it.py::test_limits).",
            "throughput 10 steps/s is under its limit of 100 steps/s (@pytest.mark.budget on *).",
            "test_it.py::test_limits *FAILED: limit exceeded",
        ]
    )
    result.stdout.no_fnmatch_line("*is over its limit of 60 s*")
    result.stdout.no_fnmatch_line("*final_loss*")


def test_a_missing_baseline_fails_and_names_the_accept_command(run: Callable[..., pytest.RunResult]) -> None:
    result = run()
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "step_time_s has no baseline for test_it.py::test_baseline in any runner class; observed 100 ms.",
            "final_loss has no baseline for *",
            'Next: pytest "test_it.py::test_baseline" --accept-baselines --reason "initial"',
            "test_it.py::test_baseline *FAILED: missing baseline",
        ]
    )


def test_a_baseline_of_another_class_passes_with_a_note_and_fails_where_one_is_required(
    run: Callable[..., pytest.RunResult], fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(step_time_s=0.001, final_loss=0.45)
    monkeypatch.setenv("HARNESS_RUNNER_CLASS", "other")
    result = run("--harness-runner-class=other")
    result.assert_outcomes(passed=1)
    reason = "this is runner class other, baselines are there for own-runner."
    note = f"note: test_it.py::test_baseline: step_time_s not comparable: {reason}"
    result.stdout.fnmatch_lines(["test_it.py::test_baseline *passed, not comparable", note])
    required = run("--harness-runner-class=other", "--harness-require-baseline")
    required.assert_outcomes(failed=1)
    required.stdout.fnmatch_lines(
        [
            f"*step_time_s 100 ms is not comparable: {reason}",
            "Next: to judge it here, pytest *--accept-baselines *; without a baseline: harness ab *",
        ]
    )


def test_a_baseline_of_this_class_catches_a_slowdown(
    run: Callable[..., pytest.RunResult], fill: Fill
) -> None:
    fill(step_time_s=0.05, final_loss=0.45)
    result = run()
    if "the machine was busy" in result.stdout.str():
        # Then it is no finding, as it should be; that a quiet machine makes it one is shown in test_judge.py too.
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["note: *step_time_s (+100.0%) inconclusive: the machine was busy*"])
        return
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "step_time_s regressed: baseline 50 ms, observed 100 ms (+100.0%, allowed 10.0% by *; 5 launches of *",
            "Next: find the change that did it; if it is intended, --accept-baselines *",
            "test_it.py::test_baseline *FAILED: regressed",
        ]
    )


def test_a_baseline_of_this_class_passes_an_unchanged_run_and_a_faster_one(
    run: Callable[..., pytest.RunResult], fill: Fill
) -> None:
    fill(step_time_s=0.2, final_loss=0.45)
    result = run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["test_it.py::test_baseline *passed, improved", "note: *step_time_s (-50.0%) improved: to hold *"]
    )


def test_a_worse_loss_fails_on_any_machine(run: Callable[..., pytest.RunResult], fill: Fill) -> None:
    fill(step_time_s=0.1, final_loss=0.3, runner_class="elsewhere")
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["final_loss regressed: baseline 0.3, observed 0.45*5 launches of elsewhere)."]
    )


def test_an_inconclusive_budget_warns_and_fails_where_that_is_asked_for(
    run: Callable[..., pytest.RunResult],
    project: pytest.Pytester,
    environment: Environment,
    make_launch: Callable[..., Launch],
) -> None:
    launch = make_launch(step_time_s=0.01, final_loss=0.45)
    store = PoolStore(FolderShelf(project.path / "baselines"))
    store.extend("test_it.py::test_baseline", [launch], environment, CLASS)
    result = run()
    result.assert_outcomes(passed=1)
    note = "note: test_it.py::test_baseline: step_time_s (+900.0%) inconclusive: accept more launches; five *"
    result.stdout.fnmatch_lines(["*passed, inconclusive", note])
    assert "allowed 10.0% by" in (project.path / "harness-report/session.json").read_text()
    run("--harness-inconclusive=fail").assert_outcomes(failed=1)


@pytest.mark.parametrize(
    "arguments", [[], ["--accept-baselines", "--reason", "why"]], ids=["compare", "accept"]
)
def test_a_baseline_that_can_not_be_read_is_no_pass_and_stays_as_it_is(
    run: Callable[..., pytest.RunResult], project: pytest.Pytester, arguments: list[str]
) -> None:
    project.makepyfile(test_it=TESTS + TESTS.replace("test_baseline", "test_newer_baseline"))
    store = PoolStore(FolderShelf(project.path / "baselines"))
    contents = {
        store.path("test_it.py::test_baseline", CLASS): '{"harness": ',
        store.path("test_it.py::test_newer_baseline", CLASS): '{"harness": {"schema_version": 99}}',
    }
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    result = run(*arguments, test="baseline")
    result.assert_outcomes(failed=2)
    assert result.ret == 2
    corrupt, newer = (path.relative_to(project.path) for path in contents)
    result.stdout.fnmatch_lines(
        [
            f"baseline {corrupt} can't be read: Expecting value: *",
            "Next: restore it from version control, or delete it and accept a new one.",
            f"baseline {newer} has schema 99; this harness reads up to *",
            "Next: pip install -U pytest-training-harness*",
        ]
    )
    assert {path: path.read_text() for path in contents} == contents


def test_fixed_work_is_timed_where_times_may_be_compared_and_nowhere_else(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        test_it="""
        import sys
        import pytest
        from trainings import train, train_timed

        def has_work(run):
            return run.fixed_work is not None

        @pytest.mark.budget(step_time=9, wall_clock_s=60)
        def test_times(smoke_training):
            assert has_work(smoke_training(train_timed))

        @pytest.mark.budget(wall_clock=9)
        def test_command(smoke_training):
            assert has_work(smoke_training.command([sys.executable, "program.py"]))

        def test_fixture(smoke_training, budget):
            assert has_work(smoke_training(train))

        @pytest.mark.budget(wall_clock_s=60, final_loss=9)
        def test_others(smoke_training):
            assert not has_work(smoke_training(train))

        def test_none(smoke_training):
            assert not has_work(smoke_training(train))
        """,
        program=PROGRAM,
    )
    project.runpytest_subprocess("--accept-baselines", "--reason=first").assert_outcomes(passed=5)
