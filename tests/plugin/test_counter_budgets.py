"""Budgets on what a step does: exact, told by operation and phase."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import pytest
import torch

def train(extra):
    torch.manual_seed(0)
    model = torch.nn.Linear(16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range({num_steps}):
        loss = model(torch.ones(8, 16)).square().mean()
        for _ in range(extra):
            loss = loss + model.weight.clone().sum() * 0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

@pytest.mark.budget({budget})
def test_it(smoke_training):
    smoke_training(train, {extra})
"""


def run(
    project: pytest.Pytester, *options: str, budget: str, extra: int = 0, num_steps: int = 8
) -> pytest.RunResult:
    project.makepyfile(test_it=TESTS.format(budget=budget, extra=extra, num_steps=num_steps))
    return project.runpytest_subprocess("--harness-runner-class=own", *options)


@pytest.fixture
def accepted(project: pytest.Pytester) -> pytest.Pytester:
    done = run(project, "--accept-baselines", "--reason=first", budget="flops=0, num_ops=0")
    done.assert_outcomes(passed=1)
    return project


def test_one_launch_is_baseline_enough_for_unchanged_code(accepted: pytest.Pytester) -> None:
    done = run(accepted, budget="flops=0, num_ops=0")
    done.assert_outcomes(passed=1)
    done.stdout.no_fnmatch_line("*inconclusive*")


def test_more_operations_regress_and_are_named_with_their_phase(accepted: pytest.Pytester) -> None:
    done = run(accepted, budget="num_ops=0", extra=3)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*num_ops regressed: baseline *, observed *",
            "*Operations of a step: *3 more aten::clone a step, in forward*",
        ]
    )


def test_a_regressed_loss_with_unchanged_operations_says_so(accepted: pytest.Pytester) -> None:
    budget = "flops=0, final_loss=0.1"
    run(accepted, "--accept-baselines", "--reason=loss", budget=budget).assert_outcomes(passed=1)
    (path,) = accepted.path.glob("baselines/budgets/own/*.json")
    path.write_text(_with_loss(path, 1e-20))
    done = run(accepted, budget=budget)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*final_loss regressed*", "*Operations of a step: unchanged.*"])


def test_an_absolute_limit_needs_no_baseline(project: pytest.Pytester) -> None:
    run(project, budget="max_num_ops=10000, tensor_memory_mb=5").assert_outcomes(passed=1)
    done = run(project, budget="max_num_ops=3")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*num_ops * is over its limit of 3*"])


def test_a_run_too_short_to_be_counted_is_an_error(project: pytest.Pytester) -> None:
    done = run(project, budget="num_ops=0", num_steps=2)
    assert done.ret == 2
    done.stdout.fnmatch_lines(
        ["*the budget on num_ops compared nothing: no operation of a step was counted*"]
    )


def test_only_the_newest_launch_keeps_its_operations(accepted: pytest.Pytester) -> None:
    run(accepted, "--accept-baselines", "--reason=second", budget="num_ops=0").assert_outcomes(passed=1)
    (path,) = accepted.path.glob("baselines/budgets/own/*.json")
    launches = json.loads(path.read_text())["harness"]["launches"]
    assert ["counted" in launch for launch in launches] == [False, True]


def _with_loss(path: Path, loss: float) -> str:
    document = json.loads(path.read_text())
    for launch in document["harness"]["launches"]:
        if "final_loss" in launch["values"]:
            launch["values"]["final_loss"] = loss
    return json.dumps(document)


def test_utilization_is_judged_by_the_peak_that_is_given(project: pytest.Pytester) -> None:
    done = run(project, budget="min_mfu=1e-9, peak_tflops=1", num_steps=12)
    done.assert_outcomes(passed=1)
    done = run(project, budget="min_mfu=0.9, peak_tflops=1", num_steps=12)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["mfu * is under its limit of 0.9 (*"])
    done = run(project, budget="min_mfu=0.9", num_steps=12)
    assert done.ret == 2
    done.stdout.fnmatch_lines(
        ["*the budget on mfu compared nothing: the peak of this device (*) is not known.*"]
    )
