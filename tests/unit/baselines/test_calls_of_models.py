"""Calls of models as text, and what the first of them that differs tells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.calls_in_order import compare_calls, has_other_outputs, write_calls
from harness.baselines.comparison import compare_trajectories
from harness.baselines.pairs import Pair
from harness.baselines.side_calls import SideCalls, read_side_calls, write_side_calls
from harness.baselines.trajectory import Phase
from harness.record.trace import ModelCall
from tests.unit.baselines.made import alter, make_trajectory, move_on

if TYPE_CHECKING:
    from harness.baselines.comparison import Divergence
    from harness.baselines.trajectory import Trajectory

BASELINE = make_trajectory(deep=())
MAKES = ModelCall(0, True, False, False, "state", "noise", "made")
TRAINS = ModelCall(1, True, True, False, "state", "batch", "scores")
GOES_ON = ModelCall(1, True, True, True, "state", "scores", "others")
USUAL = (MAKES, TRAINS, GOES_ON)


def call(trajectory: Trajectory, *calls: ModelCall) -> Trajectory:
    return alter(trajectory, calls=write_calls(calls, all_of_them=True))


def diverge(*calls: ModelCall) -> Divergence | None:
    observed = call(alter(move_on(BASELINE), outputs="other"), *calls)
    return compare_trajectories(alter(call(BASELINE, *USUAL), outputs="same"), observed).divergence


def swap(place: int, **values: Any) -> tuple[ModelCall, ...]:
    """The usual calls, one of them with something else."""
    calls = list(USUAL)
    calls[place] = replace(calls[place], **values)
    return tuple(calls)


@pytest.mark.parametrize(
    ("calls", "phase", "item"),
    [
        (swap(0, given="other", gave="other"), Phase.DATA, "input of model call 1 of the step"),
        (swap(1, given="other", gave="other"), Phase.DATA, "input of model call 2 of the step"),
        (swap(0, gave="other"), Phase.FORWARD, "output of model call 1 of the step"),
        (swap(2, given="other", gave="other"), Phase.FORWARD, "input of model call 3 of the step"),
        (swap(0, is_training=False, gave="other"), Phase.FORWARD, "mode of model call 1 of the step"),
        (swap(1, generator="other", given="other"), Phase.RNG, "draws before model call 2 of the step"),
    ],
)
def test_the_first_call_that_differs_tells_the_phase(
    calls: tuple[ModelCall, ...], phase: Phase, item: str
) -> None:
    found = diverge(*calls)
    assert found is not None
    assert (found.phase, found.item) == (phase, item)


@pytest.mark.parametrize(
    "calls",
    [
        (MAKES, *USUAL),
        swap(0, is_training=False)[:2],
        swap(0, generator="other"),
        swap(1, given="", gave="other"),
        swap(1, given="other"),
        swap(2, is_made=False),
        (),
        (TRAINS,),
    ],
    ids=["more", "another mode", "draws before the step", "not known", "unused", "detached", "none", "one"],
)
def test_calls_that_cannot_be_set_against_each_other_tell_nothing(calls: tuple[ModelCall, ...]) -> None:
    pair = Pair(call(BASELINE, *USUAL), call(BASELINE, *calls), 0)
    assert list(compare_calls(pair)) == []


def test_calls_alone_do_not_make_a_run_another_one() -> None:
    observed = call(BASELINE, *swap(1, gave="other"))
    assert compare_trajectories(call(BASELINE, *USUAL), observed).divergence is None


def test_input_that_is_what_an_earlier_call_gave_is_made_by_the_program_though_no_graph_tells() -> None:
    baseline = call(BASELINE, MAKES, replace(TRAINS, given=MAKES.gave))
    observed = call(
        alter(move_on(BASELINE), outputs="other"), MAKES, replace(TRAINS, given="scaled", gave="other")
    )
    found = compare_trajectories(baseline, observed).divergence
    assert found is not None
    assert (found.phase, found.item) == (Phase.FORWARD, "input of model call 2 of the step")


def test_a_mode_that_the_model_is_not_always_in_tells_nothing() -> None:
    baseline = alter(call(BASELINE, *USUAL), 3, 4, calls=write_calls(USUAL[1:], all_of_them=True))
    pair = Pair(baseline, call(BASELINE, *swap(0, is_training=False)), 0)
    assert list(compare_calls(pair)) == []


def test_an_evaluation_in_the_step_is_no_other_call_of_the_models_that_train() -> None:
    with_evaluation = call(BASELINE, ModelCall(1, False, False, False, "state", "held out", "scores"), *USUAL)
    assert not has_other_outputs(Pair(call(BASELINE, *USUAL), with_evaluation, 0))
    assert not has_other_outputs(Pair(call(BASELINE, *USUAL), call(BASELINE, *USUAL, TRAINS), 0))
    assert has_other_outputs(Pair(call(BASELINE, *USUAL), call(BASELINE, *swap(2, gave="else")), 0))


def test_a_step_with_one_call_says_nothing_of_it() -> None:
    assert write_calls([TRAINS], all_of_them=True) == ""


def test_of_later_steps_a_few_calls_of_each_kind_are_kept() -> None:
    words = write_calls([TRAINS] * 8 + [MAKES], all_of_them=False).split()
    assert len(words) == 4
    assert len(write_calls([TRAINS] * 8 + [MAKES], all_of_them=True).split()) == 9


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
