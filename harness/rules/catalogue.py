"""All rules, and how they are applied to a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.rules.finding import Finding, Rule, Severity
from harness.rules.loss import LOSS_NOT_DECREASING, NON_FINITE_METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.run import TrainingRun

RULES: tuple[Rule, ...] = (NON_FINITE_METRIC, LOSS_NOT_DECREASING)
"""In the order in which causes come before their consequences."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the rules say of a run.

    Attributes:
        findings: In the order of the rules.
        applied: Codes of the rules that were applied.
        not_applied: Why each other rule was not, by code.
    """

    findings: tuple[Finding, ...]
    applied: tuple[str, ...]
    not_applied: dict[str, str]

    @property
    def errors(self) -> list[Finding]:
        """The findings that fail a run."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]


def diagnose(run: TrainingRun, rules: Sequence[Rule] = RULES) -> Diagnosis:
    """Applies every rule that can be applied to a run."""
    obstacles = {rule.code: rule.find_obstacle(run) for rule in rules}
    applied = [rule for rule in rules if obstacles[rule.code] is None]
    return Diagnosis(
        findings=tuple(finding for rule in applied for finding in rule.check(run, rule)),
        applied=tuple(rule.code for rule in applied),
        not_applied={code: reason for code, reason in obstacles.items() if reason is not None},
    )
