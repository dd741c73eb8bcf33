"""Calls of models as text, and what the first of them that differs tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.baselines.calls_in_order import compare_calls, has_other_calls, write_calls
from harness.baselines.comparison import compare_trajectories
from harness.baselines.pairs import Pair
from harness.baselines.side_calls import SideCalls, read_side_calls, write_side_calls
from harness.baselines.trajectory import Phase
from tests.unit.baselines.made import alter, make_trajectory, move_on

if TYPE_CHECKING:
    from harness.baselines.comparison import Divergence
    from harness.baselines.trajectory import Trajectory

    Call = tuple[str, int, str, str, str]

BASELINE = make_trajectory(deep=())
FIRST: Call = ("without gradients", 0, "state", "noise", "made")
SECOND: Call = ("training", 1, "state", "batch", "scores")
THIRD: Call = ("training", 1, "state", "made", "others")
USUAL = (FIRST, SECOND, THIRD)


def call(trajectory: Trajectory, *calls: Call) -> Trajectory:
    return alter(trajectory, calls=write_calls(calls))


def diverge(*calls: Call) -> Divergence | None:
    observed = call(alter(move_on(BASELINE), outputs="other"), *calls)
    return compare_trajectories(alter(call(BASELINE, *USUAL), outputs="same"), observed).divergence


def swap(place: int, **values: str) -> tuple[Call, ...]:
    """The usual calls, one of them with something else."""
    names = ("mode", "model", "generator", "given", "gave")
    parts = dict(zip(names, USUAL[place], strict=True)) | values
    calls = list(USUAL)
    calls[place] = tuple(parts[name] for name in names)  # type: ignore[assignment]
    return tuple(calls)


@pytest.mark.parametrize(
    ("calls", "phase", "item"),
    [
        (swap(0, given="other", gave="other"), Phase.DATA, "input of model call 1 of the step"),
        (swap(1, given="other", gave="other"), Phase.DATA, "input of model call 2 of the step"),
        (swap(0, gave="other"), Phase.FORWARD, "output of model call 1 of the step"),
        (swap(1, generator="other", given="other"), Phase.RNG, "draws before model call 2 of the step"),
    ],
)
def test_the_first_call_that_differs_tells_the_phase(
    calls: tuple[Call, ...], phase: Phase, item: str
) -> None:
    found = diverge(*calls)
    assert found is not None
    assert (found.phase, found.item) == (phase, item)


@pytest.mark.parametrize(
    "calls",
    [
        (FIRST, FIRST, SECOND, THIRD),
        swap(0, mode="eval"),
        swap(0, generator="other"),
        swap(1, given=""),
        (),
        (SECOND,),
    ],
    ids=["one more", "another mode", "draws before the step", "not known", "none", "one"],
)
def test_calls_that_cannot_be_set_against_each_other_tell_nothing(calls: tuple[Call, ...]) -> None:
    pair = Pair(call(BASELINE, *USUAL), call(BASELINE, *calls), 0)
    assert list(compare_calls(pair)) == []


def test_calls_alone_do_not_make_a_run_another_one() -> None:
    observed = call(BASELINE, *swap(1, gave="other"))
    assert compare_trajectories(call(BASELINE, *USUAL), observed).divergence is None


def test_an_evaluation_in_the_step_is_no_other_call_of_the_models_that_train() -> None:
    with_evaluation = call(BASELINE, ("eval", 1, "state", "held out", "scores"), *USUAL)
    assert not has_other_calls(Pair(call(BASELINE, *USUAL), with_evaluation, 0))
    assert has_other_calls(Pair(call(BASELINE, *USUAL), call(BASELINE, *swap(2, gave="else")), 0))


def test_a_step_with_one_call_says_nothing_of_it() -> None:
    assert write_calls([SECOND]) == ""


def test_side_calls_of_one_class_are_told_together() -> None:
    calls = [
        ("Teacher", "eval", "a", "b", "c"),
        ("Encoder", "eval", "a", "", "c"),
        ("Teacher", "training", "d", "e", "c"),
    ]
    teacher, encoder = read_side_calls(write_side_calls(calls)).values()
    assert (teacher.kind, teacher.mode, teacher.number) == ("Teacher", "both", 2)
    assert all((teacher.given, teacher.gave, teacher.values))
    assert encoder == SideCalls("Encoder", "eval", 1, encoder.given, "", encoder.values)
    assert encoder.given != teacher.given


@pytest.mark.parametrize("text", ["", "Teacher", "Teacher eval one a b c", "Teacher eval 1 a b"])
def test_text_that_is_no_side_call_is_none(text: str) -> None:
    assert read_side_calls(text) == {}
