"""The session's report: one document, a summary, JUnit properties, the same with and without workers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree as ET

import pytest

TESTS = """
import pytest
from harness import assert_healthy
from trainings import crash, stall, train_timed


@pytest.mark.budget(step_time_s=0.2)
@pytest.mark.parametrize("size", [1, "ü|x"])
def test_good(smoke_training, size):
    smoke_training(train_timed, num_tokens=8)


def test_stalled(smoke_training):
    assert_healthy(smoke_training(stall))


def test_crashed(smoke_training):
    smoke_training(crash)


@pytest.fixture
def broken():
    yield
    raise OSError("too late")


def test_broken_later(smoke_training, broken):
    smoke_training(train_timed)


@pytest.mark.skip(reason="not today")
@pytest.mark.smoke_training
def test_skipped(): pass


def test_plain(): pass
"""
OUTCOMES = {
    "test_it.py::test_broken_later": "failed",
    "test_it.py::test_crashed": "not observed",
    "test_it.py::test_good[1]": "passed",
    "test_it.py::test_good[\\xfc|x]": "passed",
    "test_it.py::test_skipped": "skipped",
    "test_it.py::test_stalled": "failed",
}


def read_session(project: pytest.Pytester, folder: str = "harness-report") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (project.path / folder / "session.json").read_text(encoding="utf-8")
    )
    return document


def pick_facts(document: dict[str, Any]) -> list[Any]:
    """What two sessions of the same tests have in common: all but times, memory and folders."""
    return sorted(
        [
            test["nodeid"],
            test["outcome"],
            [result["verdict"] for result in test["budget"]],
            [[run["loss"], run["findings"], run["seed"], run["source"]] for run in test["runs"]],
        ]
        for test in document["tests"]
    )


def test_a_session_leaves_a_document_a_summary_and_junit_properties(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(test_it=TESTS)
    job_summary = project.path / "job.md"
    job_summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job_summary))
    result = project.runpytest_subprocess("--junitxml=junit.xml")
    result.assert_outcomes(passed=4, failed=2, skipped=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["report: harness-report/session.json, summary.md"])

    document = read_session(project)
    assert document["schema_version"] == 1
    assert {test["nodeid"]: test["outcome"] for test in document["tests"]} == OUTCOMES
    good = next(test for test in document["tests"] if test["nodeid"] == "test_it.py::test_good[1]")
    assert good["runs"][0]["measured"]["step_time_s"] == 0.1
    assert good["budget"][0]["verdict"] == "pass"
    assert good["runner_class"]

    summary = (project.path / "harness-report/summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## Training harness: 3 of 6 failed\n")
    assert "OSError: too late" in summary
    assert job_summary.read_text(encoding="utf-8") == f"before\n{summary}"
    assert (project.path / "harness-report/.gitignore").read_text() == "*\n"

    cases = {case.get("name"): case for case in ET.parse(project.path / "junit.xml").iter("testcase")}  # noqa: S314  ours
    properties = {entry.get("name"): entry.get("value") for entry in cases["test_good[1]"].iter("property")}
    assert properties["harness.num_steps"] == "20"
    assert properties["harness.throughput"] == "80.0"
    assert properties["harness.budget.step_time_s"] == "pass"
    assert properties["harness.runner_class"] == good["runner_class"]
    assert list(cases["test_plain"].iter("property")) == []


def test_workers_give_the_same_report_and_exit_code(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    alone = project.runpytest_subprocess("--harness-report=alone", "-k", "not broken and not stalled")
    workers = project.runpytest_subprocess(
        "--harness-report=workers", "-k", "not broken and not stalled", "-n", "2"
    )
    assert alone.ret == workers.ret == 2
    assert pick_facts(read_session(project, "alone")) == pick_facts(read_session(project, "workers"))
    workers.stdout.fnmatch_lines(
        ["*training summary*", "runner class: *", "report: workers/session.json, summary.md"]
    )


def test_without_a_terminal_and_in_a_folder_with_a_space_the_report_is_written(
    project: pytest.Pytester,
) -> None:
    folder = project.mkdir("my project ü")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text("def test_it(smoke_training): smoke_training(lambda: [2.0, 1.0])\n")
    result = project.runpytest_subprocess("-p", "no:terminal", "--rootdir", folder, folder)
    assert result.ret == pytest.ExitCode.OK
    assert [test["outcome"] for test in read_session(project, "my project ü/harness-report")["tests"]] == [
        "passed"
    ]


def test_a_message_that_is_no_text_is_written_with_its_characters_by_number(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="import pytest\n@pytest.mark.smoke_training\ndef test_it(): raise OSError('no \\udcff')"
    )
    subprocess.run([sys.executable, "-m", "pytest"], cwd=project.path, check=False, capture_output=True)
    summary = (project.path / "harness-report/summary.md").read_text(encoding="utf-8")
    assert "OSError: no \\udcff" in summary


def test_a_report_that_can_not_be_written_is_told(project: pytest.Pytester) -> None:
    (project.path / "harness-report").touch()
    project.makepyfile(test_it="import pytest\n@pytest.mark.smoke_training\ndef test_it(): pass")
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["the report could not be written: *"])


def test_a_report_in_the_projects_root_does_not_hide_the_project_from_git(project: pytest.Pytester) -> None:
    project.makepyfile(test_it="import pytest\n@pytest.mark.smoke_training\ndef test_it(): pass")
    project.runpytest_inprocess("--harness-report=.").assert_outcomes(passed=1)
    assert (project.path / "session.json").exists()
    assert not (project.path / ".gitignore").exists()
