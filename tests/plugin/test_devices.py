"""Tests run on every device they name, and a missing GPU is a skip or, where required, a failure."""

from __future__ import annotations

import pytest

TESTS = """
import pytest
from trainings import train


@pytest.mark.smoke_training(devices=["cpu", "cuda"])
def test_both(smoke_training):
    assert smoke_training(train).device == smoke_training.device


@pytest.mark.gpu(count=2, memory_gb=40, name="A100")
def test_gpu():
    pass


def test_plain(smoke_training):
    assert smoke_training(train).device == "cpu"
"""

# Whatever the machine of the suite has, the inner one has no GPU, or one small one.
WITHOUT_GPU = "import torch; torch.cuda.is_available = lambda: False"
WITH_SMALL_GPU = """
import harness.watch.devices as devices
devices.find_gpus = lambda: [devices.Gpu("T4", 15.0)]
"""


def test_without_a_gpu_its_tests_are_skipped_with_the_reason(project: pytest.Pytester) -> None:
    project.makeconftest(WITHOUT_GPU)
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-v", "-rs")
    result.assert_outcomes(passed=2, skipped=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_both[[]cpu[]] PASSED*",
            "test_it.py::test_both[[]cuda[]] SKIPPED*",
            "*test_both[[]cuda[]] *skipped: needs a GPU*",
        ]
    )


def test_where_a_gpu_is_required_its_absence_fails_and_says_who_requires_it(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_REQUIRE_GPU", "1")
    project.makeconftest(WITHOUT_GPU)
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-k", "gpu or cuda")
    result.assert_outcomes(errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["needs a GPU; torch sees none *; $HARNESS_REQUIRE_GPU requires it."])


def test_a_gpu_that_does_not_fit_is_named_beside_what_was_asked_for(project: pytest.Pytester) -> None:
    project.makeconftest(WITH_SMALL_GPU)
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-k", "test_gpu", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["SKIPPED*needs 2 GPUs named like 'A100' with at least 40 GiB; this machine has T4 (15 GiB)"]
    )
