"""The state of a pytest session: gathers what the tests report, writes the report, sets the exit code."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import clock
from harness.fixtures import SETTINGS, STATE

if TYPE_CHECKING:
    from harness.state import TestState

REPORT_ATTRIBUTE = "harness"
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
NOT_OBSERVED_EXIT = 2


class HarnessSession:
    """Collects the tests of a session in the process that reports them, also under pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._described: dict[str, dict[str, Any]] = {}
        self._num_failed = 0
        self._num_not_observed = 0
        self._written: Path | None = None
        self._problem: str | None = None
        self._picture_note = ""
        self._tracked: tuple[bool, str] | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes in one phase of one test, from this process or from a worker."""
        described = getattr(report, REPORT_ATTRIBUTE, None)
        if report.failed:
            self._num_failed += 1
            self._num_not_observed += bool(described and described["outcome"] == "not observed")
        if described is not None:
            # A later phase of a test (its teardown failed) replaces what an earlier one told.
            self._described[described["nodeid"]] = described

    @property
    def _tests(self) -> list[dict[str, Any]]:
        return list(self._described.values())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the report, and exits with 2 when every failure was a run that could not be judged."""
        is_failed = session.exitstatus == pytest.ExitCode.TESTS_FAILED
        if is_failed and self._num_failed == self._num_not_observed > 0:
            session.exitstatus = NOT_OBSERVED_EXIT
        if not self._tests:
            return
        from harness.report.document import build_session  # noqa: PLC0415  late
        from harness.report.folder import make_report_folder  # noqa: PLC0415
        from harness.report.markdown import render_markdown  # noqa: PLC0415

        folder = self._config.rootpath / self._config.stash[SETTINGS]["report"]
        self._picture_note = self._draw(folder)
        document = build_session(
            self._tests, version=find_version(), created_at=clock.now_utc(), notes=[self._picture_note]
        )
        # Workers compete for the processor, which whoever reads the times must know.
        document["num_workers"] = self._config.getoption("numprocesses", default=None) or 0
        # Messages may quote file names that are no text; the report shows such a character by its number.
        markdown = render_markdown(document).encode(errors="backslashreplace")
        try:
            make_report_folder(folder)
            (folder / "session.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            (folder / "summary.md").write_bytes(markdown)
            self._written = folder
            if summary := os.environ.get(SUMMARY_VARIABLE):
                with Path(summary).open("ab") as file:
                    file.write(markdown)
        except OSError as error:
            self._problem = f"the report could not be written: {error}"
        self._track(document, folder)

    def _track(self, document: dict[str, Any], report: Path) -> None:
        settings = self._config.stash[SETTINGS]
        if not settings["track"]:
            return
        from harness.tracking.session import track_session  # noqa: PLC0415  late

        self._tracked = track_session(
            document,
            report,
            root=self._config.rootpath,
            uri=settings["tracking_uri"],
            source=settings.source("tracking_uri"),
            reason=settings["reason"],
        )

    def _draw(self, folder: Path) -> str:
        """Draws the pictures of the report; why there are none otherwise."""
        from harness.report.folder import make_report_folder, publish_pictures  # noqa: PLC0415  late

        if not any(test["trajectories"] for test in self._tests):
            return ""
        try:
            make_report_folder(folder)
        except OSError:
            return ""  # told when the report itself is written
        return publish_pictures(folder, self._tests)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Shows the table of runs and what a reader should know although nothing failed."""
        if not self._tests:
            return
        from harness.report.tables import (  # noqa: PLC0415  late
            FAILED,
            HEADER,
            NOT_OBSERVED,
            align,
            build_accepted,
            build_notes,
            build_rows,
        )

        document = {"tests": self._tests}
        terminalreporter.section("training summary")
        header, *rows = align([HEADER, *build_rows(document)])
        terminalreporter.write_line(header, bold=True)
        for line in rows:
            is_failed = FAILED in line or NOT_OBSERVED in line
            terminalreporter.write_line(line, red=is_failed, bold=is_failed)
        for line in build_accepted(document):
            terminalreporter.write_line(line)
        for note in build_notes(document):
            terminalreporter.write_line(f"note: {note}")
        classes = sorted({test["runner_class"] for test in self._tests if test["runner_class"]})
        if self._picture_note:
            terminalreporter.write_line(f"note: {self._picture_note}")
        if classes:
            terminalreporter.write_line(f"runner class: {', '.join(classes)}")
        if self._written is not None:
            terminalreporter.write_line(f"report: {os.path.relpath(self._written)}/session.json, summary.md")
        if self._tracked is not None:
            is_good, told = self._tracked
            terminalreporter.write_line(told, yellow=not is_good)
        if self._problem is not None:
            terminalreporter.write_line(self._problem, red=True)


def find_version() -> str:
    """The installed version of the harness."""
    return metadata.version("pytest-training-harness")


def describe_item(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> dict[str, Any]:
    """What a test with a marker of ours came to, as JSON data for the report."""
    from harness.errors import HarnessError  # noqa: PLC0415
    from harness.report.document import describe_run, describe_test  # noqa: PLC0415  late
    from harness.report.trajectory_document import describe_trajectory  # noqa: PLC0415
    from harness.rules.diagnosis import diagnose  # noqa: PLC0415

    state: TestState = item.stash[STATE]
    error = call.excinfo.value if call.excinfo is not None else None
    outcome: str = report.outcome
    if report.failed and (state.is_not_observed or isinstance(error, HarnessError)):
        outcome = "not observed"
    elif report.skipped and hasattr(report, "wasxfail"):
        outcome = "xfailed"
    judged = [result for run in state.runs if run.baseline for result in run.baseline.judged]
    described = describe_test(
        item.nodeid,
        runner_class=state.runner_class,
        runs=[describe_run(run, diagnose(run)) for run in state.runs],
        budget=state.results,
        trajectories=[describe_trajectory(result) for result in judged],
        outcome=outcome,
        message=report.longreprtext if error is None else _explain(error),
    )
    # A report crosses from worker to controller as plain types only; JSON leaves no other.
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _explain(error: BaseException) -> str:
    from harness.errors import HarnessError, ObservationError  # noqa: PLC0415

    if isinstance(error, ObservationError):
        return error.whole
    told = (HarnessError, AssertionError, pytest.fail.Exception, pytest.skip.Exception)
    return str(error) if isinstance(error, told) else f"{type(error).__name__}: {error}"


def add_properties(item: pytest.Item) -> None:
    """Adds the measurements of the last run and the verdicts of its budget to the JUnit properties."""
    from harness.budgets.metrics import measure  # noqa: PLC0415  late
    from harness.report.trajectory_document import (  # noqa: PLC0415
        describe_trajectory,
        summarize_trajectory,
    )

    state: TestState = item.stash[STATE]
    if state.runs:
        run = state.runs[-1]
        values = {"num_steps": len(run.steps), **measure(run), "runner_class": state.runner_class}
        item.user_properties.extend((f"harness.{name}", value) for name, value in values.items())
    for run in state.runs:
        for result in run.baseline.judged if run.baseline else ():
            summary = summarize_trajectory(describe_trajectory(result))
            item.user_properties.append(("harness.trajectory", summary))
    for result in state.results:
        change = "" if result.change is None else f" {result.change:+.1%}"
        item.user_properties.append((f"harness.budget.{result.metric}", f"{result.verdict}{change}"))
