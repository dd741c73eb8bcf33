"""A finding, and the rule that makes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.record.run import TrainingRun


class Severity(StrEnum):
    """How bad a finding is: errors fail a run, warnings and notes are shown."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
        code: The rule's stable code, such as `T101`.
        name: The rule's stable name, such as `loss-not-decreasing`.
        severity: How bad it is.
        message: What was seen, with values and the bound.
        cause: The likely cause and what to try, in plain words.
        step: Where it was first seen; None when it concerns the whole run.
        subject: The metric, tensor, module or file it is about.
    """

    code: str
    name: str
    severity: Severity
    message: str
    cause: str
    subject: str
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return asdict(self) | {"severity": str(self.severity)}

    def __str__(self) -> str:
        return f"{self.code} {self.name}: {self.message}\n{self.cause}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A stable code and name, when it applies, and the check itself.

    Attributes:
        code: Stable code, never reused.
        name: Stable name.
        severity: Of its findings.
        summary: What must hold, in one sentence.
        find_obstacle: Why the rule can't be applied to a run; None when it can.
        check: The findings in a run it can be applied to.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    find_obstacle: Callable[[TrainingRun], str | None]
    check: Callable[[TrainingRun, Rule], Iterator[Finding]]
