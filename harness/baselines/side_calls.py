"""Calls of models that no optimizer holds: a teacher, a frozen encoder, an average of the weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.baselines.deep_building import join_prints
from harness.baselines.pairs import MODE, VALUES_OF, Difference
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.baselines.pairs import Pair
    from harness.baselines.trajectory import Trajectory

BOTH_MODES = "both"
SEPARATOR, NOTHING = "; ", "-"
NUMBER = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class SideCalls:
    """All such calls of the models of one class in a step.

    Attributes:
        kind: The class.
        mode: "training", "eval" or "both".
        number: How many there were.
        given: Fingerprint of what they were called with; empty where one of them had nothing that can be told.
        gave: Fingerprint of what they gave; likewise.
        values: Fingerprint of their parameters; likewise.
    """

    kind: str
    mode: str
    number: int
    given: str
    gave: str
    values: str


def write_side_calls(calls: Iterable[tuple[str, ...]]) -> str:
    """The calls of a step, as the trace has them, as short text: of each class, what `SideCalls` holds."""
    grouped: dict[str, list[tuple[str, ...]]] = {}
    for kind, *rest in calls:
        grouped.setdefault(kind, []).append(tuple(rest))
    found = []
    for kind, rows in grouped.items():
        modes, *prints = zip(*rows, strict=True)
        mode = modes[0] if len(set(modes)) == 1 else BOTH_MODES
        found.append(" ".join([kind, mode, str(len(rows)), *(join_prints(one) or NOTHING for one in prints)]))
    return SEPARATOR.join(found)


def read_side_calls(text: str) -> dict[str, SideCalls]:
    """What `write_side_calls` wrote, by class; other text is no call."""
    found = {}
    for part in text.split(SEPARATOR):
        match part.split(" "):
            case [kind, mode, number, given, gave, values] if NUMBER.fullmatch(number):
                prints = ("" if one == NOTHING else one for one in (given, gave, values))
                found[kind] = SideCalls(kind, mode, int(number), *prints)
    return found


def compare_side_calls(pair: Pair, *, is_exact: bool) -> Iterator[Difference]:
    """Models in another mode, with other parameters, or that give something else for the same.

    None of it moves a training by itself.
    """
    for before, now in _list_common(pair):
        names = (now.kind,)
        if before.mode != now.mode and is_called_in_every_step(pair.baseline, now.kind):
            change = f"now in {now.mode} mode"
            yield Difference(
                Phase.FORWARD, f"{MODE} `{now.kind}`", change, names, moves=False, is_beside=True
            )
        elif is_exact and _gives_otherwise(before, now):
            if before.values and now.values and before.values != now.values:
                # First values; what they become later follows from updates: an average, a copy now and then.
                phase = Phase.OPTIMIZER if _was_called_before(pair, now.kind) else Phase.INITIALISATION
                item = f"{VALUES_OF} the parameters of `{now.kind}`"
            else:
                phase, item = Phase.FORWARD, f"what `{now.kind}` gave"
            yield Difference(phase, item, "other values", names, moves=False, is_beside=True)


def is_given_otherwise(pair: Pair) -> bool:
    """Whether such a model is called with the same, and gives something else.

    What it gives may be what the model that trains is called with: then the batch is the same.
    """
    return any(_gives_otherwise(before, now) for before, now in _list_common(pair))


def is_called_in_every_step(trajectory: Trajectory, kind: str) -> bool:
    """Whether it takes part in the steps, and is not evaluated between some of them."""
    traced = [point for point in trajectory.points if point.gradients]
    return all(kind in read_side_calls(point.side_calls) for point in traced)


def _was_called_before(pair: Pair, kind: str) -> bool:
    return any(kind in read_side_calls(point.side_calls) for point in pair.baseline.points[: pair.index])


def _list_common(pair: Pair) -> list[tuple[SideCalls, SideCalls]]:
    """The calls of each class in both runs, where there are as many; an evaluation may come in one of them alone."""
    before, now = read_side_calls(pair.before.side_calls), read_side_calls(pair.now.side_calls)
    return [
        (one, other)
        for kind, other in now.items()
        if (one := before.get(kind)) is not None and one.number == other.number
    ]


def _gives_otherwise(before: SideCalls, now: SideCalls) -> bool:
    return (
        bool(before.given and before.gave and now.gave)
        and before.given == now.given
        and before.gave != now.gave
    )
