"""Stored trajectories in tests: compared on request, accepted from good runs only, told in every report."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ACCEPT = ["--accept-baselines", "--reason", "größer"]
TESTS = """
import pytest
from harness import assert_matches_baseline
from trainings import train


def test_called(smoke_training):
    assert_matches_baseline(smoke_training(train))
    assert_matches_baseline(smoke_training(train, 10))


@pytest.mark.smoke_training(baseline=True)
def test_marked(smoke_training):
    smoke_training(train, 12)
"""
FAULTS = {
    "disk full": "def fail(*_): raise OSError(errno.ENOSPC, 'No space left on device')\nos.fsync = fail",
    "read-only": """
real = os.open
def fail(path, flags, *rest, **options):
    if "/baselines/" in str(path) and flags & os.O_CREAT:
        raise OSError(errno.EROFS, "Read-only file system")
    return real(path, flags, *rest, **options)
os.open = fail
""",
}
TORCH = """
import torch
from torch import nn

RATE = 0.05


def train(num_steps=8, factor=1.0):
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(32, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE * factor)
    for _ in range(num_steps):
        loss = nn.functional.mse_loss(net(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""


def list_trajectories(folder: Path) -> list[Path]:
    return sorted(folder.glob("baselines/trajectories/*/*"))


def read_session(project: pytest.Pytester) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (project.path / "harness-report/session.json").read_text(encoding="utf-8")
    )
    return document


def test_accepted_trajectories_judge_the_next_session(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    missing = project.runpytest_subprocess()
    missing.assert_outcomes(failed=2)
    assert missing.ret == pytest.ExitCode.TESTS_FAILED
    missing.stdout.fnmatch_lines(
        [
            "*test_it.py::test_called has no baseline in any numerics class; observed 20 steps*",
            "test_it.py::test_marked has no baseline *",
            'Next: pytest "test_it.py::test_marked" --accept-baselines --reason "initial"',
            "test_it.py::test_called *FAILED: missing baseline",
        ]
    )
    accepted = project.runpytest_subprocess(*ACCEPT)
    accepted.assert_outcomes(passed=2)
    accepted.stdout.fnmatch_lines(
        [
            "test_it.py::test_called *passed, accepted",
            "accepted: test_it.py::test_called: 20 steps, final loss *; the first baseline, *",
            "accepted: test_it.py::test_called#2: 10 steps, *",
            "accepted: test_it.py::test_marked: 12 steps, *",
        ]
    )
    paths = list_trajectories(project.path)
    assert len(paths) == 3
    assert all('"reason": "größer"' in path.read_text(encoding="utf-8") for path in paths)
    before = [path.read_bytes() for path in paths]
    again = project.runpytest_subprocess(*ACCEPT)
    again.stdout.fnmatch_lines(
        ["unchanged: test_it.py::test_called: *", "unchanged: test_it.py::test_marked: *"]
    )
    assert [path.read_bytes() for path in paths] == before
    project.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_run_that_left_its_baseline_is_told_in_every_report(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    project.runpytest_subprocess("-k", "marked", *ACCEPT).assert_outcomes(passed=1)
    project.makepyfile(test_it=TESTS.replace("smoke_training(train, 12)", "smoke_training(train, 12, 3.1)"))
    result = project.runpytest_subprocess("-k", "marked", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_marked leaves its baseline at step 0: *",
            "First difference: * at step 0: *",
            "Likely: *",
            "Baseline: baselines/trajectories/*/test_it.py.test_marked.json (accepted *",
            'Next: *if it is intended: pytest "test_it.py::test_marked" --accept-baselines --reason "..."',
        ]
    )
    result.stdout.no_fnmatch_line("*During handling of the above exception*")
    (described,) = read_session(project)["tests"][0]["trajectories"]
    assert described["verdict"] == "diverged"
    assert described["picture"] == "trajectories/test_it.py.test_marked.svg"
    assert (project.path / "harness-report" / described["picture"]).is_file()
    summary = (project.path / "harness-report/summary.md").read_text(encoding="utf-8")
    assert "[test_it.py::test_marked](trajectories/test_it.py.test_marked.svg)" in summary
    entries = ET.parse(project.path / "junit.xml").iter("property")  # noqa: S314  ours
    properties = {entry.get("name"): entry.get("value") for entry in entries}
    assert properties["harness.trajectory"] == f"diverged: {described['divergence']['phase']} at step 0"
    moved = project.runpytest_subprocess("-k", "marked", *ACCEPT)
    moved.stdout.fnmatch_lines(
        ["accepted: test_it.py::test_marked: final loss * -> * (+* %), first difference: *"]
    )


BAD = """
import pytest
from harness import assert_finite, assert_matches_baseline
from trainings import diverge, stall, train


def test_fails_later(smoke_training):
    assert_matches_baseline(smoke_training(train))
    assert False, "a later assertion"


@pytest.mark.smoke_training(baseline=True)
def test_fails_before(smoke_training):
    smoke_training(train)
    assert False, "an assertion"


@pytest.mark.smoke_training(baseline=True)
@pytest.mark.budget(max_final_loss=0.001)
def test_over_budget(smoke_training):
    smoke_training(train)


@pytest.mark.smoke_training(baseline=True)
def test_finding(smoke_training):
    smoke_training(stall)


@pytest.mark.smoke_training(baseline=True)
def test_nan(smoke_training):
    smoke_training(diverge)


@pytest.mark.smoke_training(baseline=True)
def test_one_of_two(smoke_training):
    smoke_training(train)
    smoke_training(stall)
"""


def test_nothing_is_accepted_from_a_failing_test(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=BAD)
    result = project.runpytest_subprocess(*ACCEPT)
    result.assert_outcomes(failed=6)
    assert list_trajectories(project.path) == []
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_finding has 1 finding with severity error, so it is not accepted as a baseline:",
            "*T101 *",
            "Next: *--accept-with-findings*",
            "the loss of test_it.py::test_nan is nan at step 10; such a run is not accepted as a baseline.",
        ]
    )
    result.stdout.no_fnmatch_line("accepted: *")
    forced = project.runpytest_subprocess("-k", "finding", "--accept-with-findings", *ACCEPT)
    forced.assert_outcomes(passed=1)
    assert len(list_trajectories(project.path)) == 1


