"""The `budget` fixture, further launches of a command, and the project's defaults."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.baselines.pools import parse_pool

if TYPE_CHECKING:
    from harness.baselines.pools import Pool

COMMAND = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(16, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(8):
    loss = model(torch.ones(8, 16)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def run(project: pytest.Pytester, test: str, *options: str, header: str = "") -> pytest.RunResult:
    project.makepyfile(
        test_it="import sys\nimport pytest\nfrom trainings import train_timed\n" + header + test,
        program=COMMAND,
    )
    return project.runpytest_subprocess("--harness-runner-class=own", "-rA", *options)


def read_pools(project: pytest.Pytester) -> list[Pool]:
    paths = sorted((project.path / "baselines" / "budgets" / "own").glob("*.json"))
    return [parse_pool(path.read_text(encoding="utf-8"), str(path)) for path in paths]


def test_a_limit_fails_where_the_call_stands(project: pytest.Pytester) -> None:
    done = run(
        project,
        "def test_it(smoke_training, budget):\n"
        "    run = smoke_training(train_timed)\n"
        "    budget(run, step_time_s=0.05)\n"
        "    print('never reached')\n",
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*step_time_s 100 ms is over its limit of 50 ms (budget() in test_it.py::test_it).",
            "*in the call of budget()*",
        ]
    )
    done.stdout.no_fnmatch_line("never reached")


def test_a_tolerance_is_accepted_with_the_test_and_judged_after(project: pytest.Pytester) -> None:
    test = (
        "def test_it(smoke_training, budget):\n"
        "    first, second = smoke_training(train_timed), smoke_training(train_timed)\n"
        "    budget(second, final_loss=0.1)\n"
        "    budget(second, peak_memory=0.5)\n"
        "    assert {holds}\n"
    )
    failed = run(project, test.format(holds=False), "--accept-baselines", "--reason=first")
    failed.assert_outcomes(failed=1)
    assert read_pools(project) == []
    missing = run(project, test.format(holds=True))
    missing.stdout.fnmatch_lines(
        ["*final_loss has no baseline for test_it.py::test_it#2 in any runner class*"]
    )
    run(project, test.format(holds=True), "--accept-baselines", "--reason=first").assert_outcomes(passed=1)
    (pool,) = read_pools(project)
    assert pool.test == "test_it.py::test_it#2"
    assert len(pool.launches) == 1
    done = run(project, test.format(holds=True))
    done.assert_outcomes(passed=1)


def test_what_is_claimed_beside_a_marker_is_accepted_with_it(project: pytest.Pytester) -> None:
    test = (
        "def train(record):\n"
        "    train_timed()\n"
        "    for step in range(20):\n"
        "        record(step=step, loss=1.0, accuracy=1.0)\n"
        "@pytest.mark.budget(final_loss=0.5, step_time_s=9)\n"
        "def test_it(smoke_training, budget):\n"
        "    smoke_training(train_timed)\n"
        "    second = smoke_training(train, smoke_training.record)\n"
        "    budget(second, logged={'accuracy': {'tolerance': 0.1, 'is_higher_better': True}}, wall_clock_s=60)\n"
        "    budget(second, final_loss=0.2)\n"
    )
    run(project, test, "--accept-baselines", "--reason=first").assert_outcomes(passed=1)
    assert [
        [launch.values.get("logged.accuracy") for launch in pool.launches] for pool in read_pools(project)
    ] == [
        [1.0],
        [None],
    ]
    session = json.loads((project.path / "harness-report" / "session.json").read_text())
    assert [(line["metric"], line["verdict"]) for line in session["tests"][0]["budget"]] == [
        ("wall_clock_s", "pass"),
        ("step_time_s", "pass"),
        ("final_loss", "accepted"),
        ("step_time_s", "pass"),
        ("final_loss", "accepted"),
        ("logged.accuracy", "accepted"),
    ]
    run(project, test).assert_outcomes(passed=1)


def test_pools_are_read_as_a_commit_has_them_and_not_written_into_it(project: pytest.Pytester) -> None:
    test = (
        "@pytest.mark.budget(final_loss=0.1)\n"
        "def test_it(smoke_training, budget):\n"
        "    smoke_training(train_timed)\n"
    )
    run(project, test, "--accept-baselines", "--reason=first").assert_outcomes(passed=1)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "baselines"), ("commit", "--quiet", "--message=first")):
        subprocess.run(["git", *identity, *words], cwd=project.path, check=True)
    shutil.rmtree(project.path / "baselines")
    run(project, test, "--harness-baselines=HEAD:baselines").assert_outcomes(passed=1)
    refused = run(project, test, "--harness-baselines=HEAD:baselines", "--accept-baselines", "--reason=r")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        [
            "ERROR: --harness-baselines=HEAD:baselines is a commit, and baselines are accepted into a folder.",
            "Next: leave it out, or --harness-baselines DIR with --accept-baselines.",
        ]
    )
    assert not (project.path / "HEAD:baselines").exists()


def test_a_run_of_another_test_is_refused(project: pytest.Pytester) -> None:
    done = run(project, "def test_it(smoke_training, budget):\n    budget(None, wall_clock_s=60)\n")
    done.assert_outcomes(failed=1)
    assert done.ret == 2
    done.stdout.fnmatch_lines(
        ["*is given no run of test_it.py::test_it.", "*Next: run = smoke_training(train*"]
    )


def test_an_unknown_bound_names_the_nearest(project: pytest.Pytester) -> None:
    done = run(
        project,
        "def test_it(smoke_training, budget):\n    budget(smoke_training(train_timed), throughputs=0.1)\n",
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*has no argument 'throughputs' (did you mean 'throughput'?).*"])


def test_a_command_is_launched_again_and_every_launch_is_accepted(project: pytest.Pytester) -> None:
    test = (
        "@pytest.mark.budget(wall_clock=9, launches=3)\n"
        "def test_it(smoke_training):\n    smoke_training.command([sys.executable, 'program.py'])\n"
    )
    run(project, test, "--accept-baselines", "--reason=first").assert_outcomes(passed=1)
    (pool,) = read_pools(project)
    assert len(pool.launches) == 3
    assert len({launch.values["wall_clock_s"] for launch in pool.launches}) == 3
    done = run(project, test)
    done.assert_outcomes(passed=1)


def test_a_called_function_can_not_be_launched_again(project: pytest.Pytester) -> None:
    done = run(
        project,
        "@pytest.mark.budget(wall_clock_s=60, launches=3)\n"
        "def test_it(smoke_training):\n    smoke_training(train_timed)\n",
    )
    assert done.ret == 2
    done.stdout.fnmatch_lines(
        ["*launches on the budget marker needs a command*", "*Next: smoke_training.command*"]
    )


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("wall_clock_s=60, launches=0", "*launches=0 must be a whole number of at least 1*"),
        (
            "wall_clock_s=60, allowance_s=9",
            "*allowance_s is the time for further launches, and there is one.*",
        ),
    ],
)
def test_launches_that_can_not_be_meant_are_refused(
    project: pytest.Pytester, marker: str, message: str
) -> None:
    done = run(
        project,
        f"@pytest.mark.budget({marker})\ndef test_it(smoke_training):\n    smoke_training(train_timed)\n",
    )
    assert done.ret == 2
    done.stdout.fnmatch_lines([message])


def test_the_project_sets_what_markers_leave_open(project: pytest.Pytester) -> None:
    project.makepyprojecttoml("[tool.harness.budget]\nstep_time_s = 0.05\nmax_final_loss = 9\n")
    done = run(
        project,
        "@pytest.mark.budget()\ndef test_as_set(smoke_training):\n    smoke_training(train_timed)\n\n"
        "@pytest.mark.budget(step_time_s=9)\ndef test_own(smoke_training):\n    smoke_training(train_timed)\n\n"
        "def test_without(smoke_training):\n    smoke_training(train_timed)\n",
    )
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*step_time_s 100 ms is over its limit of 50 ms*test_as_set*"])


def test_a_default_that_is_no_table_is_refused(project: pytest.Pytester) -> None:
    project.makepyprojecttoml("[tool.harness]\nbudget = 3\n")
    done = run(
        project, "@pytest.mark.budget()\ndef test_it(smoke_training):\n    smoke_training(train_timed)\n"
    )
    assert done.ret == 2
    done.stdout.fnmatch_lines(["*budget = 3 is no table.*"])


def test_a_fixture_of_that_name_of_the_projects_own_is_left_alone(project: pytest.Pytester) -> None:
    done = run(
        project,
        "@pytest.fixture\ndef budget():\n    return 3\n\ndef test_it(budget):\n    assert budget == 3\n",
    )
    done.assert_outcomes(passed=1)
    done.stdout.no_fnmatch_line("*training summary*")


def test_without_a_training_there_is_nothing_to_judge(project: pytest.Pytester) -> None:
    done = run(project, "def test_it(budget):\n    budget(None, wall_clock_s=60)\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*is given no run of test_it.py::test_it.*"])
