"""What a budget comes to, and which of it fails."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What a budget came to."""

    PASS = "pass"  # noqa: S105  not a password
    REGRESSED = "regressed"
    IMPROVED = "improved"
    INCONCLUSIVE = "inconclusive"
    NOT_STEADY = "not steady"
    NOT_COMPARABLE = "not comparable"
    MISSING_BASELINE = "missing baseline"
    EXCEEDED = "limit exceeded"
    ACCEPTED = "accepted"


def find_failing(*, fails_inconclusive: bool, requires_baseline: bool) -> frozenset[Verdict]:
    """The verdicts that fail a test or a command.

    Args:
        fails_inconclusive: Whether what can't be told fails too.
        requires_baseline: Whether what can't be compared on this machine does.
    """
    failing = {Verdict.REGRESSED, Verdict.EXCEEDED, Verdict.MISSING_BASELINE}
    if requires_baseline:
        failing.add(Verdict.NOT_COMPARABLE)
    if fails_inconclusive:
        failing |= {Verdict.INCONCLUSIVE, Verdict.NOT_STEADY}
    return frozenset(failing)
