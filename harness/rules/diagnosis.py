"""Applies the rules to a run, and sorts out which finding is the cause of which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.rules.catalogue import BY_CODE, RULES
from harness.rules.finding import SEVERITIES, Finding, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.run import TrainingRun
    from harness.selection import RuleSelection


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the rules say of a run.

    Attributes:
        findings: Causes first, each followed by what follows from it (`explained_by`); the gravest cause leads.
        applied: Codes of the rules that were applied, ignored ones among them.
        not_applied: Why each other rule was not, by code.
        ignored: Findings that were ignored on purpose, each with the reason given.
    """

    findings: tuple[Finding, ...]
    applied: tuple[str, ...]
    not_applied: dict[str, str]
    ignored: tuple[tuple[Finding, str], ...] = ()

    @property
    def errors(self) -> list[Finding]:
        """The findings that fail a run."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]

    @property
    def causes(self) -> list[Finding]:
        """The findings that stand for themselves."""
        return [finding for finding in self.findings if finding.explained_by is None]

    def consequences(self, cause: Finding) -> list[Finding]:
        """The findings that follow from one of the causes."""
        return [finding for finding in self.findings if finding.explained_by == cause.code]


def diagnose(run: TrainingRun, rules: Sequence[Rule] = RULES) -> Diagnosis:
    """Applies every rule that can be applied to a run, as `run.selection` asks for.

    Raises:
        UsageError: The selection names a rule or a bound that there is not.
    """
    selection = run.selection
    check_selection(selection)
    findings: list[Finding] = []
    ignored: list[tuple[Finding, str]] = []
    applied: list[str] = []
    not_applied: dict[str, str] = {}
    for rule in rules:
        if not selection.is_selected(rule.code):
            not_applied[rule.code] = "not selected"
            continue
        obstacle = rule.find_obstacle(run)
        if obstacle is not None:
            not_applied[rule.code] = obstacle
            continue
        applied.append(rule.code)
        severity = selection.find_severity(rule.code)
        found = rule.apply(
            run,
            severity=None if severity is None else Severity(severity),
            bounds=selection.bounds.get(rule.code),
        )
        reason = selection.find_reason_to_ignore(rule.code)
        if reason is None:
            findings += found
        else:
            ignored += [(finding, reason) for finding in found]
    return Diagnosis(tuple(_order(findings)), tuple(applied), not_applied, tuple(ignored))


def check_selection(selection: RuleSelection) -> None:
    """Refuses a selection that names what the catalogue does not have.

    Raises:
        UsageError: It names an unknown rule, family or bound.
    """
    selection.check({rule.code: tuple(bound.name for bound in rule.bounds) for rule in RULES})


def _order(findings: list[Finding]) -> list[Finding]:
    """Every cause with what follows from it behind it; groups by their gravest finding, then as the rules."""
    causes: dict[str, Finding] = {}
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        cause = next((code for code in causes if _explains(causes[code], finding)), None)
        if cause is None:
            causes.setdefault(finding.code, finding)
            groups.setdefault(finding.code, []).append(finding)
        else:
            groups[cause].append(replace(finding, explained_by=cause))
    gravest = {
        code: min(SEVERITIES.index(finding.severity) for finding in group) for code, group in groups.items()
    }
    return [finding for code in sorted(groups, key=gravest.__getitem__) for finding in groups[code]]


def _explains(cause: Finding, other: Finding) -> bool:
    """Whether one finding follows from another. A note explains only notes: it may be about nothing."""
    if cause.code == other.code or (cause.severity is Severity.NOTE and other.severity is not Severity.NOTE):
        return False
    return other.code.startswith(BY_CODE[cause.code].explains) if cause.code in BY_CODE else False
