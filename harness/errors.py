"""Errors a user can meet, apart from findings: each says what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class HarnessError(Exception):
    """The harness was used wrongly, or the run could not be observed; exit code 2.

    A finding about a training is never a `HarnessError`: it is an `AssertionError` raised by an assertion
    or a budget, with exit code 1.
    """


class UsageError(HarnessError):
    """An argument, marker, option or environment variable has a value the harness can't use."""


class ObservationError(HarnessError):
    """The program ran, but gave nothing to judge: it crashed, hung, trained no step or had no loss.

    Attributes:
        seen: Records of what was seen up to then, one per process; empty when nothing was.
        run: The `TrainingRun` up to then, for rules to look at; None where no step with a loss was seen.
        output: The last lines that a command printed, where they were passed on and are not in the message.
    """

    def __init__(self, message: str, *, seen: Sequence[Any] = (), run: Any = None, output: str = "") -> None:
        super().__init__(message)
        self.seen = tuple(seen)
        self.run = run
        self.output = output

    def put_before_advice(self, text: str) -> None:
        """Adds to the message, before the line that says what to do next."""
        told, mark, advice = str(self).rpartition("\nNext: ")
        self.args = (f"{told}\n{text}{mark}{advice}" if mark else f"{advice}\n{text}",)

    @property
    def whole(self) -> str:
        """The message with that output, for reports that are read where the output is not."""
        return f"{self}\n{self.output}" if self.output else str(self)


class MetricsFileError(ObservationError):
    """A metrics file is missing, empty, ambiguous or can't be parsed."""


class BaselineError(HarnessError):
    """A baseline file can't be read or written; what was stored before is untouched."""
