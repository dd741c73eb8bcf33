"""The summary table of a session, as rows of text for the terminal and for Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.budgets.metrics import PEAK_MEMORY, STEP_TIME, THROUGHPUT
from harness.report.columns import GAP, align_columns
from harness.report.curve import draw_sparkline

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = ("test", "steps", "loss", "step time", "throughput", "peak memory", "verdict")
FAILED, NOT_OBSERVED = "FAILED", "NOT OBSERVED"
FAILING_VERDICTS = ("limit exceeded", "missing baseline", "diverged", "regressed")
ACCEPTING_VERDICTS = ("accepted", "unchanged")
MAX_WIDTH = 120
"""Characters of a line in the logs of CI before it is wrapped or cut."""
MIN_NAME, MIN_VERDICT = 24, 24
NUMBERS = (1, 3, 4, 5)
NOTED_VERDICTS = ("inconclusive", "not comparable", "accepted", "improved")


def build_rows(session: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per run, and one per test that ran none."""
    rows: list[tuple[str, ...]] = []
    for test in session["tests"]:
        verdict = summarize_verdict(test)
        if not test["runs"]:
            rows.append((shorten(test["nodeid"]), "", "", "", "", "", verdict))
        for number, run in enumerate(test["runs"]):
            name = shorten(test["nodeid"]) if number == 0 else f"  run {number + 1}"
            rows.append((name, str(run["num_steps"]), *_describe_run(run), verdict if number == 0 else ""))
    return rows


def build_notes(session: dict[str, Any]) -> list[str]:
    """What a reader should know although nothing failed: one line a budget that was not plainly passed."""
    notes: dict[str, list[str]] = {}
    for test in session["tests"]:
        for text in (*_tell_budget(test["budget"]), *_tell_trajectories(test["trajectories"])):
            notes.setdefault(text, []).append(test["nodeid"])
        for run in test["runs"]:
            for note in run["notes"]:
                notes.setdefault(note, []).append(test["nodeid"])
            for finding in run["findings"]:
                if finding["severity"] != "error":
                    text = f"{finding['code']} {finding['name']}: {finding['message']}"
                    notes.setdefault(text, []).append(test["nodeid"])
    return [f"{', '.join(map(shorten, nodeids))}: {note}" for note, nodeids in notes.items()]


def build_accepted(session: dict[str, Any]) -> list[str]:
    """A line for each trajectory that was accepted, or is unchanged: what moves, and by how much."""
    return [
        trajectory["message"]
        for test in session["tests"]
        for trajectory in test["trajectories"]
        if trajectory["verdict"] in ACCEPTING_VERDICTS
    ]


def _tell_trajectories(trajectories: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader should know of comparisons that failed nothing."""
    told = []
    for trajectory in trajectories:
        is_plain = trajectory["verdict"] in ("diverged", "missing baseline", *ACCEPTING_VERDICTS)
        baseline = trajectory["baseline"]
        is_elsewhere = baseline and baseline["numerics_class"] != trajectory["numerics_class"]
        if not is_plain and (trajectory["verdict"] == "not comparable" or is_elsewhere):
            told.append(trajectory["message"])
        told += [] if is_plain else trajectory["notes"]
    return told


def _tell_budget(results: Sequence[dict[str, Any]]) -> list[str]:
    """One line for all measurements of a test to which the same happened; the whole is in the document."""
    labels: dict[str, list[str]] = {}
    for result in results:
        metric, verdict, change = result["metric"], result["verdict"], result["change"]
        if verdict not in NOTED_VERDICTS:
            continue
        if verdict == "accepted":
            text, change = result["message"].removeprefix(f"{metric} "), None
        elif verdict == "not comparable":
            text = f"{verdict}: {result['message'].partition(': ')[2] or result['advice']}"
        else:
            text = f"{verdict}: {result['advice']}"
        is_number = isinstance(change, (int, float))
        labels.setdefault(text, []).append(f"{metric} ({change:+.1%})" if is_number else metric)
    return [f"{', '.join(metrics)} {text}" for text, metrics in labels.items()]


def shorten(nodeid: str) -> str:
    """A node id without its folders."""
    path, separator, name = nodeid.partition("::")
    return path.rpartition("/")[2] + separator + name


def summarize_verdict(test: dict[str, Any]) -> str:
    """The outcome of a test, and the least good verdict of its budget where that says more."""
    if test["outcome"] in ("skipped", "xfailed"):
        reason = test["message"].partition("\n")[0]
        return f"{test['outcome']}: {reason}" if reason else str(test["outcome"])
    verdicts = {result["verdict"] for result in (*test["budget"], *test["trajectories"])}
    worst = next((verdict for verdict in (*FAILING_VERDICTS, *NOTED_VERDICTS) if verdict in verdicts), None)
    if test["outcome"] != "passed":
        codes = sorted(
            {
                finding["code"]
                for run in test["runs"]
                for finding in run["findings"]
                if finding["severity"] == "error"
            }
        )
        is_reason = worst is not None and (worst in FAILING_VERDICTS or not codes)
        reasons = [*codes, *([worst] if worst and is_reason else [])]
        return f"{test['outcome'].upper()}{': ' + ', '.join(reasons) if reasons else ''}"
    return f"passed, {worst}" if worst else "passed"


def align(rows: Sequence[tuple[str, ...]], width: int = MAX_WIDTH) -> list[str]:
    """Rows as lines of text with columns of one width; numbers stand to the right.

    Where a line would be longer than `width`, names of tests lose their middles, then verdicts their ends.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for column, least in ((0, MIN_NAME), (-1, MIN_VERDICT)):
        excess = sum(widths) + GAP * (len(widths) - 1) - width
        widths[column] = max(min(least, widths[column]), widths[column] - max(0, excess))
    rows = [(_cut_middle(row[0], widths[0]), *row[1:-1], _cut_end(row[-1], widths[-1])) for row in rows]
    return align_columns(rows, is_right=NUMBERS)


def _cut_middle(text: str, width: int) -> str:
    """A text of at most `width` characters, of which the end, which tells most, is kept the longer."""
    if len(text) <= width:
        return text
    start = (width - 1) // 3
    return f"{text[:start]}…{text[len(text) - (width - 1 - start) :]}"


def _cut_end(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _describe_run(run: dict[str, Any]) -> tuple[str, ...]:
    losses = [float(value) for _, value in run["loss"]]
    loss = f"{losses[0]:.4g} {draw_sparkline(losses)} {losses[-1]:.4g}" if losses else "none"
    unit, measured = run["throughput_unit"], run["measured"]
    shown = {
        metric: metric.show(float(measured[metric.name]), unit) if metric.name in measured else ""
        for metric in (STEP_TIME, THROUGHPUT, PEAK_MEMORY)
    }
    if run["is_profiled"]:
        shown[STEP_TIME] = "profiled"
    return (loss, *shown.values())
