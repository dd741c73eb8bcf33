from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from harness.budgets.results import BudgetResult
from harness.budgets.verdicts import Verdict
from harness.record.run import Step, TrainingRun
from harness.report.document import SCHEMA_VERSION, build_session, describe_run, describe_test
from harness.report.folder import make_report_folder, publish_trace
from harness.report.markdown import render_markdown
from harness.report.tables import HEADER, align, build_notes, build_rows
from harness.rules.diagnosis import diagnose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeRun = Callable[..., TrainingRun]


def describe(
    nodeid: str = "test_a.py::test_a",
    *,
    runs: tuple[TrainingRun, ...] = (),
    outcome: str = "passed",
    message: str = "",
    verdict: Verdict | None = None,
) -> dict[str, Any]:
    result = BudgetResult(
        "wall_clock_s", verdict or Verdict.PASS, 1.0, None, None, "the message.", "the advice."
    )
    return describe_test(
        nodeid,
        runner_class="some-class" if runs else None,
        runs=[describe_run(run, diagnose(run)) for run in runs],
        budget=[result] if verdict else [],
        outcome=outcome,
        message=message,
    )


def build(*tests: dict[str, Any]) -> dict[str, Any]:
    return build_session(tests, version="1.2.3", created_at="2026-11-02T00:00:00+00:00")


def find_verdicts(*tests: dict[str, Any]) -> list[str]:
    return [row[-1] for row in build_rows(build(*tests))]


def test_the_document_of_a_session_is_json_without_nan(make_run: MakeRun) -> None:
    run = make_run([3.0, math.nan, math.inf, 1.0], notes=["a note"])
    document = build(describe(runs=(run,), verdict=Verdict.PASS))
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert again["schema_version"] == SCHEMA_VERSION
    assert again["harness_version"] == "1.2.3"
    (described,) = again["tests"][0]["runs"]
    assert described["loss"] == [[0, 3.0], [1, "nan"], [2, "inf"], [3, 1.0]]
    assert [finding["code"] for finding in described["findings"]] == ["T201"]
    assert described["environment"]["torch"] == "2.13.0+cpu"


def test_a_row_shows_a_run_with_its_units(make_run: MakeRun) -> None:
    steps = [Step(step, {"loss": 8.0 - step, "num_tokens": 100.0}, time_s=0.05) for step in range(8)]
    ((*cells,),) = build_rows(build(describe(runs=(make_run(steps=steps),))))
    assert cells == [
        "test_a.py::test_a",
        "8",
        "8 █▇▆▅▄▃▂▁ 1",
        "50 ms",
        "2,000 tokens/s",
        "100.0 MiB",
        "passed",
    ]


def test_a_second_run_and_a_test_without_a_run_have_rows_of_their_own(make_run: MakeRun) -> None:
    rows = build_rows(build(describe(runs=(make_run(), make_run())), describe("test_b", outcome="failed")))
    assert [row[0] for row in rows] == ["test_a.py::test_a", "  run 2", "test_b"]
    assert [row[-1] for row in rows] == ["passed", "", "FAILED"]


def test_a_profiled_run_shows_no_step_time(make_run: MakeRun) -> None:
    ((*cells,),) = build_rows(build(describe(runs=(make_run(is_profiled=True),))))
    assert cells[3:5] == ["profiled", ""]


def test_a_verdict_tells_the_outcome_and_the_least_good_budget(make_run: MakeRun) -> None:
    assert find_verdicts(
        describe(verdict=Verdict.PASS),
        describe(verdict=Verdict.INCONCLUSIVE),
        describe(verdict=Verdict.REGRESSED, outcome="failed"),
        describe(runs=(make_run([2.0] * 9),), outcome="failed"),
        describe(outcome="not observed"),
        describe(outcome="skipped", message="needs a GPU\nmore"),
        describe(outcome="xfailed"),
    ) == [
        "passed",
        "passed, inconclusive",
        "FAILED: regressed",
        "FAILED: T101",
        "NOT OBSERVED",
        "skipped: needs a GPU",
        "xfailed",
    ]


