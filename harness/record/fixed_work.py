"""How fast the machine was while a program ran: how long work that never changes took beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FixedWork:
    """Work of the harness's own that was timed before a run and behind it.

    Attributes:
        time_s: Seconds it took, in the quicker of the two turns.
        made_with: What the work is, and what does it: only times of the same can be compared.
    """

    time_s: float
    made_with: str

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The work as `dataclasses.asdict` gave it.

        Raises:
            TypeError, ValueError: It is not one, or took no time.
        """
        work = cls(**value)
        if not 0 < work.time_s < math.inf:
            raise ValueError(f"fixed work took {work.time_s!r} s")
        return work
