"""Gradients and updates that differ are told with the size of the tensor that is named, not with that of others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.baselines.comparison import compare_trajectories
from harness.baselines.pairs import Pair
from harness.baselines.trajectory import Phase
from harness.baselines.update_differences import list_gradient_norms
from tests.unit.baselines.made import alter, alter_tensors, make_trajectory, move_on
from tests.unit.baselines.test_first_divergence import diverge

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory

BASELINE = make_trajectory()


def tell(observed: Trajectory) -> tuple[str, str]:
    found = compare_trajectories(BASELINE, observed).divergence
    assert found is not None
    return found.item, found.change


def test_the_update_of_one_tensor_has_the_size_of_that_tensor() -> None:
    observed = alter(move_on(BASELINE, 1), 0, 1, updates=("dd", "uu", "0f"), update_norm=0.104)
    observed = alter_tensors(observed, "0.bias", update_norm=0.1)
    assert tell(observed) == ("update of `0.bias`", "norm 0.05 -> 0.1, x2")


def test_the_gradient_of_one_tensor_has_its_size_before_clipping() -> None:
    observed = alter(move_on(BASELINE, 1), 0, 1, gradients=("aa", "uu", "0c"), grad_norm=2.5)
    observed = alter_tensors(observed, "0.bias", grad_norm=0.8)
    assert tell(observed) == ("gradient of `0.bias`", "norm 1 -> 2, x2")


def test_several_tensors_have_the_norm_of_these_together() -> None:
    observed = alter(move_on(BASELINE, 1), 0, 1, updates=("uu", "uu", "0f"), update_norm=0.13)
    observed = alter_tensors(observed, "0.weight", "0.bias", update_norm=0.1)
    assert tell(observed) == ("update of `0.weight`, `0.bias`", "norm of these 0.07071 -> 0.1414, x2")
    observed = alter(move_on(BASELINE, 1), 0, 1, gradients=("uu", "uu", "0c"), grad_norm=3.6)
    observed = alter_tensors(observed, "0.weight", "0.bias", grad_norm=1 / 1.8)
    assert tell(observed) == ("gradient of `0.weight`, `0.bias`", "norm of these 1.414 -> 2.828, x2")


def test_a_gradient_that_is_lost_or_infinite_is_told_as_such() -> None:
    observed = alter(move_on(BASELINE, 1), 0, 1, gradients=("aa", "--", "0c"), grad_norm=1.73)
    observed = alter_tensors(observed, "0.bias", grad_norm=None)
    assert tell(observed) == ("gradient of `0.bias`", "norm 1 -> none")
    observed = alter(move_on(BASELINE, 1), 0, 1, gradients=("aa", "!!", "0c"), grad_norm=math.inf)
    observed = alter_tensors(alter(observed, 0, 1, clipped_norm=math.inf), "0.bias", grad_norm=math.inf)
    assert tell(observed) == ("gradient of `0.bias`", "norm 1 -> inf")


def test_updates_that_are_not_finite_in_both_runs_are_not_equal() -> None:
    broken = alter(BASELINE, 7, 8, updates=("!!", "!!", "!!"), update_norm=math.nan)
    found = compare_trajectories(broken, broken).divergence
    assert found is not None
    assert found.step == 7


def test_a_step_that_was_not_watched_in_depth_has_the_norm_of_all() -> None:
    observed = alter(move_on(BASELINE, 4), 3, 4, updates=("dd", "uu", "3f"), update_norm=0.2)
    assert tell(observed) == ("update of `0.bias`", "norm of all 0.1 -> 0.2, x2")


def test_updates_without_names_are_told_as_all() -> None:
    baseline = alter(BASELINE, updates=("all",))
    observed = alter(move_on(baseline, 1), 0, 1, updates=("other",), update_norm=0.2)
    found = compare_trajectories(baseline, observed).divergence
    assert found is not None
    assert (found.item, found.change) == ("updates", "norm 0.1 -> 0.2, x2")


def test_a_gradient_that_is_not_finite_is_no_rounding() -> None:
    observed = alter(move_on(BASELINE, 1), 0, 1, gradients=("aa", "!!", "0c"), grad_norm=math.inf)
    observed = alter_tensors(alter(observed, 0, 1, clipped_norm=math.inf), "0.bias", grad_norm=math.inf)
    told = "the gradient of `0.bias` holds numbers that are not finite"
    assert diverge(observed).causes[0] == f"{told}, forward pass and loss are the same."
    assert diverge(BASELINE, observed).causes[0] == f"{told} in the baseline, and none now."


def test_several_parameters_with_other_values_have_the_norm_of_these() -> None:
    observed = alter_tensors(
        move_on(BASELINE), "0.weight", "0.bias", contents="q", weight_norm=lambda norm: norm * 2
    )
    found = diverge(observed)
    assert (found.phase, found.item) == (Phase.INITIALISATION, "values of `0.weight`, `0.bias`")
    assert found.change == "norm of these 1.649 -> 3.298, x2"


def test_clipping_by_value_in_a_baseline_of_an_earlier_version_is_no_other_gradient() -> None:
    # It tells no norm, and did not keep what gradients were before.
    baseline = alter(make_trajectory(), grad_norm=None)
    observed = alter(baseline, unclipped=("xx", "yy", "zz"))
    assert compare_trajectories(baseline, observed).divergence is None
    assert compare_trajectories(observed, baseline).divergence is None


def test_gradients_that_only_one_run_has_before_clipping_are_compared_as_clipped_together() -> None:
    baseline = make_trajectory()
    observed = alter_tensors(baseline, "0.weight", unclipped_norm=3.0)
    before, now = list_gradient_norms(Pair(baseline, observed, 0))
    assert before == now
    known = alter(observed, unclipped=("aa", "bb", "cc"))
    assert list_gradient_norms(Pair(known, known, 0))[0]["0.weight"] == 3.0


def test_a_term_of_the_loss_that_is_nothing_in_the_first_step_is_loss() -> None:
    baseline = alter(make_trajectory(), weight_norm=2.0)
    rounded = alter(baseline, 0, 1, gradients=("aa", "bb", "xx"))
    moved = alter(rounded, 1, loss=lambda loss: loss * 1.01, gradients=("xx", "yy", "zz"))
    found = compare_trajectories(baseline, moved).divergence
    assert found is not None
    assert (found.phase, found.step) == (Phase.LOSS, 0)
    # Where what follows is rounding too, nothing speaks for the loss.
    rounding = alter(rounded, 1, loss=lambda loss: loss * (1 + 1e-6), gradients=("xx", "yy", "zz"))
    found = compare_trajectories(baseline, rounding).divergence
    assert found is not None
    assert found.phase is Phase.GRADIENTS