def test_notes_tell_once_what_did_not_fail(make_run: MakeRun) -> None:
    noisy = make_run([2.0, 1.5, 2.2, 1.7, 1.9, 1.8], notes=["trace dropped"])
    notes = build_notes(
        build(
            describe("a", verdict=Verdict.NOT_COMPARABLE),
            describe("b", verdict=Verdict.NOT_COMPARABLE),
            describe("c", verdict=Verdict.PASS),
            describe("d", runs=(noisy,)),
        )
    )
    assert notes[0] == "a, b: wall_clock_s not comparable: the advice."
    assert notes[1] == "d: trace dropped"
    assert notes[2].startswith("d: T101 loss-not-decreasing: the loss is not shown to fall")
    assert len(notes) == 3


def test_columns_are_aligned() -> None:
    rows = [HEADER, ("t", "8", "1 2", "5 ms", "2 steps/s", "1 MiB", "passed")]
    header, row = align(rows)
    assert header.index("verdict") == row.index("passed")
    assert row.index("8") == header.index("steps") + len("steps") - 1


def test_measurements_to_which_the_same_happened_share_a_line() -> None:
    results = [
        BudgetResult(
            metric, Verdict.INCONCLUSIVE, 1.0, 2.0, change, f"{metric} inconclusive: a lot.", "wait."
        )
        for metric, change in (("wall_clock_s", 0.1), ("step_time_s", -0.02))
    ]
    accepted = BudgetResult("final_loss", Verdict.ACCEPTED, 1.0, 2.0, 0.1, "final_loss accepted as launch 1.")
    test = describe_test(
        "a", runner_class=None, runs=[], budget=[*results, accepted], outcome="passed", message=""
    )
    assert build_notes(build(test)) == [
        "a: wall_clock_s (+10.0%), step_time_s (-2.0%) inconclusive: wait.",
        "a: final_loss accepted as launch 1.",
    ]


def test_no_line_of_the_table_is_wider_than_120_columns() -> None:
    name = "test_training_of_everything.py::TestEverything::test_all[cuda-" + 80 * "x" + "-bfloat16]"
    rows = [
        HEADER,
        (name, "8", "1 ▁▂▃▄▅▆▇█▁▂▃▄▅▆▇ 2", "5 ms", "2,000 tokens/s", "100 MiB", "skipped: " + 90 * "y"),
        ("short", "8", "1 2", "5 ms", "2 steps/s", "1 MiB", "FAILED: T101"),
    ]
    header, long, short = align(rows)
    assert max(len(header), len(long), len(short)) == 120
    assert "-bfloat16]  " in long
    assert long.endswith("y…")
    assert short.endswith("FAILED: T101")
    assert align(rows[:1] + rows[2:])[1].startswith("short  ")


def test_the_summary_counts_failures_and_quotes_their_messages(make_run: MakeRun) -> None:
    markdown = render_markdown(
        build(
            describe("t.py::test_a[x|y]", outcome="failed", message="line 1\n```\nline 2"),
            describe("t.py::test_b", runs=(make_run(),), verdict=Verdict.NOT_COMPARABLE),
        )
    )
    assert markdown.startswith("## Training harness: 1 of 2 failed\n")
    assert "| t.py::test_a[x\\|y] |" in markdown
    assert "```text\nline 1\n'''\nline 2\n```" in markdown
    assert "- t.py::test_b: wall_clock_s not comparable: the advice." in markdown
    assert "Runner class: `some-class`" in markdown


def test_the_summary_of_a_green_session_says_so() -> None:
    assert render_markdown(build(describe())).startswith("## Training harness: 1 passed or skipped\n")


def test_a_new_report_folder_is_kept_out_of_commits_and_an_old_one_is_left_alone(tmp_path: Path) -> None:
    make_report_folder(tmp_path / "new")
    assert (tmp_path / "new/.gitignore").read_text() == "*\n"
    make_report_folder(tmp_path)
    assert not (tmp_path / ".gitignore").exists()


def test_published_traces_of_a_test_are_kept_to_the_newest(tmp_path: Path) -> None:
    for number in range(3):
        trace = tmp_path / f"harness-{number}.json.gz"
        trace.write_text(str(number))
        publish_trace(trace, tmp_path / "report", name="a", keep=2)
        publish_trace(trace, tmp_path / "report", name="b", keep=1)
    assert sorted(path.name for path in (tmp_path / "report/traces").iterdir()) == [
        "a-harness-1.json.gz",
        "a-harness-2.json.gz",
        "b-harness-2.json.gz",
    ]
