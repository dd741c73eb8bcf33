"""Which phase is blamed for what differs, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.comparison import Divergence, Match, compare_trajectories
from harness.baselines.trajectory import Phase
from tests.unit.baselines.made import (
    NAMES,
    alter,
    alter_deep,
    alter_tensors,
    make_trajectory,
    move_on,
    set_up,
)

if TYPE_CHECKING:
    from harness.baselines.trajectory import Trajectory

BASELINE = make_trajectory()
OTHER_STATE = {"python": "0p", "numpy": "0n", "torch": "other"}


def diverge(observed: Trajectory, baseline: Trajectory = BASELINE) -> Divergence:
    found = compare_trajectories(baseline, observed)
    assert found.match is Match.DIVERGED
    assert found.is_exact
    assert found.divergence is not None
    return found.divergence


def draw_anew(observed: Trajectory, *names: str) -> Trajectory:
    """Other draws of the same distributions."""
    return alter_tensors(observed, *(names or NAMES), contents="drawn", weight_norm=lambda norm: norm * 1.001)


def test_equal_runs_match_without_a_word() -> None:
    found = compare_trajectories(BASELINE, make_trajectory())
    assert (found.match, found.is_exact, found.divergence, found.reason, found.notes) == (
        Match.MATCHES, True, None, "", (),
    )  # fmt: skip


def test_another_seed_is_RNG_though_data_and_parameters_differ_too() -> None:  # noqa: N802  the phase's name
    observed = set_up(move_on(BASELINE), Phase.RNG, seed=1)
    observed = draw_anew(alter(observed, generators=OTHER_STATE, batch="other other"))
    found = diverge(observed)
    assert (found.phase, found.step) == (Phase.RNG, 0)
    assert found.causes == ("seed: 0 -> 1.",)


def test_an_extra_draw_before_the_model_is_built_is_RNG() -> None:  # noqa: N802
    found = diverge(draw_anew(alter(move_on(BASELINE), generators=OTHER_STATE, batch="other other")))
    assert (found.phase, found.step, found.identical) == (Phase.RNG, 0, ())
    assert "before the model is built" in found.causes[0]


def test_an_extra_draw_after_the_model_is_built_is_RNG_with_the_same_parameters() -> None:  # noqa: N802
    observed = alter(move_on(BASELINE), generators=OTHER_STATE, batch="other other")
    found = diverge(set_up(observed, Phase.DATA, **{"loader 0 order of pass 1": "bbbb/24"}))
    assert (found.phase, found.step) == (Phase.RNG, 0)
    assert "between building the model and step 0" in found.causes[0]
    assert found.item == "generator of torch"


def test_another_scale_of_the_initial_values_is_initialisation_though_draws_are_the_same() -> None:
    observed = alter_tensors(move_on(BASELINE), "0.weight", contents="scaled", weight_norm=3.2)
    found = diverge(observed)
    assert (found.phase, found.item) == (Phase.INITIALISATION, "values of `0.weight`")
    assert found.causes == ("`0.weight` is initialised differently: the norm is x2.",)
    assert found.identical == ("batch", "random generators")
    assert found.modules == ("0.weight",)


def test_another_distribution_that_also_moves_the_generator_is_initialisation() -> None:
    observed = draw_anew(alter(move_on(BASELINE), generators=OTHER_STATE))
    found = diverge(alter_tensors(observed, "0.weight", weight_norm=4.8))
    assert found.phase is Phase.INITIALISATION


def test_values_drawn_before_the_streams_part_tell_initialisation_from_other_draws() -> None:
    observed = draw_anew(alter(move_on(BASELINE), generators=OTHER_STATE), "1.weight")
    assert diverge(observed).phase is Phase.INITIALISATION


def test_bias_filled_with_zeros_says_nothing_about_draws() -> None:
    baseline = alter_tensors(BASELINE, "0.bias", weight_norm=0.0)
    observed = alter(move_on(baseline), generators=OTHER_STATE)
    assert diverge(draw_anew(observed, "0.weight", "1.weight"), baseline).phase is Phase.RNG


def test_a_wider_layer_is_initialisation_though_the_order_of_the_data_moves_with_it() -> None:
    observed = draw_anew(alter(move_on(BASELINE), generators=OTHER_STATE, batch="other other"))
    observed = set_up(observed, Phase.INITIALISATION, **{"0.weight": "6x8 float32"})
    observed = set_up(observed, Phase.DATA, **{"loader 0 order of pass 1": "bbbb/24"})
    found = diverge(observed)
    assert found.phase is Phase.INITIALISATION
    assert found.causes[0] == "0.weight: 4x8 float32 -> 6x8 float32."


def test_other_contents_of_the_same_samples_are_data() -> None:
    observed = alter_deep(
        alter(move_on(BASELINE), batch="other other"),
        inputs=lambda inputs: tuple(replace(one, maximum=2.0, std=0.9) for one in inputs),
    )
    found = diverge(observed)
    assert (found.phase, found.item) == (Phase.DATA, "batch that the loader gave")
    assert found.change == "maximum 1 -> 2, std 0.5 -> 0.9"
    assert "other contents of the same samples" in found.causes[0]


def test_another_order_of_the_samples_is_data_and_said_so() -> None:
    observed = set_up(
        alter(move_on(BASELINE), batch="other other"), Phase.DATA, **{"loader 0 order of pass 1": "bbbb/24"}
    )
    found = diverge(observed)
    assert found.phase is Phase.DATA
    assert "batch 0 holds other samples: the order of the data changed" in found.causes[0]


def test_another_batch_size_is_data_and_the_setting_is_its_cause() -> None:
    observed = set_up(alter(move_on(BASELINE), shapes="8x8"), Phase.DATA, **{"loader 0 batch_size": 8})
    found = diverge(observed)
    assert (found.phase, found.item, found.change) == (Phase.DATA, "shape of the batch", "4x8 -> 8x8")
    assert found.causes == ("loader 0 batch_size: 4 -> 8.",)


def test_data_that_differ_from_the_second_pass_on_are_told_with_that_step() -> None:
    found = diverge(alter(move_on(BASELINE, 6), 6, batch="other other"))
    assert (found.phase, found.step) == (Phase.DATA, 6)
    assert found.identical == ()


def test_generators_that_moved_mid_run_are_RNG_from_the_step_in_which_they_did() -> None:  # noqa: N802
    observed = alter(move_on(BASELINE, 5), 3, generators=OTHER_STATE)
    found = diverge(observed)
    assert (found.phase, found.step) == (Phase.RNG, 3)
    assert "since step 3" in found.causes[0]
    assert found.identical == ("batch",)


@pytest.mark.parametrize("start", [0, 3])
def test_unseeded_generators_that_nothing_draws_from_are_never_blamed(start: int) -> None:
    unseeded = alter(BASELINE, generators=lambda state: {**state, "python": "9p", "numpy": "9n"})
    assert compare_trajectories(BASELINE, unseeded).match is Match.MATCHES
    found = diverge(move_on(unseeded, start))
    assert (found.phase, found.step) == (Phase.FORWARD, start)
    assert "random generators" in found.identical


def test_unseeded_generators_that_move_beside_the_training_are_not_blamed_for_a_later_change() -> None:
    baseline, observed = (
        replace(
            BASELINE,
            points=tuple(
                replace(point, generators={"torch": "t", "python": f"{mark}{point.step}"})
                for point in BASELINE.points
            ),
        )
        for mark in "ab"
    )
    assert compare_trajectories(baseline, observed).match is Match.MATCHES
    assert diverge(move_on(observed, 3), baseline).phase is Phase.FORWARD


def test_new_draws_for_the_same_samples_are_data() -> None:
    found = diverge(alter(move_on(BASELINE), generators=OTHER_STATE, batch="other other"))
    assert found.phase is Phase.DATA
    assert "augmentation" in found.causes[0]


def test_a_python_generator_that_batches_are_drawn_from_is_blamed_by_its_name() -> None:
    baseline, observed = (
        replace(
            set_up(BASELINE, Phase.DATA, **{"loader 0 order of pass 1": None}),
            points=tuple(
                replace(point, generators={"torch": "t", "python": f"{mark}{point.step}"})
                for point in BASELINE.points
            ),
        )
        for mark in "ab"
    )
    found = diverge(alter(move_on(observed), batch="other other"), baseline)
    assert found.phase is Phase.RNG
    assert found.causes[0].startswith(
        "the generator of python is not seeded, was seeded with something else, or"
    )


def test_a_field_of_the_batch_that_nothing_uses_does_not_make_runs_differ() -> None:
    assert compare_trajectories(BASELINE, alter(BASELINE, batch="other other")).match is Match.MATCHES


def test_a_later_micro_batch_is_data_unless_the_first_one_already_went_another_way() -> None:
    baseline = alter(BASELINE, batch=lambda batch: f"{batch} later", num_micro_batches=2)
    observed = alter(move_on(baseline), batch=lambda batch: batch.replace("later", "other"))
    assert diverge(observed, baseline).phase is Phase.FORWARD
    observed = replace(observed, deep=BASELINE.deep)
    found = diverge(observed, baseline)
    assert (found.phase, found.item) == (Phase.DATA, "a later micro-batch")


def test_the_output_of_a_model_that_returns_its_loss_is_no_forward_of_its_own() -> None:
    observed = alter_deep(shift_loss(BASELINE), outputs={"0": "00", "1": "loss"})
    assert diverge(observed).phase is Phase.LOSS


def test_a_module_that_computes_something_else_is_forward_and_named() -> None:
    observed = alter_deep(move_on(BASELINE), outputs={"0": "00", "1": "other"})
    found = diverge(observed)
    assert (found.phase, found.item, found.modules) == (Phase.FORWARD, "output of `1`", ("1",))
    assert found.identical == ("batch", "random generators", "parameters")


def test_dropout_that_was_changed_is_forward_with_its_setting() -> None:
    found = diverge(set_up(move_on(BASELINE), Phase.FORWARD, **{"0": "Dropout(p=0.2)"}))
    assert found.phase is Phase.FORWARD
    assert found.causes == ("0: Linear(8, 4) -> Dropout(p=0.2).",)


def test_a_module_in_eval_mode_is_forward() -> None:
    found = diverge(alter_deep(move_on(BASELINE), in_eval_mode=("1",)))
    assert (found.phase, found.item, found.change) == (Phase.FORWARD, "mode of `1`", "now in eval mode")
    assert "model.train() or model.eval()" in found.causes[0]


def shift_loss(observed: Trajectory) -> Trajectory:
    """The same outputs, and another loss of them."""
    observed = alter(move_on(observed), loss=lambda loss: loss * 1.1)
    return alter_deep(
        observed,
        outputs=BASELINE.deep[0].outputs,
        losses=lambda losses: tuple(replace(call, inputs="0i", value=3.3) for call in losses),
    )


def test_label_smoothing_is_loss_with_its_setting() -> None:
    smoothed = {"cross_entropy 0": "reduction=mean label_smoothing=0.1"}
    found = diverge(set_up(shift_loss(BASELINE), Phase.LOSS, **smoothed))
    assert (found.phase, found.item) == (Phase.LOSS, "value of cross_entropy")
    assert found.causes == ("cross_entropy 0: reduction=mean -> reduction=mean label_smoothing=0.1.",)
    assert "forward pass" in found.identical


def test_a_loss_with_another_weight_is_loss_with_the_ratio() -> None:
    found = diverge(shift_loss(BASELINE))
    assert found.phase is Phase.LOSS
    assert "x1.111 of before, from the same outputs" in found.causes[0]


def test_targets_made_in_another_way_are_loss() -> None:
    observed = alter_deep(
        shift_loss(BASELINE), losses=lambda losses: tuple(replace(call, targets="x") for call in losses)
    )
    found = diverge(observed)
    assert (found.phase, found.item) == (Phase.LOSS, "targets of cross_entropy")
    assert "shifted, masked, another column, or computed otherwise" in found.causes[0]


def test_a_loss_that_is_scaled_before_backward_is_loss_though_its_value_is_the_same() -> None:
    observed = alter(BASELINE, gradients=("xx", "yy", "zz"), grad_norm=1.0)
    observed = alter_deep(observed, losses=lambda losses: tuple(replace(call, scale=0.5) for call in losses))
    found = diverge(observed)
    assert found.phase is Phase.LOSS
    assert "(1 -> 0.5, x0.5)" in found.causes[0]


def test_more_micro_batches_are_loss() -> None:
    observed = set_up(alter(move_on(BASELINE), num_micro_batches=2), Phase.LOSS, **{"micro-batches": 2})
    observed = replace(observed, deep=BASELINE.deep)
    found = diverge(observed)
    assert (found.phase, found.item) == (Phase.LOSS, "micro-batches of a step")


def test_one_layer_whose_gradient_is_scaled_is_gradients_with_name_and_factor() -> None:
    observed = alter(BASELINE, gradients=lambda marks: (marks[0], "xx", marks[2]), grad_norm=2.2)
    observed = alter(observed, clipped_norm=1.1)
    found = diverge(alter_tensors(observed, "0.bias", grad_norm=1.0))
    assert (found.phase, found.item) == (Phase.GRADIENTS, "gradient of `0.bias`")
    assert found.causes[0].startswith("the gradient of `0.bias` is x2, forward pass and loss are the same")
    assert found.identical == (
        "batch", "random generators", "parameters", "forward pass", "loss",
    )  # fmt: skip
    assert found.consequence == "the losses do not differ"


@pytest.mark.parametrize(("is_lost", "text"), [(True, "gets no gradient any more"), (False, "now gets a")])
def test_a_tensor_that_loses_or_gains_its_gradient_is_told(is_lost: bool, text: str) -> None:
    lost = alter(BASELINE, gradients=lambda marks: (marks[0], "--", marks[2]), grad_norm=1.9)
    lost = alter_tensors(lost, "0.bias", grad_norm=None)
    found = diverge(lost) if is_lost else diverge(BASELINE, lost)
    assert found.phase is Phase.GRADIENTS
    assert f"`0.bias` {text}" in found.causes[0]


def clip(observed: Trajectory, clipped_norm: float, text: str, **told: Any) -> Trajectory:
    observed = alter(observed, clipped_norm=clipped_norm, gradients=("xx", "yy", "zz"), **told)
    return set_up(observed, Phase.CLIPPING, clipping=text)


def test_another_bound_is_clipping_where_the_program_tells_the_norm() -> None:
    found = diverge(clip(BASELINE, 0.5, "norm to 0.5"))
    assert (found.phase, found.item) == (Phase.CLIPPING, "gradients after clipping")
    assert found.causes == ("clipping: norm to 1 -> norm to 0.5.",)


def test_clipping_that_is_gone_is_told_without_settings_too() -> None:
    baseline, observed = (replace(made, settings={}) for made in (BASELINE, clip(BASELINE, 2.0, "none")))
    found = diverge(observed, baseline)
    assert found.phase is Phase.CLIPPING
    assert found.causes[0].startswith("gradients stay as they are: they are no longer clipped, or ")
    assert diverge(baseline, observed).causes[0].startswith("gradients are clipped that were not, or ")


def test_another_bound_is_clipping_where_no_norm_is_told() -> None:
    baseline = clip(BASELINE, 1.0, "value to 1", grad_norm=None)
    observed = alter(clip(baseline, 0.5, "value to 0.5"), gradients=("x1", "y1", "z1"))
    assert diverge(observed, baseline).phase is Phase.CLIPPING


def test_norms_that_a_program_sums_up_in_another_order_are_the_same() -> None:
    observed = alter(BASELINE, grad_norm=lambda norm: norm * (1 + 3e-6))
    assert compare_trajectories(BASELINE, observed).match is Match.MATCHES


def test_weight_decay_is_optimizer_from_the_first_update() -> None:
    observed = move_on(BASELINE, 1)
    observed = alter(observed, 0, 1, updates=("uu", "ee", "ww"))
    observed = set_up(observed, Phase.OPTIMIZER, **{"optimizer 0 group 0 weight_decay": 0.1})
    found = diverge(observed)
    assert (found.phase, found.step, found.item) == (Phase.OPTIMIZER, 0, "update of `0.weight`, `1.weight`")
    assert found.causes == ("optimizer 0 group 0 weight_decay is new: 0.1.",)
    assert "gradients" in found.identical
    assert "learning rate" in found.identical


def test_betas_that_show_first_in_the_second_update_are_optimizer_at_step_1() -> None:
    observed = alter(move_on(BASELINE, 2), 1, 2, updates=("uu", "vv", "ww"))
    observed = set_up(observed, Phase.OPTIMIZER, **{"optimizer 0 group 0 betas": [0.9, 0.95]})
    found = diverge(observed)
    assert (found.phase, found.step) == (Phase.OPTIMIZER, 1)
    assert found.causes == ("optimizer 0 group 0 betas: [0.9, 0.999] -> [0.9, 0.95].",)


def test_a_lost_optimizer_state_is_told_where_no_setting_differs() -> None:
    found = diverge(alter(move_on(BASELINE, 2), 1, 2, updates=("uu", "vv", "1f")))
    assert (found.phase, found.step) == (Phase.OPTIMIZER, 1)
    assert "state (lost, shared, reset)" in found.causes[0]


def test_a_changed_factor_of_the_learning_rate_is_schedule() -> None:
    observed = alter(move_on(BASELINE, 1), 0, learning_rates=lambda rates: tuple(rate * 3 for rate in rates))
    observed = alter(observed, 0, 1, updates=("uu", "vv", "ww"))
    found = diverge(observed)
    assert (found.phase, found.step, found.item) == (Phase.SCHEDULE, 0, "learning rate")
    assert found.change == "0.1 -> 0.3, x3"
    assert found.causes == ("the learning rate is x3 from step 0 on.",)


@pytest.mark.parametrize(
    ("shift", "text"), [(1, "1 step ahead"), (-1, "1 step behind"), (2, "2 steps ahead")]
)
def test_a_schedule_that_is_ahead_or_behind_is_told(shift: int, text: str) -> None:
    rates = [0.1 * math.cos(step / 20) for step in range(20)]
    baseline, observed = (
        replace(
            made,
            points=tuple(
                replace(point, learning_rates=(rates[max(0, point.step + by)],)) for point in made.points
            ),
        )
        for made, by in ((make_trajectory(14), 0), (move_on(make_trajectory(14), 2), shift))
    )
    found = diverge(observed, baseline)
    assert found.phase is Phase.SCHEDULE
    assert found.causes == (f"the schedule is {text}.",)


def test_another_course_of_the_rate_is_told_with_its_first_step() -> None:
    observed = alter(move_on(BASELINE, 4), 3, 4, updates=("uu", "vv", "ww"))
    observed = alter(observed, 3, learning_rates=lambda rates: (rates[0] ** 2,))
    found = diverge(observed)
    assert (found.phase, found.step) == (Phase.SCHEDULE, 3)
    assert found.causes[0].startswith("the learning rate takes another course from step 3 on (0.085 -> ")


def test_of_several_groups_the_one_whose_rate_differs_is_named() -> None:
    baseline = alter(BASELINE, learning_rates=(0.1, 0.01))
    observed = alter(move_on(baseline, 1), learning_rates=(0.1, 0.03))
    found = diverge(observed, baseline)
    assert (found.phase, found.item) == (Phase.SCHEDULE, "learning rate of group 1")
    assert found.causes == ("the learning rate of group 1 is x3 from step 0 on.",)


def test_a_rate_that_is_no_number_any_more_or_was_nothing_is_told() -> None:
    baseline = alter(BASELINE, learning_rates=(0.0,))
    for rates in ((None,), (0.1,)):
        found = diverge(alter(BASELINE, learning_rates=rates), baseline)
        assert found.phase is Phase.SCHEDULE
        assert found.causes[0].startswith("the learning rate takes another course from step 0 on (0 -> ")


def test_groups_that_were_only_divided_anew_make_no_difference() -> None:
    observed = alter(BASELINE, learning_rates=lambda rates: (*rates, *rates))
    assert compare_trajectories(BASELINE, observed).match is Match.MATCHES


def test_tensors_in_another_order_are_the_same_tensors() -> None:
    observed = alter(
        replace(BASELINE, parameters=(NAMES[::-1],)),
        gradients=lambda marks: marks[::-1],
        updates=lambda marks: marks[::-1],
    )
    assert compare_trajectories(BASELINE, observed).match is Match.MATCHES


def test_steps_that_a_scaler_skipped_in_both_runs_are_the_same_whatever_their_gradients() -> None:
    skipped = alter(BASELINE, 2, 3, was_skipped=True, grad_norm=float("nan"), clipped_norm=float("nan"))
    assert compare_trajectories(skipped, skipped).match is Match.MATCHES
    found = diverge(BASELINE, skipped)
    assert (found.phase, found.item, found.change) == (
        Phase.LOSS,
        "step of the GradScaler",
        "no longer skipped",
    )


def test_gradients_that_are_not_numbers_equal_nothing() -> None:
    broken = alter(BASELINE, 2, grad_norm=float("nan"), clipped_norm=float("nan"))
    assert diverge(broken, broken).phase is Phase.GRADIENTS


def test_what_became_of_the_loss_is_told() -> None:
    found = diverge(move_on(BASELINE, 3))
    assert found.consequence == (
        "the losses of 5 of 8 steps differ; the loss of step 7 is 1.44924, 1.43489 in the baseline (+1.00%)"
    )
    broken = diverge(alter(move_on(BASELINE, 3), 5, loss=float("nan")))
    assert broken.consequence.endswith("the loss of step 7 is nan, 1.43489 in the baseline")
