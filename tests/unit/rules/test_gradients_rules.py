"""Gradients, accumulation and clipping, on records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import DeepObservation, LossFunctionObservation, ParameterObservation
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation, ScalerObservation
from harness.record.step_observation import ClippingCall, StepObservation
from harness.rules import (
    accumulation,
    clipping,
    gradient_norms,
    gradients,
    gradients_kept,
    micro_batches,
    unscaled_losses,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]

RULES = (
    *gradients.RULES,
    *gradients_kept.RULES,
    *micro_batches.RULES,
    *accumulation.RULES,
    *unscaled_losses.RULES,
    *clipping.RULES,
    *gradient_norms.RULES,
)
NAMES = ("first.weight", "blocks.0.fc.weight", "blocks.1.fc.weight", "head.weight")
DEEP_STEPS = (0, 1, 10)
OPTIMIZER = OptimizerObservation("SGD", [OptimizerGroup({"lr": 0.1}, list(NAMES), 1024)], 12)
CALL = LossFunctionObservation(
    name="cross_entropy",
    input_shape=(40, 9),
    target_shape=(40,),
    input_dtype="float32",
    target_dtype="int64",
    reduction="mean",
    share_ignored=0.0,
    value=2.0,
    scale=0.5,
)


def make_parameter(position: int, **changes: Any) -> ParameterObservation:
    made = ParameterObservation(
        name=NAMES[position],
        num_elements=256,
        dtype="float32",
        grad_norm=0.5,
        update_norm=0.05,
        weight_norm=4.0,
        took_part=True,
        shape=(16, 16),
        call_position=position,
    )
    return replace(made, **changes)


def make_observation(
    *,
    parameters: Callable[[int, int], dict[str, Any]] = lambda _step, _position: {},
    deep: dict[str, Any] | None = None,
    step: dict[str, Any] | None = None,
    num_steps: int = 12,
    optimizers: int = 1,
) -> RunObservation:
    """A run of one optimizer with four weights, watched in depth on three steps.

    Args:
        parameters: What is different about a parameter, by step and position.
        deep: What is different about every deep step.
        step: What is different about every step.
        num_steps: Steps.
        optimizers: Optimizers that take turns.
    """
    plain: dict[str, Any] = {"loss": 2.0, "losses": [2.0], "num_micro_batches": 1, **(step or {})}
    steps = [
        StepObservation(number, optimizers=[number % optimizers], learning_rates=[[0.1]], **plain)
        for number in range(num_steps)
    ]
    seen: dict[str, Any] = {
        "batch_fingerprints": ["a"],
        "grad_norms_before_backward": [None],
        "grad_norms_after_backward": [1.0],
        "grad_norm": 1.0,
        **(deep or {}),
    }
    deep_steps = [
        DeepObservation(
            number,
            parameters=[make_parameter(place, **parameters(number, place)) for place in range(len(NAMES))],
            **seen,
        )
        for number in DEEP_STEPS
    ]
    return RunObservation(steps=steps, deep_steps=deep_steps, optimizers=[OPTIMIZER] * optimizers)


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    run = make_run(observed=observed)
    return [found for rule in RULES if rule.find_obstacle(run) is None for found in rule.apply(run)]


def tell(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, str(finding.severity)) for finding in findings]


def test_a_clean_run_is_silent(make_run: MakeRun) -> None:
    assert find(make_run, make_observation()) == []


def test_nothing_is_judged_of_a_run_that_was_not_watched(make_run: MakeRun) -> None:
    run = make_run()
    assert all(rule.find_obstacle(run) == "nothing was watched" for rule in RULES)


def without_gradient(*places: int) -> Callable[[int, int], dict[str, Any]]:
    return lambda _step, place: {"grad_norm": None, "update_norm": 0.0} if place in places else {}


@pytest.mark.parametrize(
    ("places", "severity"),
    [((0,), "warning"), ((0, 1), "warning"), ((1, 2), "warning"), ((2,), "note"), ((3,), "note")],
)
def test_parameters_without_gradient_are_told_as_one_group(
    make_run: MakeRun, places: tuple[int, ...], severity: str
) -> None:
    (finding,) = find(make_run, make_observation(parameters=without_gradient(*places)))
    assert (finding.code, str(finding.severity), finding.subject) == ("T401", severity, NAMES[places[0]])
    assert f"{len(places)} of 4 parameters" in finding.message
    assert "steps 0, 1 and 10" in finding.message


def test_no_gradient_at_all_is_an_error(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=without_gradient(0, 1, 2, 3),
        deep={"grad_norm": None, "grad_norms_after_backward": [None]},
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, str(finding.severity)) == ("T401", "error")


def test_a_part_that_ran_without_gradients_is_told(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda _step, place: (
            {"grad_norm": None, "took_part": False, "ran_without_gradient": True} if place == 2 else {}
        )
    )
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T401", "warning")]
    assert "no_grad" in finding.cause


@pytest.mark.parametrize(
    "clean",
    [
        # An expert that is chosen at step 1 only, a head that is not called, a frozen layer.
        lambda step, place: {"grad_norm": None} if place == 0 and step != 1 else {},
        lambda _step, place: {"grad_norm": None, "took_part": False} if place == 3 else {},
        lambda _step, place: {"grad_norm": None, "is_trainable": False} if place == 0 else {},
        lambda _step, place: {"grad_norm": None, "took_part": None} if place == 0 else {},
    ],
)
def test_parameters_that_need_no_gradient_are_silent(
    make_run: MakeRun, clean: Callable[[int, int], dict[str, Any]]
) -> None:
    assert find(make_run, make_observation(parameters=clean)) == []


def test_gradients_that_are_all_zero_are_an_error_unless_the_loss_is_zero_too(make_run: MakeRun) -> None:
    zero: dict[str, Any] = {"grad_norm": 0.0, "grad_norms_after_backward": [0.0]}
    observed = make_observation(parameters=lambda _step, _place: {"grad_norm": 0.0}, deep=zero)
    assert tell(find(make_run, observed)) == [("T402", "error")]
    satisfied = make_observation(
        parameters=lambda _step, _place: {"grad_norm": 0.0},
        deep=zero,
        step={"loss": 0.0, "losses": [0.0]},
    )
    assert find(make_run, satisfied) == []


def test_first_layers_with_nothing_but_zeros_are_dead(make_run: MakeRun) -> None:
    observed = make_observation(parameters=lambda _step, place: {"grad_norm": 0.0} if place < 2 else {})
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T402", "warning")]
    assert "`first`, `blocks.0.fc`" in finding.message


def test_zeros_in_the_first_steps_only_are_silent(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda step, place: {"grad_norm": 0.0} if place == 0 and step < 10 else {}
    )
    assert find(make_run, observed) == []


def test_gradients_left_from_the_step_before_are_an_error(make_run: MakeRun) -> None:
    observed = make_observation(parameters=lambda step, _place: {"leftover_norm": 0.5 if step else None})
    (finding,) = find(make_run, observed)
    assert (finding.code, str(finding.severity), finding.step) == ("T403", "error", 1)
    assert "all parameters" in finding.message
    assert "norm 1 at step 1" in finding.message


def test_gradients_left_that_the_step_clears_later_are_silent(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda step, _place: {"leftover_norm": 0.5 if step else None},
        deep={"grad_norms_before_backward": [1.0, None], "grad_norms_after_backward": [2.0, 1.0]},
        step={"num_micro_batches": 2, "losses": [1.0, 1.0]},
    )
    assert find(make_run, observed) == []


def test_gradients_that_were_there_before_the_run_are_silent(make_run: MakeRun) -> None:
    observed = make_observation(parameters=lambda step, _place: {"leftover_norm": None if step else 0.5})
    assert find(make_run, observed) == []


def test_gradients_left_on_some_steps_only_are_a_warning(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda step, _place: {"leftover_norm": 0.5 if step == 10 else None}, optimizers=2
    )
    assert tell(find(make_run, observed)) == [("T403", "warning")]


def test_an_optimizer_that_takes_turns_and_gets_nothing_is_an_error(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda step, _place: {"grad_norm": 0.5 if step == 1 else None, "took_part": step == 1},
        optimizers=2,
    )
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T401", "error")]
    assert "steps 0 and 10" in finding.message


@pytest.mark.parametrize(("scale", "told"), [(1.0, [("T416", "warning")]), (1024.0, [])])
def test_a_scaled_loss_must_be_the_one_that_is_propagated(
    make_run: MakeRun, scale: float, told: list[tuple[str, str]]
) -> None:
    observed = make_observation(
        deep={
            "loss_functions": [replace(CALL, scale=scale)],
            "loss_scale": 1024.0,
            "grad_norms_after_backward": [1024.0],
        }
    )
    observed.scaler = ScalerObservation(12, last_scale=1024.0)
    assert tell(find(make_run, observed)) == told


def test_old_gradients_that_are_used_again_are_told(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda step, place: {"is_stale": True} if place == 3 and step else {}
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, finding.subject, finding.step) == ("T404", "head.weight", 1)


def test_a_gradient_gone_before_the_step_is_an_error(make_run: MakeRun) -> None:
    observed = make_observation(parameters=lambda _step, _place: {"grad_norm": 0.0}, deep={"grad_norm": 0.0})
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T405", "error")]
    assert "zero_grad()" in finding.cause


def test_a_gradient_that_grows_before_the_step_is_a_warning_and_a_loss_scale_is_divided_out(
    make_run: MakeRun,
) -> None:
    assert tell(find(make_run, make_observation(deep={"grad_norm": 5.0}))) == [("T405", "warning")]
    scaled = {"grad_norm": 5.0, "grad_norms_after_backward": [5.0 * 1024], "loss_scale": 1024.0}
    assert find(make_run, make_observation(deep=scaled)) == []


def make_accumulating(
    scales: tuple[float, ...],
    counts: tuple[int, ...] = (40, 40),
    *,
    name: str = "cross_entropy",
    **deep: Any,
) -> RunObservation:
    """Two micro-batches of 8 sequences, whose mean losses reach the gradient with these scales."""
    calls = [
        replace(CALL, name=name, scale=scale, input_shape=(count, 9), target_shape=(count,))
        for scale, count in zip(scales, counts, strict=True)
    ]
    num = len(scales)
    return make_observation(
        deep={
            "batch_fingerprints": [str(number) for number in range(num)],
            "grad_norms_before_backward": [None, *[0.5] * (num - 1)],
            "grad_norms_after_backward": [0.6] * (num - 1) + [1.0],
            "loss_functions": calls,
            **deep,
        },
        step={
            "num_micro_batches": num,
            "losses": [2.0 * scale for scale in scales],
            "batch_shapes": [[(8, count // 8)] for count in counts],
        },
    )


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        ((0.5, 0.5), []),
        ((1.0, 1.0), [("T411", "warning")]),
        ((0.25, 0.25), [("T411", "warning")]),
        ((0.8, 0.2), [("T411", "note")]),
    ],
)
def test_weights_of_micro_batches_must_add_up_to_one(
    make_run: MakeRun, scales: tuple[float, ...], told: list[tuple[str, str]]
) -> None:
    assert tell(find(make_run, make_accumulating(scales))) == told


def test_half_of_a_squared_error_is_not_taken_for_a_loss_divided_twice(make_run: MakeRun) -> None:
    assert find(make_run, make_accumulating((0.25, 0.25), name="mse_loss")) == []


def test_one_batch_with_two_losses_and_another_term_in_the_loss_are_not_judged(make_run: MakeRun) -> None:
    assert find(make_run, make_accumulating((1.0, 1.0), batch_fingerprints=["a"])) == []
    observed = make_accumulating((1.0, 1.0))
    for step in observed.steps:
        step.losses = [2.5, 2.5]
    assert find(make_run, observed) == []


def test_micro_batches_with_different_counts_must_weigh_as_their_targets(make_run: MakeRun) -> None:
    (finding,) = find(make_run, make_accumulating((0.5, 0.5), (48, 32)))
    assert tell([finding]) == [("T412", "warning")]
    assert "48, 32 targets" in finding.message
    assert find(make_run, make_accumulating((0.6, 0.4), (48, 32))) == []


def test_a_smaller_batch_of_samples_is_silent(make_run: MakeRun) -> None:
    observed = make_accumulating((0.5, 0.5), (48, 32))
    for step in observed.steps:
        step.batch_shapes = [[(48, 8)], [(32, 8)]]
    assert find(make_run, observed) == []


def test_micro_batches_that_are_cleared_away_are_told(make_run: MakeRun) -> None:
    observed = make_accumulating((0.5, 0.5), grad_norms_before_backward=[None, None])
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T413", "warning")]
    # As the optimizer gets them, not as they are under a GradScaler.
    scaled = make_accumulating((0.5, 0.5), grad_norms_before_backward=[None, None])
    for deep in scaled.deep_steps:
        deep.loss_scale = 1024.0
        deep.grad_norms_after_backward = [1024.0 * (norm or 0.0) for norm in deep.grad_norms_after_backward]
    assert find(make_run, scaled)[0].message == finding.message
    # A sharpness-aware step uses one batch; gradients combined by hand are not the last one's.
    same_batch = make_accumulating(
        (0.5, 0.5), grad_norms_before_backward=[None, None], batch_fingerprints=["a", "a"]
    )
    assert find(make_run, same_batch) == []
    combined = make_accumulating((0.5, 0.5), grad_norms_before_backward=[None, None], grad_norm=1.4)
    assert find(make_run, combined) == []


def test_a_loss_propagated_back_twice_is_told(make_run: MakeRun) -> None:
    observed = make_observation(
        deep={"grad_norms_before_backward": [None, 1.0], "grad_norms_after_backward": [1.0, 2.0]},
        step={"num_micro_batches": 2, "losses": [2.0, 2.0]},
    )
    assert tell(find(make_run, observed)) == [("T414", "warning")]
    two_tasks = make_observation(
        deep={"grad_norms_before_backward": [None, 1.0], "grad_norms_after_backward": [1.0, 1.4]},
        step={"num_micro_batches": 2, "losses": [2.0, 2.0]},
    )
    assert find(make_run, two_tasks) == []


def clip(**changes: Any) -> dict[str, Any]:
    call = ClippingCall("norm", 0.5, norm=1.0, num_gradients=4, num_micro_batches=1)
    return {"step": {"clipping": [replace(call, **changes)]}, "deep": {"grad_norm": 0.5}}


def test_clipping_right_before_the_step_is_silent(make_run: MakeRun) -> None:
    assert find(make_run, make_observation(**clip())) == []


def test_clipping_before_unscaling_is_an_error(make_run: MakeRun) -> None:
    observed = make_observation(**clip(is_before_unscale=True, norm=1024.0))
    observed.scaler = ScalerObservation(12, last_scale=1024.0)
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T421", "error")]
    assert "12 of 12 steps" in finding.message
    asks_only = make_observation(**clip(is_before_unscale=True, max_norm=float("inf")))
    assert find(make_run, asks_only) == []


def test_clipping_before_the_last_backward_is_told_but_not_of_several_optimizers(make_run: MakeRun) -> None:
    early = clip(num_micro_batches=0)
    early["deep"] = {}
    assert tell(find(make_run, make_observation(**early))) == [("T422", "warning")]
    assert find(make_run, make_observation(**early, optimizers=2)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_gradients": 0, "norm": 0.0}, [("T423", "warning")]),
        ({"num_gradients": 1, "norm": 0.1}, [("T423", "warning")]),
        ({"num_gradients": 3, "norm": 0.9}, [("T423", "note")]),
        ({"num_gradients": None}, []),
    ],
)
def test_clipping_must_cover_the_gradients(
    make_run: MakeRun, changes: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    assert tell(find(make_run, make_observation(**clip(**changes)))) == told


def test_a_gradient_that_grows_after_clipping_is_told(make_run: MakeRun) -> None:
    observed = make_observation(**{**clip(), "deep": {"grad_norm": 2.0}})
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T424", "warning")]
    assert "norm 2 at step 0, though clipping left 0.5" in finding.message


@pytest.mark.parametrize(
    ("norm", "bound", "severity"), [(500.0, 1.0, "note"), (1.0, 1e-3, "warning"), (50.0, 1.0, None)]
)
def test_clipping_to_next_to_nothing_is_told(
    make_run: MakeRun, norm: float, bound: float, severity: str | None
) -> None:
    observed = make_observation(**{**clip(norm=norm, max_norm=bound), "deep": {"grad_norm": bound}})
    assert tell(find(make_run, observed)) == ([] if severity is None else [("T425", severity)])


def test_an_exploding_gradient_norm_is_a_warning_and_a_single_high_one_a_note(make_run: MakeRun) -> None:
    norms = {
        "explodes": [1.5**number for number in range(24)],
        "spikes": [1.0] * 20 + [500.0] + [1.0] * 3,
        "falls": [100 * 0.5**number for number in range(24)],
    }
    told = {}
    for name, values in norms.items():
        observed = make_observation(num_steps=24)
        for step, norm in zip(observed.steps, values, strict=True):
            step.grad_norm = norm
        told[name] = tell(find(make_run, observed))
    assert told == {"explodes": [("T406", "warning")], "spikes": [("T406", "note")], "falls": []}


def test_a_gradient_that_fades_towards_the_first_layer_is_a_note(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda _step, place: {"grad_norm": 10.0 ** (-3 * (3 - place))},
    )
    (finding,) = find(make_run, observed)
    assert (finding.code, str(finding.severity), finding.subject) == ("T407", "note", "first.weight")
