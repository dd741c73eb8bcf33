"""Budgets on what the program logs itself, on the phases of a step, and on the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.baselines.pools import parse_pool

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import time
import pytest
import torch

def train(record, accuracy, data_s):
    torch.manual_seed(0)
    model = torch.nn.Linear(16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 12
        def __getitem__(self, index):
            time.sleep(data_s)
            return torch.ones(16)
    for step, batch in enumerate(torch.utils.data.DataLoader(Rows(), batch_size=1)):
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record(step=step, loss=loss.item(), accuracy=accuracy)

@pytest.mark.budget({budget})
def test_it(smoke_training):
    smoke_training(train, smoke_training.record, {accuracy}, {data_s})
"""


def run(
    project: pytest.Pytester, *options: str, budget: str, accuracy: float = 0.8, data_s: float = 0.0
) -> pytest.RunResult:
    project.makepyfile(test_it=TESTS.format(budget=budget, accuracy=accuracy, data_s=data_s))
    return project.runpytest_subprocess("--harness-runner-class=own", *options)


def find_pool(project: pytest.Pytester) -> Path:
    (path,) = (project.path / "baselines" / "budgets" / "own").glob("*.json")
    return path


def test_a_score_that_falls_regresses_and_one_that_rises_does_not(project: pytest.Pytester) -> None:
    budget = 'logged={"accuracy": {"tolerance": 0.05, "is_higher_better": True}}'
    run(project, "--accept-baselines", "--reason=first", budget=budget).assert_outcomes(passed=1)
    pool = parse_pool(find_pool(project).read_text(encoding="utf-8"), "")
    assert pool is not None
    assert pool.values("logged.accuracy") == pytest.approx([0.8])
    run(project, budget=budget, accuracy=0.9).assert_outcomes(passed=1)
    lower = run(project, budget=budget, accuracy=0.6)
    lower.assert_outcomes(failed=1)
    lower.stdout.fnmatch_lines(["logged.accuracy regressed: baseline 0.8, observed 0.6 (-25.0%, *"])


def test_a_limit_on_what_is_logged_holds_without_a_baseline(project: pytest.Pytester) -> None:
    budget = 'logged={"accuracy": {"limit": 0.9, "is_higher_better": True}}'
    done = run(project, budget=budget)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["logged.accuracy 0.8 is under its limit of 0.9 (*"])


def test_what_is_not_logged_compares_nothing(project: pytest.Pytester) -> None:
    done = run(project, budget='logged={"acuracy": 0.1}')
    assert done.ret == 2
    done.stdout.fnmatch_lines(
        ["*the program logs no 'acuracy'; its metrics: *accuracy*", "Next: correct the name*"]
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("logged=3", "*logged=3 must be a table.*"),
        ("logged={'a': {}}", "*logged?'a'? sets neither limit nor tolerance.*"),
        ("logged={'a': {'tolerence': 1}}", "*did you mean 'tolerance'?*"),
        ("logged={'a': {'limit': 1, 'is_time': 1}}", "*is_time=1 must be True or False.*"),
        ("logged={'a': -1}", "*tolerance=-1 must be a number of at least 0*"),
    ],
)
def test_a_budget_on_what_is_logged_that_can_not_be_meant_is_refused(
    project: pytest.Pytester, budget: str, message: str
) -> None:
    done = run(project, budget=budget)
    assert done.ret == 2
    done.stdout.fnmatch_lines([message])


def test_a_phase_has_a_limit_of_its_own(project: pytest.Pytester) -> None:
    slow = run(project, budget="data_time_s=0.03, forward_time_s=5", data_s=0.05)
    slow.assert_outcomes(failed=1)
    slow.stdout.fnmatch_lines(["data_time_s * ms is over its limit of 30 ms (*"])
    slow.stdout.no_fnmatch_line("forward_time_s * is over*")


def test_the_first_step_has_a_limit_that_starts_with_the_program(project: pytest.Pytester) -> None:
    done = run(project, budget="first_step_s=0.04", data_s=0.05)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["first_step_s * is over its limit of 40 ms (*"])


@pytest.mark.parametrize(
    "budget", ["max_num_graphs=3", "max_num_host_syncs=3", "max_num_kernels=3", "reserved_memory_mb=3"]
)
def test_what_the_program_does_not_do_compares_nothing(project: pytest.Pytester, budget: str) -> None:
    done = run(project, budget=budget)
    assert done.ret == 2
    done.stdout.fnmatch_lines(["*compared nothing: nothing *", "Next: leave it out of the budget here.*"])
