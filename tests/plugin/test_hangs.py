"""A wall-clock budget ends a called function that hangs, where pytest-timeout is there to do it."""

from __future__ import annotations

import pytest

TESTS = """
import signal
import pytest
from trainings import train


@pytest.mark.budget(wall_clock_s=0.5)
def test_hangs(smoke_training):
    smoke_training(signal.pause)


@pytest.mark.budget(wall_clock_s=50)
def test_good(smoke_training):
    smoke_training(train)


@pytest.mark.timeout(7)
@pytest.mark.budget(wall_clock_s=50)
def test_own_limit(request):
    assert request.node.get_closest_marker("timeout").args == (7,)
"""


def test_a_hang_in_a_called_function_ends_and_fails_the_test(project: pytest.Pytester) -> None:
    # What a first run imports is not to count: on a busy machine it takes longer than the limit.
    imports = "import torch, harness.plugin, harness.baselines.building, harness.rules.diagnosis, harness.watch.call"
    project.makeconftest(f"{imports}\nharness.plugin.TIMEOUT_SLACK_S = 0.5")
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-k", "hangs or good")
    result.assert_outcomes(failed=1, passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*Failed: Timeout *>1.0s*", "test_it.py::test_hangs *FAILED"])


def test_a_timeout_of_the_users_own_is_left_alone(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_inprocess("-k", "own_limit")
    result.stdout.fnmatch_lines(["*the test ran no smoke_training*"])
    result.stdout.no_fnmatch_line("*get_closest_marker*")


def test_without_pytest_timeout_budgets_are_judged_all_the_same(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-p", "no:timeout", "-k", "good", "-o", "markers=timeout")
    result.assert_outcomes(passed=1)
