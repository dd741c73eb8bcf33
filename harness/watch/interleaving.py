"""Runs two programs beside one another, in turns of a few steps on one core, so that both meet the same machine."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.watch.arms import Arm
from harness.watch.cores import choose_cores
from harness.watch.processes import raising_terminated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.watch.arms import ArmRecord, Program
    from harness.watch.options import ObserverOptions

NUM_TRIAL_STEPS = 8
"""Steps by which the length of the turns is chosen: the quickest, as the first are slow and some may be counted."""


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """How long the turns are, and how many steps are compared.

    The shorter the turns, the more alike is the machine that both meet. Under load on the other core the ratio of
    two equal programs spread five times as much in turns of twelve steps of 30 ms as in turns of one.
    """

    turn_s: float = 0.02
    """Least length of a turn in seconds: what is lost to cold caches at its start is small beside it."""
    measured_s: float = 2.0
    """Time each program runs in all its turns."""
    min_steps: int = 24
    """Least number of steps compared, however long they take."""
    max_steps: int = 400
    """Largest number of steps compared."""

    def count_steps_a_turn(self, step_s: float) -> int:
        """Steps of one turn."""
        return max(1, math.ceil(self.turn_s / step_s))

    def count_steps(self, step_s: float) -> int:
        """Steps that each program makes in all its turns."""
        return min(self.max_steps, max(self.min_steps, math.ceil(self.measured_s / step_s)))


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One process of each program, and their turns.

    Attributes:
        base: The base's process.
        head: The head's.
        turns: Ranges of steps that both made, one after the other.
    """

    base: ArmRecord
    head: ArmRecord
    turns: list[range]


def run_pair(
    base: Program,
    head: Program,
    folder: Path,
    plan: TurnPlan,
    *,
    watch: ObserverOptions,
    timeout_s: float,
    num_threads: int = 1,
    is_head_first: bool = False,
) -> PairRecord:
    """Starts a fresh process of both programs, has them take turns, ends them, and returns what they showed.

    Both start at once, each where the system puts it, and stop after their first step; from then on they share the
    same core and one of them runs, in the order ABBA. When one comes to its own end, the other gets one turn
    more, so that it is known whether it has more steps.

    Args:
        base: The program as it was.
        head: The program as it is to be.
        folder: An empty folder.
        plan: The turns.
        watch: How both are watched.
        timeout_s: Seconds without the end of a step after which a program counts as hanging.
        num_threads: Threads the programs use, and cores they share.
        is_head_first: Whether the head is started first and has the first turn.

    Raises:
        ObservationError: One of them crashed, hung, or trained no step.
        UsageError: One of them can't be started.
    """
    cores = choose_cores(num_threads)
    with raising_terminated(), contextlib.ExitStack() as exits:
        arms: list[Arm] = []
        for program in (head, base) if is_head_first else (base, head):
            place = folder / program.name
            place.mkdir()
            arms.append(exits.enter_context(Arm(program, place, watch, timeout_s=timeout_s)))
        for arm in arms:
            arm.run_until(1)
        for arm in arms:
            arm.pin(cores)
        turns = _take_turns(arms, plan)
        for arm in arms:
            arm.tell_to_end()
        records = {arm.program.name: arm.finish() for arm in arms}
    return PairRecord(records[base.name], records[head.name], turns)


def _take_turns(arms: Sequence[Arm], plan: TurnPlan) -> list[range]:
    turns: list[range] = []
    order = list(arms)
    start, length, end = 1, 1, 1 + NUM_TRIAL_STEPS
    trials_s = []
    while start < end:
        turn = range(start, start + length)
        # Both, also when the first of them came to its end in its turn.
        are_there = [arm.run_until(turn.stop) for arm in order]
        if not all(are_there):
            break
        turns.append(turn)
        trials_s += [arm.turn_s for arm in arms]
        order.reverse()
        start = turn.stop
        if start == 1 + NUM_TRIAL_STEPS:
            step_s = min(trials_s)
            length = plan.count_steps_a_turn(step_s)
            end = start + max(plan.count_steps(step_s), length)
    return turns
