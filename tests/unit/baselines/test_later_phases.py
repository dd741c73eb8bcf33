"""Which phase is blamed for what shows behind its place: modes, losses, clipping and rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory import LossPoint, Phase, Trajectory
from tests.unit.baselines.made import alter, alter_deep, alter_tensors, make_trajectory, move_on, set_up
from tests.unit.baselines.test_first_divergence import OTHER_STATE, diverge

BASELINE = make_trajectory()


@pytest.mark.parametrize("start", [0, 3])
def test_a_model_that_is_not_called_in_training_mode_is_forward_and_no_missing_batch(start: int) -> None:
    found = diverge(alter(move_on(BASELINE, start), start, shapes="", batch=lambda batch: f"{batch[:8]} -"))
    assert (found.phase, found.step, found.item) == (Phase.FORWARD, start, "mode of the model")
    assert found.change == "now in eval mode"
    assert "batch" in found.identical


def test_a_model_in_eval_mode_is_forward_though_another_model_is_called_first_then() -> None:
    baseline = alter(BASELINE, num_eval_calls=0)
    observed = alter(move_on(baseline, 3), 3, shapes="4x2", num_eval_calls=1)
    observed = alter(observed, 3, batch=lambda batch: f"{batch[:8]} other")
    assert diverge(observed, baseline).phase is Phase.FORWARD
    # Where calls in eval mode were not counted, the batch is all there is.
    assert diverge(alter(observed, num_eval_calls=None), baseline).phase is Phase.DATA


@pytest.mark.parametrize(("end", "until"), [(None, "on"), (6, "until step 6")])
def test_dropout_that_no_longer_draws_is_the_mode_and_no_extra_draw(end: int | None, until: str) -> None:
    """The model in eval mode is called without gradients first, and draws nothing there either."""
    baseline = alter(BASELINE, num_eval_calls=0)
    observed = alter(move_on(baseline, 3), 3, generators=OTHER_STATE)
    observed = alter(observed, 3, end, shapes="", batch=lambda batch: f"{batch[:8]} -", num_eval_calls=1)
    found = diverge(observed, baseline)
    assert (found.phase, found.step, found.change) == (Phase.FORWARD, 3, "now in eval mode")
    assert found.causes[0].startswith(
        f"the model is in eval mode from step 3 {until}, which it is not in the baseline"
    )
    # Steps beyond the traced ones say nothing of their mode.
    untraced = alter(observed, 5, num_eval_calls=None)
    assert "from step 3 on" in diverge(untraced, baseline).causes[0]


@pytest.mark.parametrize("num_eval_calls", [0, 6])
@pytest.mark.parametrize("batch", ["same same", "other other"])
def test_draws_that_move_in_the_same_mode_are_random_numbers(num_eval_calls: int, batch: str) -> None:
    """An evaluation between the steps that records a graph draws, and leaves the model in training mode."""
    baseline = alter(BASELINE, batch="same same", num_eval_calls=0)
    observed = alter(move_on(baseline, 3), 3, generators=OTHER_STATE, batch=batch)
    observed = alter(observed, 3, 4, num_eval_calls=num_eval_calls)
    found = diverge(observed, baseline)
    assert (found.phase, found.step) == (Phase.RNG, 3)
    assert "perhaps in an evaluation" in found.causes[0]


def test_another_forward_pass_behind_an_evaluation_is_not_told_to_be_in_eval_mode_since() -> None:
    baseline = alter(BASELINE, num_eval_calls=0)
    found = diverge(alter(move_on(baseline, 3), 3, 4, num_eval_calls=6), baseline)
    assert (found.phase, found.item, found.change) == (Phase.FORWARD, "calls in eval mode", "0 -> 6")
    assert "the model is in eval mode" not in " ".join(found.causes)


def test_calls_in_eval_mode_that_change_nothing_make_no_difference() -> None:
    baseline = alter(BASELINE, num_eval_calls=0)
    assert compare_trajectories(baseline, alter(BASELINE, num_eval_calls=2)).match is Match.MATCHES


def test_a_step_on_a_batch_of_the_evaluation_is_data_though_draws_moved() -> None:
    observed = alter(move_on(BASELINE, 3), 3, shapes="", batch="other -", generators=OTHER_STATE)
    found = diverge(observed)
    assert (found.phase, found.step) == (Phase.DATA, 3)


def name_as_one_of_several(trajectory: Trajectory) -> Trajectory:
    """The trajectory as a later version names its modules; the outermost one has the name that it had."""
    return name_modules(trajectory, ("Sequential.0", "Sequential2.0"), "Sequential2.0")


def call_by_position(trajectory: Trajectory) -> Trajectory:
    return name_modules(trajectory, ("0", "0 (2)"), "0")


def name_modules(trajectory: Trajectory, inner: tuple[str, str], in_eval_mode: str) -> Trajectory:
    for step in (0, 1):
        trajectory = alter_deep(
            trajectory,
            step,
            outputs={"Sequential": f"{step}s", inner[0]: f"{step}0", inner[1]: f"{step}1"},
            in_eval_mode=(in_eval_mode,),
        )
    return trajectory


def test_modules_that_only_have_other_names_are_in_no_other_mode() -> None:
    found = compare_trajectories(call_by_position(BASELINE), name_as_one_of_several(BASELINE))
    assert found.match is Match.MATCHES


def test_one_name_that_models_share_by_chance_does_not_tell_that_all_gave_the_same() -> None:
    observed = alter_deep(
        move_on(BASELINE), losses=lambda losses: tuple(replace(call, inputs="x") for call in losses)
    )
    baseline = call_by_position(BASELINE)
    assert diverge(name_as_one_of_several(observed), baseline).phase is Phase.FORWARD
    # Where the names are the same, it does.
    assert diverge(call_by_position(observed), baseline).phase is Phase.LOSS


def test_a_field_of_the_batch_that_a_loss_alone_does_without_is_no_data() -> None:
    baseline = alter(BASELINE, shapes="4x8 4x8")
    observed = alter(move_on(baseline), shapes="4x8", batch=lambda batch: f"{batch[:8]} other")
    observed = alter_deep(
        observed,
        outputs=BASELINE.deep[0].outputs,
        losses=(LossPoint("cross_entropy", 0.5, 0.2, "0i", "0t"),),
    )
    assert diverge(observed, baseline).phase is Phase.LOSS
    # Where targets differ, the batch is what they come from.
    observed = alter_deep(observed, losses=(LossPoint("cross_entropy", 0.5, 1.0, "0i", "x"),))
    assert diverge(observed, baseline).phase is Phase.DATA


def test_a_loss_of_another_function_that_a_model_returns_is_loss() -> None:
    outputs = {"0": "00", "1": "01", "Model": "m"}
    baseline = alter_deep(BASELINE, outputs=outputs)
    observed = alter_deep(move_on(baseline), outputs={**outputs, "Model": "n"}, losses=())
    found = diverge(observed, baseline)
    assert (found.phase, found.item) == (Phase.LOSS, "loss")
    # A module inside is the model's own.
    inside = alter_deep(observed, outputs={**outputs, "1": "x", "Model": "n"})
    assert diverge(inside, baseline).phase is Phase.FORWARD


def test_what_lies_between_the_model_and_its_loss_function_is_loss() -> None:
    observed = alter_deep(move_on(BASELINE), outputs=BASELINE.deep[0].outputs)
    found = diverge(observed)
    assert (found.phase, found.item) == (Phase.LOSS, "inputs of cross_entropy")
    assert "all modules gave the same" in found.causes[0]


@pytest.mark.parametrize(
    ("outputs", "phase"), [("same", Phase.LOSS), ("other", Phase.FORWARD), ("", Phase.FORWARD)]
)
def test_other_inputs_of_a_second_loss_are_loss_where_models_gave_the_same_in_all_calls(
    outputs: str, phase: Phase
) -> None:
    second = LossPoint("mse_loss", 0.5, 1.0, "2i", "2t")
    baseline = alter_deep(alter(BASELINE, outputs="same"), losses=lambda losses: (*losses, second))
    observed = alter_deep(
        move_on(alter(baseline, outputs=outputs)),
        outputs=BASELINE.deep[0].outputs,
        losses=(*BASELINE.deep[0].losses, replace(second, inputs="2x", value=0.7)),
    )
    found = diverge(observed, baseline)
    assert (found.phase, found.item) == (phase, "inputs of mse_loss")


def scale_step(observed: Trajectory, loss: float, gradients: float) -> Trajectory:
    observed = alter(move_on(observed, 4), 3, 4, gradients=("xx", "yy", "zz"), updates=("uu", "vv", "ww"))
    return alter(
        observed,
        3,
        4,
        loss=lambda value: value * loss,
        grad_norm=lambda norm: norm * gradients,
        clipped_norm=1.0,
    )


def test_a_loss_that_is_scaled_with_all_gradients_is_loss() -> None:
    found = diverge(scale_step(BASELINE, 1000.0, 1000.0))
    assert (found.phase, found.step, found.item) == (Phase.LOSS, 3, "loss")
    assert "loss and gradients are x1000 of before, all alike" in found.causes[0]
    assert diverge(scale_step(BASELINE, 1000.0, 900.0)).phase is Phase.FORWARD
    assert diverge(scale_step(BASELINE, 1.001, 1.001)).phase is Phase.FORWARD


def clip_elsewhere(**values: Any) -> Trajectory:
    return alter(BASELINE, **values)


def test_clipping_that_finds_another_norm_in_the_same_gradients_is_clipping() -> None:
    found = diverge(clip_elsewhere(grad_norm=0.3))
    assert (found.phase, found.item) == (Phase.CLIPPING, "norm that clipping finds")
    assert "called at another place, or with other parameters" in found.causes[0]


def test_gradients_as_they_were_before_clipping_are_clipping() -> None:
    observed = clip_elsewhere(grad_norm=0.3, clipped_norm=2.0, gradients=("xx", "yy", "zz"))
    assert diverge(observed).phase is Phase.CLIPPING
    assert diverge(alter(observed, clipped_norm=2.2)).phase is Phase.GRADIENTS


def test_gradients_that_differ_with_the_place_of_clipping_are_clipping() -> None:
    observed = clip_elsewhere(grad_norm=2000.0, clipped_norm=0.001, gradients=("xx", "yy", "zz"))
    told = {"clipping comes": "after the last backward"}
    baseline = set_up(BASELINE, Phase.CLIPPING, **told)
    observed = set_up(observed, Phase.CLIPPING, **{"clipping comes": "before the loss scale is taken off"})
    assert diverge(observed, baseline).phase is Phase.CLIPPING


def test_a_precision_that_only_the_backward_pass_shows_is_forward() -> None:
    observed = alter(BASELINE, gradients=lambda marks: ("xx", *marks[1:]))
    assert diverge(observed).phase is Phase.GRADIENTS
    found = diverge(set_up(observed, Phase.FORWARD, **{"precision: float32 matmul": "medium"}))
    assert (found.phase, found.causes) == (Phase.FORWARD, ("precision: float32 matmul is new: medium.",))


@pytest.mark.parametrize("loss", [1.0, 1 + 1e-7])
def test_last_digits_behind_another_implementation_of_the_optimizer_are_optimizer(loss: float) -> None:
    name = "optimizer 0 group 0 implementation"
    baseline = set_up(BASELINE, Phase.OPTIMIZER, **{name: "default"})
    observed = alter(BASELINE, 3, gradients=("xx", "yy", "zz"), loss=lambda value: value * loss)
    observed = set_up(observed, Phase.OPTIMIZER, **{name: "fused"})
    found = diverge(observed, baseline)
    assert (found.phase, found.causes) == (Phase.OPTIMIZER, (f"{name}: default -> fused.",))
    # By more than rounding, and after the same updates, it is none of it.
    assert diverge(alter(observed, 3, loss=lambda value: value * 1.1), baseline).phase is Phase.FORWARD
    observed = alter(observed, 3, grad_norm=3.0, loss=lambda value: value / loss)
    assert diverge(observed, baseline).phase is Phase.GRADIENTS


def test_another_implementation_that_computes_the_same_is_a_note() -> None:
    name = "optimizer 0 group 0 implementation"
    baseline, observed = (
        set_up(BASELINE, Phase.OPTIMIZER, **{name: value}) for value in ("default", "foreach")
    )
    found = compare_trajectories(baseline, observed)
    assert (found.match, len(found.notes)) == (Match.MATCHES, 1)
    # Between machines it is none of the settings that must be the same.
    assert compare_trajectories(baseline, observed, is_exact=False).match is Match.MATCHES


def test_numbers_that_are_not_finite_in_a_batch_are_data_where_the_loader_is_known_to_give_them() -> None:
    nan = float("nan")
    observed = alter(move_on(BASELINE, 3), 3, loss=nan, grad_norm=nan, clipped_norm=nan)
    assert diverge(observed).phase is Phase.FORWARD
    found = diverge(set_up(observed, Phase.DATA, **{"loader 0 batches that are not finite": "3"}))
    assert (found.phase, found.step) == (Phase.DATA, 3)
    assert found.causes == ("loader 0 batches that are not finite is new: 3.",)


def test_parameters_written_to_after_the_first_update_are_optimizer_as_part_of_the_update() -> None:
    written = alter_tensors(move_on(BASELINE, 1), "0.weight", step=1, contents="clamped", weight_norm=1.2)
    found = diverge(written)
    assert (found.phase, found.step, found.item) == (Phase.OPTIMIZER, 1, "values of `0.weight`")
    assert "`0.weight` differs after the same updates: written to between the steps" in found.causes[0]
    assert "parameters" not in found.identical


def test_parameters_set_anew_in_a_later_step_are_initialisation_by_their_norm() -> None:
    baseline = alter(BASELINE, weight_norm=1.8)
    found = diverge(alter(move_on(baseline, 5), 5, weight_norm=1.2), baseline)
    assert (found.phase, found.step, found.item) == (Phase.INITIALISATION, 5, "values of the parameters")
    assert found.change == "norm 1.8 -> 1.2, x0.667"
    assert "written to between the steps" in found.causes[0]
    assert "parameters" not in found.identical
    # Baselines of earlier versions have no norm.
    assert diverge(move_on(baseline, 5)).phase is Phase.FORWARD


def test_parameters_that_differ_in_the_last_digits_are_the_optimizers_arithmetic() -> None:
    baseline = alter(BASELINE, weight_norm=1.8)
    found = diverge(alter(move_on(baseline, 5), 5, weight_norm=1.8000001), baseline)
    assert (found.phase, found.step, found.item) == (Phase.OPTIMIZER, 5, "values of the parameters")
    assert "in the last digits alone, the optimizer's arithmetic" in found.causes[0]


def test_steps_and_values_of_the_parameters_match_where_both_are_the_same() -> None:
    baseline = alter(BASELINE, weight_norm=1.8, num_eval_calls=1)
    assert compare_trajectories(baseline, replace(baseline)).match is Match.MATCHES


def take_turns(trajectory: Trajectory) -> Trajectory:
    """The trajectory with two optimizers that step in turn, each over a parameter of its own."""
    points = [
        replace(
            point,
            optimizers=(point.step % 2,),
            weight_norm=1.0 + point.step % 2,
            gradients=("aa",),
            updates=("bb",),
        )
        for point in trajectory.points
    ]
    return replace(trajectory, points=tuple(points), deep=(), parameters=(("0.weight",), ("1.weight",)))


@pytest.mark.parametrize(
    ("written", "phase", "step"), [(2, Phase.OPTIMIZER, 1), (4, Phase.INITIALISATION, 3)]
)
def test_parameters_that_only_the_next_step_of_their_optimizer_shows_are_told_where_they_act(
    written: int, phase: Phase, step: int
) -> None:
    baseline = take_turns(BASELINE)
    # Optimizer 0 has stepped once, or twice; the forward pass of optimizer 1 uses what was written.
    observed = alter(baseline, written - 1, loss=lambda loss: loss * 1.1, gradients=("xx",))
    found = diverge(alter(observed, written, weight_norm=0.8), baseline)
    assert (found.phase, found.step, found.item) == (phase, step, "values of the parameters")
    # Without it, nothing tells of parameters.
    assert diverge(observed, baseline).phase is Phase.FORWARD


def test_parameters_written_to_behind_a_step_of_another_optimizer_are_told_with_their_own() -> None:
    baseline = take_turns(BASELINE)
    found = diverge(alter(baseline, 4, weight_norm=0.8), baseline)
    assert found.phase is Phase.INITIALISATION


def test_between_machines_values_behind_an_update_are_not_compared_and_first_values_are() -> None:
    # Adam makes a whole step of a gradient that is nothing but rounding, as that of a bias before a norm.
    rounded = alter_tensors(BASELINE, "0.bias", step=1, contents="xx", weight_norm=0.41)
    assert compare_trajectories(BASELINE, rounded, is_exact=False).match is Match.MATCHES
    other = alter_tensors(BASELINE, "0.bias", step=0, contents="xx", weight_norm=0.41)
    found = compare_trajectories(BASELINE, other, is_exact=False).divergence
    assert found is not None
    assert found.phase is Phase.INITIALISATION


def test_between_machines_other_targets_are_named_where_the_loss_differs() -> None:
    observed = alter(move_on(BASELINE), loss=lambda loss: loss * 1.5)

    def shift(losses: tuple[LossPoint, ...]) -> tuple[LossPoint, ...]:
        return tuple(replace(call, value=4.5, targets="other") for call in losses)

    shifted = alter_deep(observed, losses=shift)
    found = compare_trajectories(BASELINE, shifted, is_exact=False).divergence
    assert found is not None
    assert found.causes[0].startswith("the loss function was given other targets: ")
    same = alter_deep(shifted, losses=BASELINE.deep[0].losses)
    found = compare_trajectories(BASELINE, same, is_exact=False).divergence
    assert found is not None
    assert not found.causes[0].startswith("the loss function was given other targets: ")


def test_more_micro_batches_from_a_later_step_on_are_told_as_such() -> None:
    found = diverge(alter(move_on(BASELINE, 5), 4, num_micro_batches=2))
    assert (found.phase, found.item) == (Phase.LOSS, "micro-batches of a step")
    assert found.causes[0].startswith("this step has another number of backward passes (1 -> 2)")


def test_a_step_that_the_scaler_skips_is_told_as_such() -> None:
    found = diverge(alter(move_on(BASELINE, 4), 3, 4, was_skipped=True))
    assert (found.phase, found.step, found.item) == (Phase.LOSS, 3, "step of the GradScaler")
    assert found.causes[0].startswith("this step is now skipped: ")
