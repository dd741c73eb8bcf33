"""How fast the machine was while a program ran: how long work that never changes took beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FixedWork:
    """Work of the harness's own that was timed before a run and behind it.

    Attributes:
        time_s: Seconds it took, in the quicker of the two turns.
        made_with: What the work is, and what does it: only times of the same can be compared.
    """

    time_s: float
    made_with: str
