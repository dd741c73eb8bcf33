"""Tells a diagnosis the way a colleague would: the cause first, and under it what follows from it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from harness.rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.rules.diagnosis import Diagnosis
    from harness.rules.finding import Finding

WIDTH = 110
INDENT = "  "
NOT_SELECTED = "not selected"


def tell_diagnosis(
    diagnosis: Diagnosis, *, is_shown: Callable[[Finding], bool] = lambda _: True, width: int = WIDTH
) -> list[str]:
    """The findings as lines of text, causes first; nothing for a clean run.

    Args:
        diagnosis: What the rules say.
        is_shown: Which causes to tell; each comes with all that follows from it.
        width: Columns to wrap at.
    """
    lines: list[str] = []
    for cause in diagnosis.causes:
        consequences = diagnosis.consequences(cause)
        if any(is_shown(finding) for finding in (cause, *consequences)):
            lines += _tell(cause, consequences, width)
    return lines


def tell_leading(diagnosis: Diagnosis) -> list[str]:
    """The first cause that is more than a note, with what follows from it; nothing where there is none."""
    first = next((cause for cause in diagnosis.causes if cause.severity is not Severity.NOTE), None)
    return tell_diagnosis(diagnosis, is_shown=lambda finding: finding is first)


def tell_ignored(diagnosis: Diagnosis) -> list[str]:
    """One line for each finding that was ignored on purpose."""
    return [
        f"ignored: {finding.code} {finding.name} ({reason}): {finding.message}"
        for finding, reason in diagnosis.ignored
    ]


def tell_not_applied(diagnosis: Diagnosis) -> list[str]:
    """One line for each reason why rules were not applied."""
    reasons: dict[str, list[str]] = {}
    for code, reason in diagnosis.not_applied.items():
        reasons.setdefault(reason, []).append(code)
    num_left_out = len(reasons.pop(NOT_SELECTED, []))
    lines = [f"not applied: {', '.join(codes)}: {reason}" for reason, codes in reasons.items()]
    return lines + ([f"not selected: {num_left_out} rules"] if num_left_out else [])


def _tell(cause: Finding, consequences: list[Finding], width: int) -> list[str]:
    place = "" if cause.step is None else f", step {cause.step}"
    lines = [f"{cause.severity}: {cause.code} {cause.name} [{cause.subject}{place}]"]
    for label, text in (("", cause.message), ("Likely: ", cause.cause), ("Next: ", cause.advice)):
        lines += textwrap.wrap(
            label + text, width, initial_indent=INDENT, subsequent_indent=INDENT, break_long_words=False
        )
    for finding in consequences:
        lines += textwrap.wrap(
            f"follows from it: {finding.code} {finding.name} ({finding.severity}): {finding.message}",
            width,
            initial_indent=INDENT,
            subsequent_indent=2 * INDENT,
            break_long_words=False,
        )
    return lines
