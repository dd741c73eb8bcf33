"""Rules are chosen in pyproject.toml and on the marker, and what is ignored is still told."""

from __future__ import annotations

import json

import pytest

TESTS = """
import pytest
from harness import assert_healthy
from trainings import stall


def test_plain(smoke_training):
    assert_healthy(smoke_training(stall))


@pytest.mark.smoke_training(ignore={"T101": "stands still on purpose"})
def test_ignoring(smoke_training):
    assert_healthy(smoke_training(stall))


@pytest.mark.smoke_training(severity={"T101": "warning"})
def test_milder(smoke_training):
    assert_healthy(smoke_training(stall))
"""


def test_a_marker_ignores_with_a_reason_or_makes_milder(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["*test_it.py::test_milder: T101 loss-not-decreasing:*"])
    document = json.loads((project.path / "harness-report" / "session.json").read_text())
    by_name = {test["nodeid"].rpartition("::")[2]: test["runs"][0] for test in document["tests"]}
    (ignored,) = by_name["test_ignoring"]["findings_ignored"]
    assert (ignored["code"], ignored["reason"]) == ("T101", "stands still on purpose")


def test_a_project_selects_rules_for_all_its_tests(project: pytest.Pytester) -> None:
    project.makepyprojecttoml("[tool.harness]\nselect = ['T2']\n")
    project.makepyfile(test_it=TESTS)
    project.runpytest_subprocess().assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ("ignore=['T101']", "*ignore=*'T101'* must give a reason for every code*"),
        ("select='T1'", "*select='T1' must be a list of codes*"),
    ],
)
def test_a_selection_of_the_wrong_kind_ends_the_collection(
    project: pytest.Pytester, marker: str, told: str
) -> None:
    project.makepyfile(
        test_it=f"import pytest\n@pytest.mark.smoke_training({marker})\ndef test_it(smoke_training): pass"
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([told, "*Next: *"])


def test_a_rule_that_there_is_not_fails_before_anything_is_trained(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from trainings import train

        @pytest.mark.smoke_training(ignore={"T1O1": "why"})
        def test_it(smoke_training):
            smoke_training(train)
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no rule 'T1O1'*", "*Next: harness rules*"])
    result.stdout.no_fnmatch_line("*Traceback*")
