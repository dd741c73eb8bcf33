"""Starting pytest stays cheap: nothing heavy is imported before a training runs."""

from __future__ import annotations

import pytest

REPORT_HEAVY = """
import sys
def pytest_sessionfinish():
    print("heavy:", sorted({"torch", "pandas", "numpy", "scipy", "filelock"} & set(sys.modules)))
"""
MARKED = """
import pytest

@pytest.mark.smoke_training(devices=["cpu", "cuda"], seed=0)
@pytest.mark.budget(wall_clock_s=60, throughput=0.05)
def test_training(smoke_training): pass

@pytest.mark.gpu(count=2)
def test_gpu(): pass

@pytest.mark.profile_capture
def test_capture(smoke_training): pass
"""


@pytest.mark.parametrize("source", ["", MARKED], ids=["empty", "marked"])
def test_collecting_imports_nothing_heavy(project: pytest.Pytester, source: str) -> None:
    project.makeconftest(REPORT_HEAVY)
    if source:
        project.makepyfile(test_it=source)
    result = project.runpytest_subprocess("--collect-only", "-q", "-p", "no:hypothesispytest")
    result.stdout.fnmatch_lines(["*heavy: []"])
    assert result.ret == (pytest.ExitCode.OK if source else pytest.ExitCode.NO_TESTS_COLLECTED)


def test_a_session_without_a_training_imports_nothing_heavy_and_leaves_no_file(
    project: pytest.Pytester,
) -> None:
    project.makeconftest(REPORT_HEAVY)
    project.makepyfile(test_it="def test_it(): pass")
    result = project.runpytest_subprocess("-s", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*heavy: []"])
    result.stdout.no_fnmatch_line("*training summary*")
    assert not {"baselines", "harness-report", "runs"} & {path.name for path in project.path.iterdir()}
