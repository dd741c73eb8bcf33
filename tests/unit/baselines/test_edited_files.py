"""A stored trajectory that was edited by hand is refused or compared; it never ends in an error of our own."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.comparison import compare_trajectories
from harness.baselines.trajectory import Provenance, TensorPoint
from harness.baselines.trajectory_store import parse_trajectory, render_trajectory
from harness.errors import HarnessError
from harness.record.limit import MAX_STEPS, Limit
from harness.report.stored import show_moves, show_trajectory, tell_comparison
from tests.unit.baselines.made import alter, alter_deep, make_trajectory, move_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.trajectory import Trajectory

Place = tuple[str | int, ...]

BASELINE = alter(
    make_trajectory(
        3,
        provenance=Provenance("2026-11-02T10:00:00+00:00", "why", "1a2b3c4", "0123456789ab", {"torch": "2"}),
        sources={"Net": "net.py"},
        project_files=("net.py",),
        threads_at_start="4",
        ended_by=Limit(MAX_STEPS, 3, 3),
    ),
    weight_norm=2.5,
    num_eval_calls=0,
    outputs="abc",
    unclipped=("aa", "bb", "cc"),
    calls="t0:abcdefghi T1:abcghijkl",
    side_calls="Teacher eval 1 0a1b2c3d 4e5f6a7b 8c9d0e1f",
)
BASELINE = alter_deep(BASELINE, 0, still=(TensorPoint("Teacher.weight", "0a1b2c3d", 1.5),))
OBSERVED = move_on(BASELINE, 2)


def list_places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where values are in a document, from the outside in."""
    if place:
        yield place
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in named:
        yield from list_places(part, (*place, name))


def edit(document: dict[str, Any], place: Place, *values: Any) -> str:
    """The document with another value at a place, or without one."""
    edited: Any = copy.deepcopy(document)
    holder = edited
    for name in place[:-1]:
        holder = holder[name]
    if values:
        holder[place[-1]] = values[0]
    else:
        del holder[place[-1]]
    return json.dumps(edited)


def use(trajectory: Trajectory) -> None:
    """Everything that is done with a stored trajectory."""
    for observed in (BASELINE, OBSERVED):
        tell_comparison(compare_trajectories(trajectory, observed), ("a", "b"))
    show_moves(trajectory, OBSERVED)
    show_trajectory(trajectory)
    render_trajectory(trajectory)


VALUES: dict[str, tuple[Any, ...]] = {
    "nothing": (),
    "null": (None,),
    "a whole number": (5,),
    "a number too large": (10**400,),
    "true": (True,),
    "text": ("x",),
    "a list": ([1],),
    "a table": ({"a": 1},),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_any_value_in_the_place_of_another_is_refused_or_can_be_used(values: tuple[Any, ...]) -> None:
    document = json.loads(render_trajectory(BASELINE))
    num_refused = 0
    for place in list_places(document):
        try:
            use(parse_trajectory(edit(document, place, *values), "a.json"))
        except HarnessError:
            num_refused += 1
        except Exception as error:
            error.add_note(f"at {place}")
            raise
    assert num_refused > 0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("calls", "x"),
        ("calls", "t0:abcdefghi x"),
        ("calls", f"t{'1' * 5000}:abcdefghi"),
        ("side_calls", "Teacher eval"),
        ("side_calls", f"Teacher eval {'1' * 5000} a b c"),
        ("side_calls", "A eval 1 a b c; A eval 1 a b c"),
        ("unclipped", "aabb"),
    ],
)
def test_calls_and_gradients_that_are_none_are_refused(column: str, value: str) -> None:
    document = json.loads(render_trajectory(BASELINE))
    place = document["points"]["columns"].index(column)
    document["points"]["rows"][0][place] = value
    with pytest.raises(HarnessError, match=f"{column} of step 0 "):
        parse_trajectory(json.dumps(document), "a.json")


def test_the_baseline_that_is_edited_can_be_read_as_it_is() -> None:
    assert parse_trajectory(render_trajectory(BASELINE), "a.json") == BASELINE
