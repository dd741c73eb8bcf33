"""A change of a program that no single run shows, and the phase that a careful engineer would name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.detection.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.detection.fault import Edits
    from harness.baselines.trajectory import Phase


@dataclass(frozen=True, slots=True)
class Truth:
    """Where a change begins to act, as an engineer says who reads the change.

    Attributes:
        phases: The right one; two where honest engineers differ; none where a trajectory can't show it: logs,
            checkpoints, copies that are only evaluated, and changes of the text alone.
        reason: Why, where the summary of the change does not tell.
    """

    phases: tuple[Phase, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A change with its truth.

    Attributes:
        fault: The edits. It expects no rule: a run with it is as good as one without.
        truth: In every program.
        exceptions: Where a program makes something else of it.
    """

    fault: Fault
    truth: Truth
    exceptions: Mapping[str, Truth] = field(default_factory=dict)

    def find_truth(self, program: str) -> Truth:
        """The truth of the change in a program."""
        return self.exceptions.get(program, self.truth)


def change(
    name: str,
    summary: str,
    phases: tuple[Phase, ...],
    edits: Mapping[str, Edits],
    *,
    reason: str = "",
    exceptions: Mapping[str, Truth] | None = None,
) -> Change:
    """A change by its parts."""
    fault = Fault(id=name, summary=summary, expected=(), source="", edits=edits)
    return Change(fault, Truth(phases, reason), exceptions or {})
