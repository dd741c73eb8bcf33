"""The pairs of trials, judged at another tolerance than the one at which they were made.

A trial goes on for as long as its own tolerance is undecided. The looks of another are made over the same pairs, where
it does not depend on what these show whether there are enough of them: the time was over at the first look, or the
other tolerance is larger, and is as good as always decided by then. Of a program that was made slower a smaller
tolerance is decided no later than the one it was made at, where that found it. A trial that leaves the other tolerance
open all the same counts as one that is undecided: as not found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.budgets.ab import LOOKS, judge_pairs
from harness.budgets.launch_pair import LaunchPair

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOLERANCES = (0.0, 0.02)
"""The tolerances that the proof is of."""
UNDECIDED = "undecided"


def list_judged(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials, and once more for each other tolerance that their pairs are judged at."""
    return [*trials, *judge_again(trials)]


def judge_again(trials: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials at each other tolerance that they tell about; without seconds, since they would have taken others."""
    return [
        {key: value for key, value in trial.items() if key != "seconds"} | judge_trial(trial, tolerance)
        for trial in trials
        for tolerance in TOLERANCES
        if may_be_judged(trial, tolerance)
    ]


def may_be_judged(trial: dict[str, Any], tolerance: float) -> bool:
    """Whether a trial's pairs are enough for this tolerance, whatever they show."""
    if trial["tolerance"] == tolerance or "drifts" not in trial:
        return False
    if trial["slower"]:
        return bool(trial["tolerance"] > tolerance)
    was_over_at_first = trial["is_time_over"] and len(trial["logs"]) == LOOKS[0]
    return bool(was_over_at_first or trial["tolerance"] < tolerance)


def judge_trial(trial: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """What a trial would have come to at a tolerance: look by look over its pairs, until one is final."""
    pairs = list_pairs(trial)
    for num in range(LOOKS[0], len(pairs) + 1):
        is_last = trial["is_time_over"] and num == len(pairs)
        verdict = judge_pairs(pairs[:num], tolerance=tolerance, is_last=is_last)
        if verdict.is_final:
            break
    return {
        "tolerance": tolerance,
        "verdict": str(verdict.verdict) if verdict.is_final else UNDECIDED,
        "change": round(verdict.step_time.change, 6),
        "logs": trial["logs"][: verdict.num_pairs],
    }


def list_pairs(trial: dict[str, Any]) -> list[LaunchPair]:
    """The pairs of a trial, without the phases of their steps, which are not recorded."""
    numbers = zip(trial["logs"], trial["drifts"], trial["base_s"], strict=True)
    return [
        LaunchPair(log, drift, base_s, base_s * math.exp(log), {}, {}, num_steps=0, num_warm_up=0)
        for log, drift, base_s in numbers
    ]


def tell_judged_again(trials: Sequence[dict[str, Any]]) -> str:
    """How many equal trials are counted at a tolerance at which they were not made, and how many can't be."""
    equal = [trial for trial in trials if not trial["slower"] and "logs" in trial]
    told = []
    for tolerance in TOLERANCES:
        others = [trial for trial in equal if trial["tolerance"] != tolerance]
        num = sum(may_be_judged(trial, tolerance) for trial in others)
        told.append(f"{num} at {tolerance:.0%} ({len(others) - num} more have too few pairs for it)")
    return f"Trials of equal programs made at another tolerance, their pairs judged again: {', '.join(told)}."