def test_a_write_that_fails_is_an_error_and_leaves_what_was_there(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    project.runpytest_subprocess("-k", "marked", *ACCEPT).assert_outcomes(passed=1)
    before = [path.read_bytes() for path in list_trajectories(project.path)]
    project.makepyfile(test_it=TESTS.replace("train, 12", "train, 13"))
    for fault in FAULTS.values():
        project.makeconftest(f"import errno, os\n{fault}")
        result = project.runpytest_subprocess("-k", "marked", *ACCEPT)
        result.assert_outcomes(failed=1)
        assert result.ret == 2
        result.stdout.fnmatch_lines(
            [
                "baseline *.json can't be written: *; what was stored before is untouched.",
                "Next: free space or *",
            ]
        )
        result.stdout.no_fnmatch_line("accepted: *")
        assert [path.read_bytes() for path in list_trajectories(project.path)] == before


def test_a_damaged_baseline_is_an_error_and_no_pass(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
import pytest
from trainings import train


@pytest.mark.parametrize("number", range(3))
@pytest.mark.smoke_training(baseline=True)
def test_it(smoke_training, number):
    smoke_training(train)
"""
    )
    project.runpytest_subprocess(*ACCEPT).assert_outcomes(passed=3)
    contents = ["", "{", '{"harness": {"schema_version": 99}}']
    for path, content in zip(list_trajectories(project.path), contents, strict=True):
        path.write_text(content)
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=3)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [
            "baseline *test_it.py.test_it-0.json is empty.",
            "baseline *test_it.py.test_it-1.json can't be read: *",
            "baseline *test_it.py.test_it-2.json has schema 99; this harness reads up to 3.",
        ]
    )


def test_workers_accept_side_by_side(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it=TESTS
        + "\n@pytest.mark.parametrize('number', range(6))\n@pytest.mark.smoke_training(baseline=True)\n"
        "def test_many(smoke_training, number): smoke_training(train, 10 + number)\n"
    )
    result = project.runpytest_subprocess("-n", "2", *ACCEPT)
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["accepted: test_it.py::test_many?5?: 15 steps, *"])
    assert len(list_trajectories(project.path)) == 9
    for path in list_trajectories(project.path):
        json.loads(path.read_text(encoding="utf-8"))
    project.runpytest_subprocess().assert_outcomes(passed=8)


def test_steps_are_traced_where_the_test_is_seen_to_compare(project: pytest.Pytester) -> None:
    project.makepyfile(
        training=TORCH,
        comparing="from harness import assert_matches_baseline\n\n\ndef compare(run): assert_matches_baseline(run)\n",
        test_it="""
import sys
import pytest
from comparing import compare
from harness import assert_matches_baseline
from training import train


def is_traced(run):
    return [step.trace is not None for step in run.observed.steps] == [True] * 8


def helper(run):
    assert_matches_baseline(run)


@pytest.mark.smoke_training(seed=0)
def test_names_it(smoke_training):
    run = smoke_training(train)
    helper(run)
    assert is_traced(run)


@pytest.mark.smoke_training(seed=0, baseline=True)
def test_marked(smoke_training):
    code = "import torch, training; torch.manual_seed(0); training.train()"
    run = smoke_training.command([sys.executable, "-c", code])
    assert is_traced(run)


def test_plain(smoke_training):
    assert not any(step.trace for step in smoke_training(train).observed.steps)


@pytest.mark.smoke_training(seed=0)
def test_calls_unseen(smoke_training):
    compare(smoke_training(train))
""",
    )
    accepted = project.runpytest_subprocess(*ACCEPT)
    accepted.assert_outcomes(passed=3, failed=1)
    accepted.stdout.fnmatch_lines(
        [
            "*UsageError: the steps of test_it.py::test_calls_unseen were not traced: *",
            "*Next: @pytest.mark.smoke_training(baseline=True) on the test, which compares in itself.",
        ]
    )
    assert len(list_trajectories(project.path)) == 2
    project.runpytest_subprocess("-k", "not unseen").assert_outcomes(passed=3)
    (project.path / "training.py").write_text(TORCH.replace("RATE = 0.05", "RATE = 0.051"))
    moved = project.runpytest_subprocess("-k", "names_it or marked")
    moved.assert_outcomes(failed=2)
    moved.stdout.fnmatch_lines(["*First difference: schedule at step 0: *learning rate*"])
    unwatched = project.runpytest_subprocess("-k", "names_it", "--harness-watch=light")
    assert unwatched.ret == 2
    unwatched.stdout.fnmatch_lines(
        ["*lacks what its baseline holds: steps watched in depth; nothing was compared.*"]
    )


def test_misuse_is_told(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
import pytest
from harness import TrainingRun, assert_matches_baseline


def test_no_fixture():
    assert_matches_baseline(TrainingRun("x", [], "x", None, None, "cpu", None, None, 1.0, None, None))


@pytest.mark.smoke_training(baseline=True)
def test_no_run(smoke_training): pass
"""
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*assert_matches_baseline(run) has no baseline to look for: the run is none of the smoke_training fixture.",
            "the baseline of test_it.py::test_no_run was compared with nothing: the test ran no smoke_training.",
        ]
    )


