"""The session as Markdown, for a pull request's or a job's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.report.tables import HEADER, build_accepted, build_notes, build_rows

if TYPE_CHECKING:
    from collections.abc import Iterable


def render_markdown(session: dict[str, Any]) -> str:
    """A heading, the table of runs, the messages of what failed, and the notes."""
    tests = session["tests"]
    failed = [test for test in tests if test["outcome"] in ("failed", "not observed")]
    title = f"{len(failed)} of {len(tests)} failed" if failed else f"{len(tests)} passed or skipped"
    lines = [f"## Training harness: {title}", "", _row(HEADER), _row("---" for _ in HEADER)]
    lines += [_row(row) for row in build_rows(session)]
    for test in failed:
        lines += ["", f"### {test['nodeid']}", "", "```text", test["message"].replace("```", "'''"), "```"]
    notes = [*build_accepted(session), *build_notes(session), *session["notes"]]
    if notes:
        lines += ["", *(f"- {note.replace(chr(10), ' ')}" for note in notes)]
    pictures = {
        trajectory["test"]: trajectory["picture"]
        for test in tests
        for trajectory in test["trajectories"]
        if trajectory["picture"]
    }
    if pictures:
        links = (f"[{name.replace('[', '(').replace(']', ')')}]({path})" for name, path in pictures.items())
        lines += ["", f"Against the baseline: {', '.join(links)}"]
    classes = sorted({test["runner_class"] for test in tests if test["runner_class"]})
    if classes:
        lines += ["", f"Runner class: {', '.join(f'`{name}`' for name in classes)}"]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
