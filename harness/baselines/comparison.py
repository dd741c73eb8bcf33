"""Compares an observed trajectory with a baseline: does it match, and if not, what differs first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.baselines.trajectory import Phase, Trajectory


class Match(StrEnum):
    """What a comparison came to."""

    MATCHES = "matches"
    DIVERGED = "diverged"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference between two trajectories.

    Attributes:
        phase: Where it begins.
        step: The step it is seen in first.
        item: What differs: a tensor, a setting, a number; named as users know it.
        change: Both values and how far apart they are, such as "norm 0.41 -> 0.82, x2.00".
        causes: What is likely behind it, most likely first, in whole sentences.
        identical: What is still the same in and before that step.
        consequence: What became of the loss, in a sentence; empty where it is the same to the end.
        modules: Names of the modules it is about, to find their files by.
    """

    phase: Phase
    step: int
    item: str
    change: str
    causes: tuple[str, ...] = ()
    identical: tuple[str, ...] = ()
    consequence: str = ""
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrajectoryComparison:
    """An observed trajectory against a baseline.

    Attributes:
        match: Whether it matches.
        is_exact: Whether every bit was compared; False for comparisons by tolerance.
        divergence: The first difference; None unless it diverged.
        reason: Why it can't be compared, or how it was compared; empty where nothing is to be said.
        notes: What a reader should know although it matches.
    """

    match: Match
    is_exact: bool
    divergence: Divergence | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def compare_trajectories(
    baseline: Trajectory, observed: Trajectory, *, is_exact: bool | None = None
) -> TrajectoryComparison:
    """Whether an observed trajectory is that of the baseline, and the first difference where it is not.

    Args:
        baseline: The stored one.
        observed: The one of this run.
        is_exact: Whether to compare every bit; None does so within one numerics class where runs are
            deterministic, and compares by tolerance elsewhere.
    """
    raise NotImplementedError