@pytest.mark.parametrize(
    ("markers", "told"),
    [
        ("@pytest.mark.smoke_training(baseline='yes')", "*baseline='yes' must be True or False."),
        (
            "@pytest.mark.profile_capture\n@pytest.mark.smoke_training(baseline=True)",
            "*has both baseline=True and a profile_capture*",
        ),
    ],
)
def test_a_wrong_marker_is_a_collection_error(project: pytest.Pytester, markers: str, told: str) -> None:
    project.makepyfile(test_it=f"import pytest\n{markers}\ndef test_it(smoke_training): pass\n")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([told])


def test_without_matplotlib_nothing_fails(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    project.makeconftest("import sys\nsys.modules['matplotlib'] = None\n")
    result = project.runpytest_subprocess("-k", "marked", *ACCEPT)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["note: pictures of trajectories need matplotlib: pip install *plots*"])
    summary = (project.path / "harness-report/summary.md").read_text(encoding="utf-8")
    assert "- pictures of trajectories need matplotlib: pip install " in summary


def test_files_are_named_from_where_a_program_began_that_changes_folder(project: pytest.Pytester) -> None:
    project.makepyfile(net=TORCH)
    project.makepyfile(
        test_it="""
        import os
        import pytest
        import net


        def train(folder):
            os.chdir(folder)
            net.train()


        @pytest.mark.smoke_training(seed=0, baseline=True)
        def test_it(smoke_training, tmp_path):
            smoke_training(train, tmp_path)
        """
    )
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *identity, *words], cwd=project.path, check=True)
    project.runpytest_subprocess(*ACCEPT).assert_outcomes(passed=1)
    project.makepyfile(net=TORCH.replace("0.05", "0.06"))
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["Changed since commit *, of the files that the program imports: net.py*"])
