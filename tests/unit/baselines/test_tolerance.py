"""How far runs on two kinds of machines may be apart."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.ruler import ExactRuler, ToleranceRuler, is_same_rate, measure_distance
from harness.baselines.tolerance import (
    FACTOR,
    FLOOR,
    GROWTH,
    HALF_FLOOR,
    HORIZON,
    LATER_FLOOR,
    LINE_SEARCH_FACTOR,
    build_tolerance,
    find_drift,
)
from harness.baselines.trajectory import Phase
from tests.unit.baselines.made import alter, alter_tensors, make_trajectory, move_on, set_up

if TYPE_CHECKING:
    from harness.baselines.comparison import Divergence
    from harness.baselines.trajectory import Trajectory

OTHER = {"numerics_class": "other", "machine": {"torch": "2.13.0", "cpu": "Old CPU"}}


def on_other(trajectory: Trajectory, noise: float = 1e-6) -> Trajectory:
    """The training on another machine: every number differs in its last digits."""
    return replace(
        alter(
            trajectory,
            loss=lambda loss: loss * (1 + noise),
            grad_norm=lambda norm: norm * (1 + noise),
            gradients=("o1", "o2", "o3"),
            updates=("o4", "o5", "o6"),
        ),
        **OTHER,  # type: ignore[arg-type]
    )


def diverge(baseline: Trajectory, observed: Trajectory) -> Divergence:
    found = compare_trajectories(baseline, observed)
    assert found.match is Match.DIVERGED
    assert not found.is_exact
    assert found.divergence is not None
    return found.divergence


def test_the_floor_grows_from_step_to_step_while_nothing_differs() -> None:
    made = make_trajectory()
    allowed = build_tolerance(made, made).allowed
    assert allowed == pytest.approx([FLOOR, *[LATER_FLOOR] * 7])
    allowed = build_tolerance(make_trajectory(40), make_trajectory(40)).allowed
    assert allowed[20:] == pytest.approx([FLOOR * GROWTH**step for step in range(20, 40)])


def test_a_step_may_differ_by_a_factor_more_than_those_before_it() -> None:
    made = make_trajectory()
    allowed = build_tolerance(made, alter(made, 1, 2, loss=lambda loss: loss * (1 + 1e-5))).allowed
    assert allowed[1] == LATER_FLOOR
    assert allowed[2:] == pytest.approx([FACTOR * 1e-5] * 6, rel=1e-3)


def test_one_update_on_another_machine_may_make_more_than_the_floor() -> None:
    made = make_trajectory()
    observed = replace(alter(made, 1, loss=lambda loss: loss * (1 + 5.5e-5)), **OTHER)  # type: ignore[arg-type]
    assert compare_trajectories(made, observed).match is Match.MATCHES
    first = replace(alter(made, loss=lambda loss: loss * (1 + 5.5e-5)), **OTHER)  # type: ignore[arg-type]
    assert diverge(made, first).step == 0


def test_steps_of_lbfgs_may_part_faster() -> None:
    made = set_up(make_trajectory(), Phase.OPTIMIZER, **{"optimizer 0": "LBFGS"})
    altered = alter(made, 1, 2, loss=lambda loss: loss * (1 + 1e-5))
    assert build_tolerance(made, altered).allowed[2] == pytest.approx(LINE_SEARCH_FACTOR * 1e-5, rel=1e-3)


def cancel(trajectory: Trajectory, num_steps: int) -> Trajectory:
    """The training with losses of a policy: in the first steps, terms of about 1 cancel, and leave rounding."""
    return alter(alter(trajectory, loss=lambda loss: loss / 10), 0, num_steps, loss=1e-8)


@pytest.mark.parametrize("num_steps", [1, 8])
def test_a_loss_that_cancels_differs_by_rounding_on_another_machine(num_steps: int) -> None:
    made = cancel(make_trajectory(), num_steps)
    observed = alter(on_other(made), 0, num_steps, loss=-2e-8)
    assert compare_trajectories(made, observed).match is Match.MATCHES
    changed = alter(observed, 1, loss=lambda loss: loss + 1e-3)
    assert diverge(made, changed).step == 1
    faster = alter(changed, learning_rates=lambda rates: tuple(3 * rate for rate in rates))
    assert diverge(made, faster).phase is Phase.SCHEDULE


def test_a_run_that_explodes_does_not_widen_the_tolerance() -> None:
    made = make_trajectory()
    observed = alter(on_other(made), 1, loss=lambda loss: loss * 1e6, grad_norm=1e6)
    assert build_tolerance(made, observed).loss_size < 3.0


def test_beyond_the_horizon_a_loss_that_is_no_number_still_differs() -> None:
    ruler = ToleranceRuler((math.inf,))
    assert ruler.is_same_loss(1.0, 2.0, 0)
    for same in (ruler.is_same, ruler.is_same_loss):
        assert not same(1.0, math.nan, 0)
        assert not same(math.nan, math.nan, 0)


def test_beyond_the_horizon_everything_is_allowed() -> None:
    made = make_trajectory()
    ruler = build_tolerance(made, alter(made, 2, 3, loss=lambda loss: loss * (1 + HORIZON)))
    assert [math.isinf(ruler.find_allowed(step)) for step in range(8)] == [False] * 3 + [True] * 5


def test_half_precision_has_a_floor_of_its_own() -> None:
    made = make_trajectory()
    for half in (
        set_up(made, Phase.FORWARD, **{"precision: autocast": "cpu bfloat16"}),
        set_up(made, Phase.INITIALISATION, **{"0.weight": "4x8 float16"}),
    ):
        assert build_tolerance(made, half).allowed[0] == HALF_FLOOR


def test_losses_that_are_not_finite_do_not_widen_the_tolerance() -> None:
    made = make_trajectory()
    ruler = build_tolerance(made, alter(made, 1, 2, loss=math.nan))
    assert ruler.allowed[2] == LATER_FLOOR
    assert not ruler.is_same(3.0, math.nan, 1)


def test_thousands_of_steps_have_a_tolerance() -> None:
    made = make_trajectory(6000)
    assert math.isinf(build_tolerance(made, made).find_allowed(5999))
    assert compare_trajectories(made, on_other(made)).match is Match.MATCHES


def test_the_last_allowance_holds_for_all_later_steps() -> None:
    assert ToleranceRuler((0.1, 0.2)).find_allowed(9) == 0.2


def test_what_is_missing_in_one_run_is_no_difference_between_machines() -> None:
    assert ToleranceRuler((0.0,)).is_same(None, 1.0, 0)
    assert not ExactRuler().is_same(None, 1.0, 0)
    assert ExactRuler().is_same(None, None, 0)


@pytest.mark.parametrize("ruler", [ExactRuler(), ToleranceRuler((1.0,))])
def test_nan_is_the_same_as_nothing(ruler: ExactRuler | ToleranceRuler) -> None:
    assert not ruler.is_same(math.nan, math.nan, 0)
    assert not ruler.is_same(1.0, math.nan, 0)
    assert not ruler.is_same(math.inf, 1.0, 0)
    assert ruler.is_same(math.inf, math.inf, 0)


def test_distance_is_relative_to_the_larger_one() -> None:
    assert measure_distance(2.0, 1.0) == measure_distance(1.0, 2.0) == 0.5
    assert measure_distance(0.0, 0.0) == 0.0
    assert measure_distance(-1.0, 1.0) == 2.0


def test_rates_are_the_same_up_to_single_precision() -> None:
    assert is_same_rate(0.1, 0.1 * (1 + 1e-7))
    assert not is_same_rate(0.1, 0.10001)
    assert is_same_rate(None, None)
    assert not is_same_rate(None, 0.1)


def test_the_same_training_on_another_machine_matches_and_says_how_it_was_compared() -> None:
    made = make_trajectory()
    found = compare_trajectories(made, on_other(made))
    assert (found.match, found.is_exact, found.notes) == (Match.MATCHES, False, ())
    assert found.reason == "the baseline was made on another kind of machine (cpu Fast CPU -> Old CPU)"


def test_runs_that_do_not_repeat_are_compared_by_tolerance_within_one_class() -> None:
    made = make_trajectory(is_deterministic=False)
    found = compare_trajectories(made, alter(made, loss=lambda loss: loss * (1 + 1e-6)))
    assert (found.match, found.is_exact) == (Match.MATCHES, False)
    assert "not expected to repeat" in found.reason


def test_other_threads_are_named_with_how_to_make_them_the_same() -> None:
    made = make_trajectory(machine={"torch": "2.13.0", "threads": "4"})
    found = compare_trajectories(
        made, replace(made, numerics_class="two", machine={**made.machine, "threads": "1"})
    )
    assert found.reason.startswith("the baseline was made on another kind of machine (threads 4 -> 1); ")
    assert "OMP_NUM_THREADS" in found.reason
    assert "--harness-threads" in found.reason


def on_threads(trajectory: Trajectory, at_start: str) -> Trajectory:
    """The trajectory of a program that trains on one thread and began with so many."""
    return replace(trajectory, machine={**trajectory.machine, "threads": "1"}, threads_at_start=at_start)


def start_otherwise(share: float) -> Trajectory:
    """The training from first values that are others by a share."""
    made = make_trajectory()
    found = alter(made, loss=lambda loss: loss * (1 + share), gradients=("xx", "yy", "zz"))
    found = alter_tensors(found, "0.weight", contents="0y", weight_norm=lambda norm: norm * (1 + share))
    return alter_tensors(found, "0.weight", step=1, contents="1y")


def test_first_values_computed_with_other_threads_are_compared_by_tolerance_and_that_is_said() -> None:
    baseline, near = on_threads(make_trajectory(), "1"), start_otherwise(1e-6)
    found = compare_trajectories(baseline, on_threads(near, "2"))
    assert (found.match, found.is_exact) == (Match.MATCHES, False)
    assert found.reason.startswith("torch had 1 threads when the baseline's program began and 2 here")
    assert "OMP_NUM_THREADS" in found.reason
    assert (
        compare_trajectories(on_threads(make_trajectory(), "2"), on_threads(near, "1")).match is Match.MATCHES
    )

    far = compare_trajectories(baseline, on_threads(start_otherwise(1e-2), "2"))
    assert (far.match, far.is_exact) == (Match.DIVERGED, False)

    asked = compare_trajectories(baseline, on_threads(near, "2"), is_exact=True)
    assert (asked.match, asked.is_exact) == (Match.DIVERGED, True)


def test_a_baseline_that_does_not_know_its_threads_at_the_start_is_compared_to_the_last_bit() -> None:
    found = compare_trajectories(on_threads(make_trajectory(), ""), on_threads(start_otherwise(1e-6), "2"))
    assert (found.match, found.is_exact, found.reason) == (Match.DIVERGED, True, "")


def test_a_tolerance_that_is_asked_for_is_not_put_down_to_threads() -> None:
    baseline, near = on_threads(make_trajectory(), "1"), on_threads(start_otherwise(1e-6), "2")
    found = compare_trajectories(baseline, near, is_exact=False)
    assert (found.match, found.reason) == (Match.MATCHES, "as asked for")


def test_first_values_of_as_many_threads_are_compared_to_the_last_bit() -> None:
    baseline = on_threads(make_trajectory(), "2")
    found = compare_trajectories(baseline, on_threads(start_otherwise(1e-6), "2"))
    assert (found.match, found.is_exact, found.reason) == (Match.DIVERGED, True, "")


@pytest.mark.parametrize("phase", [Phase.SCHEDULE, Phase.OPTIMIZER, Phase.FORWARD])
def test_what_threads_do_not_change_is_compared_to_the_last_bit_all_the_same(phase: Phase) -> None:
    """A rate and an update are not computed before; nor does the number of threads change a setting."""
    made = make_trajectory()
    near = alter(made, 3, loss=lambda loss: loss * (1 + 1e-9), outputs="other", updates=("uu", "vv", "ww"))
    observed = {
        Phase.SCHEDULE: alter(near, 2, learning_rates=lambda rates: tuple(3 * rate for rate in rates)),
        Phase.OPTIMIZER: alter(made, 2, updates=("uu", "vv", "ww")),
        Phase.FORWARD: set_up(near, Phase.FORWARD, **{"0": "Dropout(p=1e-9)"}),
    }[phase]
    found = compare_trajectories(on_threads(made, "1"), on_threads(observed, "2"))
    assert found.is_exact
    assert found.divergence is not None
    assert found.divergence.phase is phase


def test_runs_that_are_the_same_match_to_the_last_bit_whatever_their_threads() -> None:
    found = compare_trajectories(on_threads(make_trajectory(), "1"), on_threads(make_trajectory(), "2"))
    assert (found.match, found.is_exact, found.reason) == (Match.MATCHES, True, "")


def test_a_larger_rate_is_found_on_another_machine() -> None:
    made = make_trajectory()
    observed = alter(move_on(made, 1), learning_rates=lambda rates: tuple(3 * rate for rate in rates))
    found = diverge(made, on_other(observed))
    assert (found.phase, found.step) == (Phase.SCHEDULE, 0)


def test_a_loss_that_differs_at_once_is_forward_unless_a_setting_of_the_loss_differs() -> None:
    made = make_trajectory()
    observed = on_other(move_on(made))
    assert diverge(made, observed).phase is Phase.FORWARD
    found = diverge(made, set_up(observed, Phase.FORWARD, **{"0": "Dropout(p=0.2)"}))
    assert (found.phase, found.causes) == (Phase.FORWARD, ("0: Linear(8, 4) -> Dropout(p=0.2).",))
    found = diverge(made, set_up(observed, Phase.LOSS, **{"cross_entropy 0": "reduction=sum"}))
    assert (found.phase, found.causes) == (
        Phase.LOSS, ("cross_entropy 0: reduction=mean -> reduction=sum.",),
    )  # fmt: skip


def test_a_loss_that_differs_later_is_put_down_to_the_setting_that_moved_the_steps_before() -> None:
    made = make_trajectory()
    observed = set_up(on_other(move_on(made, 1)), Phase.OPTIMIZER, **{"optimizer 0": "SGD"})
    found = diverge(made, observed)
    assert (found.phase, found.step) == (Phase.OPTIMIZER, 1)
    assert found.causes == ("optimizer 0: AdamW -> SGD.",)


def test_a_setting_of_the_programs_own_counts_though_the_numbers_are_within_the_tolerance() -> None:
    made = make_trajectory()
    observed = set_up(on_other(made), Phase.OPTIMIZER, **{"optimizer 0 group 0 weight_decay": 0.1})
    found = diverge(made, observed)
    assert (found.phase, found.step) == (Phase.OPTIMIZER, 0)
    assert found.consequence == "the losses are within the tolerance for another kind of machine"


def test_settings_that_another_torch_brings_are_no_difference() -> None:
    made = make_trajectory()
    observed = set_up(on_other(made), Phase.OPTIMIZER, **{"optimizer 0 group 0 decoupled": True})
    observed = replace(observed, machine={"torch": "2.14.0", "cpu": "Old CPU"})
    assert compare_trajectories(made, observed).match is Match.MATCHES
    changed = set_up(observed, Phase.OPTIMIZER, **{"optimizer 0 group 0 betas": [0.9, 0.95]})
    assert diverge(made, changed).phase is Phase.OPTIMIZER


def test_settings_of_how_it_is_computed_are_told_as_notes_alone() -> None:
    made = make_trajectory()
    for one in (made, on_other(made)):
        observed = set_up(one, Phase.FORWARD, **{"precision: oneDNN": "false"})
        found = compare_trajectories(made, observed)
        assert found.match is Match.MATCHES
        assert found.notes == (
            "precision: oneDNN is new: false, which changes nothing in the steps that were compared",
        )


def beyond(by: float, num_steps: int = 40) -> tuple[Trajectory, Trajectory]:
    """Two runs that rounding drives apart from step 5 on, with the mean loss of one higher by a share."""
    made = alter(make_trajectory(num_steps), loss=lambda loss: 2.0 + loss / 10)
    noise = [0.03 * math.sin(7 * step) for step in range(num_steps)]
    points = [
        replace(point, loss=(point.loss or 0.0) * (1 + noise[step] + by)) if step >= 5 else point
        for step, point in enumerate(made.points)
    ]
    seen = alter(made, 4, 5, grad_norm=lambda norm: norm * 1.1)
    return seen, on_other(replace(made, points=tuple(points)))


def test_beyond_the_horizon_the_course_of_the_loss_is_compared() -> None:
    baseline, observed = beyond(0.0)
    ruler = build_tolerance(baseline, observed)
    assert math.isinf(ruler.find_allowed(5))
    assert find_drift(baseline, observed, ruler) == ""
    baseline, observed = beyond(0.5)
    assert find_drift(baseline, observed, ruler).startswith("mean loss of the last 35 steps 2.")


def test_a_course_of_the_loss_that_is_not_finite_or_too_short_is_told_apart() -> None:
    baseline, observed = beyond(0.5, 9)
    ruler = build_tolerance(baseline, observed)
    assert find_drift(baseline, observed, ruler) == ""
    assert find_drift(baseline, alter(observed, 8, loss=math.inf), ruler) == "the loss is not finite"
