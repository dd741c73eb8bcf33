"""The optimizer and its updates, on records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import (
    DeepObservation,
    LossFunctionObservation,
    ParameterObservation,
    UnheldParameter,
)
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation
from harness.record.step_observation import StepObservation
from harness.rules import catalogue, freezing, optimizer, optimizer_settings, optimizers, updates
from tests.unit.rules import gradient_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]

RULES = (
    *optimizers.RULES,
    *optimizer.RULES,
    *freezing.RULES,
    *optimizer_settings.RULES,
    *updates.RULES,
)
NAMES = ("first.weight", "blocks.0.weight", "blocks.1.weight", "blocks.2.weight", "head.weight")
DEEP_STEPS = (0, 1, 10)


def make_parameter(position: int, **changes: Any) -> ParameterObservation:
    return gradient_records.make_parameter(position, NAMES, **{"model_position": position, **changes})


def make_observation(
    *,
    parameters: Callable[[int, int], dict[str, Any]] = lambda _step, _position: {},
    unheld: Sequence[UnheldParameter] = (),
    held: Sequence[str] = NAMES,
    name: str = "AdamW",
    rates: Sequence[float] = (1e-3,) * 12,
    **hyperparameters: Any,
) -> RunObservation:
    """A run of one optimizer with five weights, watched in depth on three steps."""
    group = OptimizerGroup({"lr": rates[0], **hyperparameters}, list(held), 256 * len(held))
    steps = [
        StepObservation(number, loss=2.0, num_micro_batches=1, optimizers=[0], learning_rates=[[rate]])
        for number, rate in enumerate(rates)
    ]
    deep_steps = [
        DeepObservation(
            number,
            parameters=[
                made
                for place in range(len(NAMES))
                if (made := make_parameter(place, **parameters(number, place))).name in held
                or made.name.startswith("?")
            ],
            unheld=list(unheld),
        )
        for number in DEEP_STEPS
    ]
    return RunObservation(
        steps=steps, deep_steps=deep_steps, optimizers=[OptimizerObservation(name, [group], len(steps))]
    )


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    run = make_run(observed=observed)
    return [found for rule in RULES if rule.find_obstacle(run) is None for found in rule.apply(run)]


def tell(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, str(finding.severity)) for finding in findings]


def test_a_clean_run_is_silent(make_run: MakeRun) -> None:
    assert find(make_run, make_observation(weight_decay=0.1, eps=1e-8, betas=[0.9, 0.999])) == []


def test_nothing_is_judged_of_a_run_that_was_not_watched(make_run: MakeRun) -> None:
    run = make_run()
    assert all(rule.find_obstacle(run) == "nothing was watched" for rule in RULES)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, [("T501", "warning")]),
        ({"shape": (64, 64)}, [("T501", "note")]),
        ({"grad_norm": None}, []),
        ({"is_trainable": False}, []),
        ({"is_model_held": False, "is_model_training": False}, [("T501", "note")]),
        ({"name": "head.weight"}, []),
    ],
)
def test_a_parameter_that_no_optimizer_holds(
    make_run: MakeRun, changes: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    left_out = replace(UnheldParameter("norm.weight", (16,), 0.2, model_position=5), **changes)
    assert tell(find(make_run, make_observation(unheld=[left_out]))) == told


def test_strangers_in_the_optimizer_make_a_parameter_left_out_an_error(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda _step, place: (
            {"name": "?4", "grad_norm": None, "took_part": False, "update_norm": 0.0} if place == 4 else {}
        ),
        unheld=[UnheldParameter("head.weight", (16, 4), 0.2, model_position=4)],
        held=NAMES[:4],
    )
    first, second = find(make_run, observed)
    assert (first.code, str(first.severity), first.subject) == ("T501", "error", "head.weight")
    assert "[16, 16]" in first.message
    assert tell([second]) == [("T502", "note")]


def test_an_optimizer_that_was_built_and_never_steps(make_run: MakeRun) -> None:
    left_out = UnheldParameter("Critic.weight", (64, 64), 0.2, is_model_held=False)
    observed = make_observation(unheld=[left_out])
    observed.idle_optimizers = [make_optimizer("Critic.weight", "Critic.bias")]
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T501", "warning")]
    assert "Adam holds them, was built, and never stepped" in finding.message


def test_an_optimizer_of_nothing_but_strangers_is_an_error(make_run: MakeRun) -> None:
    observed = make_observation(
        parameters=lambda _step, place: {
            "name": f"?{place}", "grad_norm": None, "took_part": False, "update_norm": 0.0
        },
        held=(),
    )  # fmt: skip
    assert tell(find(make_run, observed)) == [("T502", "error")]


def test_parameters_made_by_hand_have_gradients_and_are_silent(make_run: MakeRun) -> None:
    observed = make_observation(parameters=lambda _step, place: {"name": f"?{place}"}, held=())
    assert find(make_run, observed) == []


def with_optimizers(turns: Sequence[int], *made: OptimizerObservation) -> RunObservation:
    steps = [StepObservation(number, optimizers=[index]) for number, index in enumerate(turns)]
    return RunObservation(steps=steps, optimizers=list(made))


def make_optimizer(*names: str, name: str = "Adam", **changes: Any) -> OptimizerObservation:
    return OptimizerObservation(name, [OptimizerGroup({"lr": 0.1}, list(names), 1)], 2, **changes)


def test_parameters_in_two_optimizers_lead_what_then_gets_no_gradient() -> None:
    codes = list(catalogue.BY_CODE)
    assert codes.index("T503") < codes.index("T401")
    assert "T401" in catalogue.BY_CODE["T503"].explains


def test_two_optimizers_over_the_same_parameters(make_run: MakeRun) -> None:
    same = with_optimizers([0, 1, 0, 1], make_optimizer("a", "b"), make_optimizer("a", "b"))
    assert tell(find(make_run, same)) == [("T503", "warning")]
    overlapping = with_optimizers([0, 1, 0, 1], make_optimizer("a", "b"), make_optimizer("b", "c"))
    assert tell(find(make_run, overlapping)) == [("T503", "note")]
    whole = with_optimizers(
        [0, 1, 0, 1], make_optimizer("Critic.a"), make_optimizer("Generator.a", "Critic.a")
    )
    assert tell(find(make_run, whole)) == [("T503", "warning")]
    apart = with_optimizers([0, 1, 0, 1], make_optimizer("a", "b"), make_optimizer("c"))
    assert find(make_run, apart) == []
    stages = with_optimizers([0, 0, 1, 1], make_optimizer("a"), make_optimizer("a"))
    assert find(make_run, stages) == []


def test_an_optimizer_built_anew_loses_its_state(make_run: MakeRun) -> None:
    def rebuild(name: str) -> RunObservation:
        made = [
            make_optimizer("a", name=name, same_parameters_as=index - 1 if index else None)
            for index in range(4)
        ]
        return with_optimizers([0, 0, 1, 1, 2, 2, 3, 3], *made)

    (finding,) = find(make_run, rebuild("Adam"))
    assert (finding.code, finding.step) == ("T504", 2)
    assert "3 times" in finding.message
    assert find(make_run, rebuild("SGD")) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "SGD", "momentum": 1.0}, [("T505", "error")]),
        ({"betas": [0.999, 0.9]}, [("T505", "warning")]),
        ({"betas": [0.0, 0.9]}, []),
        ({"weight_decay": 100.0}, [("T505", "warning")]),
        ({"name": "Adam", "weight_decay": 100.0}, []),
        ({"name": "SGD", "weight_decay": 5e-4, "momentum": 0.9, "rates": [0.5] * 12}, []),
        ({"name": "SGD", "weight_decay": 1.0, "momentum": 0.9, "rates": [0.1] * 12}, [("T505", "warning")]),
        ({"eps": 1.0}, [("T505", "warning")]),
        ({"name": "RMSprop", "eps": 1.0}, []),
        ({"eps": 1e-6}, []),
    ],
)
def test_settings_out_of_range(
    make_run: MakeRun, settings: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    assert tell(find(make_run, make_observation(**settings))) == told


def test_a_loss_given_to_an_optimizer_that_maximizes(make_run: MakeRun) -> None:
    def maximize(**changes: Any) -> RunObservation:
        observed = make_observation(maximize=True)
        call = LossFunctionObservation(
            "cross_entropy", (8, 4), (8,), "float32", "int64", "mean", value=2.0, scale=1.0
        )
        for deep in observed.deep_steps:
            deep.loss_functions = [replace(call, **changes)]
        return observed

    assert tell(find(make_run, maximize())) == [("T508", "warning")]
    assert find(make_run, maximize(scale=-1.0)) == []
    assert find(make_run, maximize(reduction="none")) == []


def test_a_group_of_vectors_that_decays_is_a_note(make_run: MakeRun) -> None:
    def decay(value: float) -> RunObservation:
        observed = make_observation(
            parameters=lambda _step, place: {"shape": (16,)} if place > 2 else {}, weight_decay=0.1
        )
        observed.optimizers[0].groups = [
            OptimizerGroup({"lr": 1e-3, "weight_decay": 0.1}, list(NAMES[:3]), 768),
            OptimizerGroup({"lr": 1e-3, "weight_decay": value}, list(NAMES[3:]), 32),
        ]
        return observed

    assert tell(find(make_run, decay(0.1))) == [("T506", "note")]
    assert find(make_run, decay(0.0)) == []


def freeze(*places: int) -> Callable[[int, int], dict[str, Any]]:
    return lambda _step, place: (
        {"is_trainable": False, "grad_norm": None, "update_norm": 0.0} if place in places else {}
    )


def test_one_frozen_layer_between_others_that_train(make_run: MakeRun) -> None:
    (finding,) = find(make_run, make_observation(parameters=freeze(2)))
    assert (finding.code, str(finding.severity), finding.subject) == ("T507", "warning", "blocks.1")
    left_out = UnheldParameter("blocks.1.weight", (16, 16), is_trainable=False, model_position=2)
    held = [name for name in NAMES if name != "blocks.1.weight"]
    assert tell(find(make_run, make_observation(unheld=[left_out], held=held))) == [("T507", "warning")]


@pytest.mark.parametrize("places", [(0,), (0, 1), (1, 2), (4,), (0, 1, 2, 3)])
def test_layers_frozen_on_purpose_are_silent(make_run: MakeRun, places: tuple[int, ...]) -> None:
    assert find(make_run, make_observation(parameters=freeze(*places))) == []


def test_layers_frozen_on_the_way_are_told_and_thawed_ones_are_not(make_run: MakeRun) -> None:
    def change(when: Callable[[int], bool]) -> RunObservation:
        return make_observation(
            parameters=lambda step, place: freeze(1, 2)(step, place) if when(step) else {}
        )

    (finding,) = find(make_run, change(lambda step: step == 10))
    assert (finding.code, finding.step) == ("T507", 10)
    assert find(make_run, change(lambda step: step < 10)) == []


def test_a_parameter_that_never_moves(make_run: MakeRun) -> None:
    still = make_observation(parameters=lambda _step, place: {"update_norm": 0.0} if place == 4 else {})
    assert tell(find(make_run, still)) == [("T511", "warning")]
    still.optimizers[0].groups = [
        OptimizerGroup({"lr": 1e-3}, list(NAMES[:4]), 1024),
        OptimizerGroup({"lr": 0.0}, [NAMES[4]], 256),
    ]
    for step in still.steps:
        step.learning_rates = [[1e-3, 0.0]]
    assert tell(find(make_run, still)) == [("T511", "note")]
    nothing_moves = make_observation(parameters=lambda _step, _place: {"update_norm": 0.0})
    assert find(make_run, nothing_moves) == []


def test_updates_that_are_rounded_away(make_run: MakeRun) -> None:
    def make(share: float, **changes: Any) -> RunObservation:
        return make_observation(
            parameters=lambda step, _place: {
                "dtype": "bfloat16", "share_changed": share if step == 10 else 0.0
            },
            **changes,
        )  # fmt: skip

    (finding,) = find(make_run, make(0.2))
    assert tell([finding]) == [("T512", "warning")]
    assert "20% change" in finding.message
    assert find(make_run, make(0.8)) == []
    assert find(make_run, make(0.2, rates=[1e-6 * step for step in range(12)])) == []


@pytest.mark.parametrize(
    ("size", "told"),
    [(0.01, []), (3.0, [("T513", "warning")]), (1e-7, [("T513", "warning")]), (1e-5, [])],
)
def test_the_size_of_updates(make_run: MakeRun, size: float, told: list[tuple[str, str]]) -> None:
    observed = make_observation(parameters=lambda _step, _place: {"update_norm": size * 4.0})
    assert tell(find(make_run, observed)) == told


def test_large_updates_at_the_start_alone_of_zeros_or_in_a_search_are_silent(make_run: MakeRun) -> None:
    once = make_observation(parameters=lambda step, _place: {"update_norm": 4.0 if step == 0 else 0.04})
    assert find(make_run, once) == []
    from_zero = make_observation(
        parameters=lambda step, _place: {"weight_norm": 4.0 if step else 0.0, "update_norm": 4.0}
    )
    assert find(make_run, from_zero) == []
    search = make_observation(
        parameters=lambda _step, _place: {"update_norm": 4.0}, rates=[1e-6 * 4**step for step in range(12)]
    )
    assert find(make_run, search) == []
