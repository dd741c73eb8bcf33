"""Findings fail the test with exit code 1 and a message that names the symptom."""

from __future__ import annotations

import pytest

TESTS = """
from harness import assert_artifacts, assert_finite, assert_healthy, assert_loss_decreases
from trainings import diverge, stall, train


def test_flat(smoke_training):
    assert_loss_decreases(smoke_training(stall))


def test_drop(smoke_training):
    assert_loss_decreases(smoke_training(train), min_drop=0.95)


def test_nan(smoke_training):
    assert_finite(smoke_training(diverge))


def test_unhealthy(smoke_training):
    assert_healthy(smoke_training(diverge))


def test_artifacts(smoke_training):
    assert_artifacts(smoke_training(train), "checkpoints/*.pt")


def test_good(smoke_training):
    run = smoke_training(train)
    assert_finite(run)
    assert_loss_decreases(run)
    assert_healthy(run)
"""


def test_a_finding_fails_with_its_values_and_likely_cause(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=5, passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*T101 loss-not-decreasing: every one of the 20 losses is 2, over 20 steps (return value).",
            "*Likely: nothing is learned at all: learning rate 0*",
            "*|********************",
            "*the loss falls by *%, from * at least 95.0% is asked for (min_drop).",
            "*T201 non-finite-metric: loss is nan at step 10, for the first time; 1 of 11 values*",
            "*not applied: *T101*: the loss is not finite throughout",
            "*checkpoints/[*].pt: 0 files, at least 1 asked for",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_flat * FAILED: T101",
            "test_it.py::test_nan * FAILED: T201",
            "test_it.py::test_artifacts * FAILED",
            "test_it.py::test_good * passed",
        ]
    )
    # The traceback ends in the user's own test.
    result.stdout.no_fnmatch_line("*harness/assertions.py:*")
