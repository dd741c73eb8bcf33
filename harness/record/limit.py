"""The limit that ended a program from outside."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STEPS, MAX_SECONDS = "max_steps", "max_seconds"
"""The kinds of limits, by the options that set them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that was reached.

    Attributes:
        kind: Which one: `max_steps` or `max_seconds`.
        value: What it was set to: steps, or seconds.
        num_steps: Optimizer steps, or updates by hand, that the program had made then.
    """

    kind: str
    value: float
    num_steps: int

    @property
    def is_of_time(self) -> bool:
        """Whether the time was over: how far a run had come then depends on the machine and its load."""
        return self.kind == MAX_SECONDS

    def __str__(self) -> str:
        return f"{self.kind}={self.value:.15g}"
