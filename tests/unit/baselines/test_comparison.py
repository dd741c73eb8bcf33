"""When two trajectories match, differ, or can't be compared."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest.mock import patch

import pytest

from harness.baselines import comparison, divergence
from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.differences import list_differences
from harness.baselines.trajectory import Phase
from harness.errors import ObservationError
from harness.record.limit import MAX_SECONDS, MAX_STEPS, Limit
from tests.unit.baselines.made import alter, alter_tensors, make_trajectory, move_on, set_up

BASELINE = make_trajectory()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "cuda"}, "trained on cpu, this run on cuda"),
        ({"num_ranks": 2}, "trained by 1 ranks, this run by 2"),
    ],
)
def test_other_devices_and_ranks_are_not_comparable(change: dict[str, object], reason: str) -> None:
    found = compare_trajectories(BASELINE, replace(BASELINE, **change))  # type: ignore[arg-type]
    assert (found.match, found.divergence) == (Match.NOT_COMPARABLE, None)
    assert reason in found.reason


def test_another_torch_that_draws_other_numbers_is_not_comparable() -> None:
    newer = replace(BASELINE, numerics_class="two", machine={"torch": "2.14.0", "cpu": "Fast CPU"})
    drawn = alter_tensors(move_on(newer), "0.weight", contents="other", weight_norm=1.65)
    found = compare_trajectories(BASELINE, drawn)
    assert found.match is Match.NOT_COMPARABLE
    assert "torch 2.13.0 and 2.14.0 may draw other random numbers" in found.reason
    same_torch = replace(drawn, machine={"torch": "2.13.0", "cpu": "Old CPU"})
    assert compare_trajectories(BASELINE, same_torch).match is Match.DIVERGED
    later = alter(move_on(newer, 3), 3, loss=lambda loss: loss * 1.5)
    assert compare_trajectories(BASELINE, later).match is Match.DIVERGED


def test_a_loss_that_is_missing_is_an_error_and_no_difference() -> None:
    with pytest.raises(ObservationError, match=r"has a loss in step 3 \(2.187\).*\nNext: "):
        compare_trajectories(BASELINE, alter(BASELINE, 3, loss=None))


def test_baselines_without_a_loss_or_a_step_are_an_error() -> None:
    for empty in (alter(BASELINE, loss=None), replace(BASELINE, points=())):
        with pytest.raises(ObservationError, match="nothing could be compared"):
            compare_trajectories(empty, BASELINE)


@pytest.mark.parametrize("is_exact", [True, False])
def test_nan_equals_nothing_not_even_nan(is_exact: bool) -> None:
    broken = alter(BASELINE, 5, loss=math.nan)
    found = compare_trajectories(broken, broken, is_exact=is_exact)
    assert found.match is Match.DIVERGED
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.item) == (5, "loss")


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("num_steps", [5, 11])
def test_another_number_of_steps_is_a_difference(num_steps: int, is_exact: bool) -> None:
    found = compare_trajectories(BASELINE, make_trajectory(num_steps), is_exact=is_exact)
    assert found.match is Match.DIVERGED
    assert found.divergence is not None
    assert (found.divergence.item, found.divergence.change) == ("number of steps", f"8 -> {num_steps}")
    assert found.divergence.step == min(num_steps, 8)
    assert found.divergence.identical == (f"each of the {min(num_steps, 8)} steps that both have",)


LIMITED = Limit(MAX_STEPS, 5, 5)
LATE = Limit(MAX_SECONDS, 3.0, 5)


def test_a_limit_that_ended_the_shorter_run_is_the_cause_of_its_length() -> None:
    told = "was ended from outside after 5 steps (max_steps=5): runs that are compared need the same limit."
    found = compare_trajectories(BASELINE, make_trajectory(5, ended_by=LIMITED)).divergence
    assert found is not None
    assert found.causes == (f"this run {told}",)

    found = compare_trajectories(make_trajectory(5, ended_by=LIMITED), BASELINE).divergence
    assert found is not None
    assert found.causes == (f"the baseline's run {told}",)


@pytest.mark.parametrize(
    ("of_baseline", "of_run", "advice"),
    [
        (None, LIMITED, "run it with max_steps=8, as many steps as the baseline has"),
        (LIMITED, None, "run it with max_steps=5, as many steps as the baseline has"),
        (Limit(MAX_STEPS, 8, 8), LIMITED, "run it with max_steps=8, as many steps as the baseline has"),
        (LIMITED, Limit(MAX_STEPS, 8, 8), "run it with max_steps=5, as many steps as the baseline has"),
        (Limit(MAX_SECONDS, 2, 8), LIMITED, "run it with max_steps=8, as many steps as the baseline has"),
        (Limit(MAX_STEPS, 8, 8), None, ""),
        (None, None, ""),
    ],
)
def test_runs_of_other_lengths_need_the_limit_of_the_baseline(
    of_baseline: Limit | None, of_run: Limit | None, advice: str
) -> None:
    is_shorter = of_baseline is LIMITED
    baseline = make_trajectory(5 if is_shorter else 8, ended_by=of_baseline)
    found = compare_trajectories(baseline, make_trajectory(8 if is_shorter else 5, ended_by=of_run))
    assert found.divergence is not None
    assert found.divergence.advice == advice


def test_a_limit_that_ended_the_longer_run_is_told_beside_the_end_of_the_program() -> None:
    limit = Limit(MAX_STEPS, 8, 8)
    found = compare_trajectories(make_trajectory(ended_by=limit), make_trajectory(5)).divergence
    assert found is not None
    assert found.causes[0].startswith("the program ends elsewhere: ")
    assert found.causes[1:] == ("the baseline's run was ended from outside after 8 steps (max_steps=8).",)


def test_how_far_a_time_limit_let_a_run_come_is_no_difference_and_is_noted() -> None:
    short = make_trajectory(5, ended_by=LATE)
    for baseline, observed in ((BASELINE, short), (short, BASELINE)):
        found = compare_trajectories(baseline, observed)
        assert (found.match, found.is_exact) == (Match.MATCHES, True)
        told = "was ended from outside after 5 steps (max_seconds=3); 5 of 8 steps were compared"
        assert told in found.notes[0]
    assert compare_trajectories(BASELINE, move_on(short, 2)).match is Match.DIVERGED
    # What is set up later is not seen in a short run, which no comparison takes for a change.
    later = set_up(BASELINE, Phase.SCHEDULE, **{"scheduler 1": "ReduceLROnPlateau"})
    for is_exact in (True, False):
        for baseline, observed in ((later, short), (short, later)):
            found = compare_trajectories(baseline, observed, is_exact=is_exact)
            assert (found.match, len(found.notes)) == (Match.MATCHES, 1)
    assert (
        compare_trajectories(later, replace(short, ended_by=LIMITED), is_exact=False).match is Match.DIVERGED
    )
    # A program that leaves earlier by itself than a time limit once let it is another one.
    long = make_trajectory(ended_by=Limit(MAX_SECONDS, 3.0, 8))
    assert compare_trajectories(long, make_trajectory(5)).match is Match.DIVERGED


@pytest.mark.parametrize("is_exact", [True, False])
def test_less_than_half_of_the_steps_is_too_few_to_match_and_enough_to_diverge(is_exact: bool) -> None:
    short = make_trajectory(3, ended_by=Limit(MAX_SECONDS, 3.0, 3))
    found = compare_trajectories(BASELINE, short, is_exact=is_exact)
    assert (found.match, found.divergence) == (Match.NOT_COMPARABLE, None)
    assert "ended from outside after 3 steps (max_seconds=3); it is the same in 3 of 8 steps" in found.reason
    assert compare_trajectories(BASELINE, move_on(short, 1), is_exact=is_exact).match is Match.DIVERGED
    half = make_trajectory(4, ended_by=Limit(MAX_SECONDS, 3.0, 4))
    assert compare_trajectories(BASELINE, half, is_exact=is_exact).match is Match.MATCHES


def test_a_difference_before_the_end_comes_before_the_number_of_steps() -> None:
    found = compare_trajectories(BASELINE, move_on(make_trajectory(5), 2))
    assert found.divergence is not None
    assert (found.divergence.phase, found.divergence.step) == (Phase.FORWARD, 2)


def test_every_step_is_listed_twice_at_most() -> None:
    calls: list[int] = []

    def count(pair, *rest):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        calls.append(pair.index)
        return list_differences(pair, *rest)

    baseline = make_trajectory(64)
    observed = alter(move_on(baseline, 63), generators=lambda state: {**state, "torch": "other"})
    with patch.object(divergence, "list_differences", count):
        found = compare_trajectories(baseline, observed)
    assert found.divergence is not None
    assert (found.divergence.phase, found.divergence.step) == (Phase.RNG, 0)
    assert len(calls) <= 2 * 64


def test_what_differs_to_the_last_bit_is_looked_for_once() -> None:
    baseline = make_trajectory(threads_at_start="1")
    observed = replace(move_on(baseline, 3), threads_at_start="1")
    with patch.object(comparison, "find_evidence", wraps=divergence.find_evidence) as find:
        assert compare_trajectories(baseline, observed).match is Match.DIVERGED
    assert find.call_count == 1


def test_shapes_that_are_no_numbers_are_told_as_they_stand() -> None:
    odd = alter(BASELINE, shapes=":")
    found = compare_trajectories(odd, alter(move_on(BASELINE, 0), shapes="16x8"))
    assert found.match is Match.DIVERGED
