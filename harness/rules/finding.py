"""A rule, what it found, and the finding that is told to people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harness.record.run import TrainingRun


class Severity(StrEnum):
    """How bad a finding is: errors fail a run, warnings and notes are shown."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the check of a rule has seen in a run, in words; the rule's identity is added to it.

    Attributes:
        message: What was seen, with the measured values and the bound, as one or two whole sentences.
        cause: The likely cause in plain words, as a sentence that goes on after "Likely:".
        advice: The next thing to try, as a sentence that goes on after "Next:".
        subject: The metric, tensor, module, optimizer or file it is about.
        step: Where it was first seen; None when it concerns the whole run.
        severity: Another one than the rule's own; None takes that.
    """

    message: str
    cause: str
    advice: str
    subject: str
    step: int | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
        code: The rule's stable code, such as `T101`.
        name: The rule's stable name, such as `loss-not-decreasing`.
        severity: How bad it is.
        message: What was seen, with values and the bound.
        cause: The likely cause, in plain words.
        advice: The next thing to try.
        subject: The metric, tensor, module, optimizer or file it is about.
        step: Where it was first seen; None when it concerns the whole run.
        explained_by: Code of the finding it follows from; None when it stands for itself.
    """

    code: str
    name: str
    severity: Severity
    message: str
    cause: str
    advice: str
    subject: str
    step: int | None = None
    explained_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return asdict(self) | {"severity": str(self.severity)}

    def __str__(self) -> str:
        return f"{self.code} {self.name}: {self.message}\nLikely: {self.cause}\nNext: {self.advice}"


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that a rule compares with, which a project may set.

    Attributes:
        name: Its name in the configuration.
        default: Its value when nobody sets it.
        meaning: What it bounds, with the unit, as half a sentence.
    """

    name: str
    default: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A stable code and name, when it applies, and the check itself.

    Attributes:
        code: Stable code, never reused.
        name: Stable name.
        severity: Of its findings, where the check does not say otherwise.
        summary: What must hold, in one sentence.
        explanation: How it is told, and what look-alikes it is silent about; for its page in the docs.
        cases: Real bugs it is made for, each with where it was reported.
        find_obstacle: Why the rule can't be applied to a run; None when it can.
        check: What is wrong in a run it can be applied to, by the rule's bounds. A pure function.
        bounds: The numbers it compares with.
        explains: Codes, or beginnings of codes, of the findings that follow from one of this rule.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    explanation: str
    cases: tuple[str, ...]
    find_obstacle: Callable[[TrainingRun], str | None]
    check: Callable[[TrainingRun, Mapping[str, float]], Iterable[Evidence]]
    bounds: tuple[Bound, ...] = ()
    explains: tuple[str, ...] = ()

    @property
    def default_bounds(self) -> dict[str, float]:
        """The bounds by name, as they are when nobody sets them."""
        return {bound.name: bound.default for bound in self.bounds}

    def apply(
        self,
        run: TrainingRun,
        *,
        severity: Severity | None = None,
        bounds: Mapping[str, float] | None = None,
    ) -> list[Finding]:
        """The findings in a run.

        Args:
            run: A run the rule can be applied to.
            severity: Takes the place of the rule's own, and of what the check itself made milder or graver.
            bounds: Take the place of the defaults they name.
        """
        found = self.check(run, {**self.default_bounds, **(bounds or {})})
        return [
            Finding(
                code=self.code,
                name=self.name,
                severity=severity or evidence.severity or self.severity,
                message=evidence.message,
                cause=evidence.cause,
                advice=evidence.advice,
                subject=evidence.subject,
                step=evidence.step,
            )
            for evidence in found
        ]


SEVERITIES = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
