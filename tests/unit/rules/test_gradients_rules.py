"""Gradients and their norms, on records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.optimizer_observation import ScalerObservation
from tests.unit.rules.gradient_records import (
    CALL,
    NAMES,
    RULES,
    find,
    make_observation,
    tell,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]


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
