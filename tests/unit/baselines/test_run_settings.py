"""What a run was set up with, and in what two runs differ."""

from __future__ import annotations

import json
import math

from harness.baselines.parameter_names import list_group_names
from harness.baselines.run_settings import collect_settings
from harness.baselines.setting_changes import list_changes
from harness.record.deep import (
    DeepObservation,
    LossFunctionObservation,
    ParameterObservation,
    UnheldParameter,
)
from harness.record.loader_observation import EpochObservation, LoaderObservation
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation, SchedulerObservation
from harness.record.step_observation import ClippingCall, StepObservation
from harness.record.trace import StepTrace


def observe() -> RunObservation:
    hyperparameters = {
        "lr": 0.05, "initial_lr": 0.1, "betas": [0.9, 0.999], "weight_decay": 0.0,
        "amsgrad": False, "maximize": None, "foreach": True,
        "momentum": 0.30000001192092896, "root": 0.1 * 8**0.5, "limit": math.inf,
    }  # fmt: skip
    epochs = [EpochObservation(0, num_indices=48, order="0a")]
    return RunObservation(
        seed=3,
        steps=[
            StepObservation(0, num_micro_batches=2, clipping=[ClippingCall("norm", 1.0), ClippingCall("value", 0.5)])
        ],
        loaders=[
            LoaderObservation(
                "Texts", 48, 8, 0, "RandomSampler", drop_last=True, epochs=epochs
            )
        ],
        modules={"0": "Linear(4, 2)"},
        numerics={"precision": {"default dtype": "float32"}},
        optimizers=[OptimizerObservation("AdamW", [OptimizerGroup(hyperparameters, ["b", "a"], 1200)])],
        schedulers=[SchedulerObservation("StepLR", hyperparameters={"step_size": 3, "last_epoch": 7})],
        deep_steps=[
            DeepObservation(
                0,
                parameters=[
                    ParameterObservation("a", 8, "float32", shape=(2, 4)),
                    ParameterObservation("b", 1, "float32", is_trainable=False),
                ],
                unheld=[UnheldParameter("c", (3,), is_trainable=False)],
                loss_functions=[
                    LossFunctionObservation(
                        "cross_entropy", (8, 4), (8,), "float32", "int64", "mean",
                        ignore_index=-100, label_smoothing=0.1, has_weight=True,
                    ),
                    LossFunctionObservation(
                        "mse_loss", (8,), (8,), "float32", "float32", "sum", is_training=False
                    ),
                ],
            )
        ],
    )  # fmt: skip


def test_settings_are_plain_values_by_phase_and_name() -> None:
    settings = collect_settings(observe())
    assert settings == json.loads(json.dumps(settings, allow_nan=False))
    assert settings["data"]["loader 0 order of pass 1"] == "0a/48"
    assert settings["RNG"] == {"seed": 3}
    assert settings["initialisation"] == {
        "a": "2x4 float32",
        "b": "scalar float32 frozen",
        "c": "3 frozen in no optimizer",
        "matrices of equal rows": "none",
    }
    assert settings["forward"] == {
        "0": "Linear(4, 2)",
        "precision: default dtype": "float32",
        "precision: autocast": "off",
        "torch.compile": False,
    }
    assert settings["loss"] == {
        "cross_entropy 0": "reduction=mean label_smoothing=0.1 weighted ignore_index=-100",
        "micro-batches": 2,
    }
    assert settings["clipping"] == {"clipping": "norm to 1, value to 0.5"}
    assert settings["schedule"] == {
        "optimizer 0 group 0 learning rate": 0.1, "scheduler 0": "StepLR", "scheduler 0 step_size": 3,
    }  # fmt: skip


def test_settings_of_an_optimizer_tell_apart_what_it_computes_and_how() -> None:
    found = collect_settings(observe())["optimizer"]
    parameters = found.pop("optimizer 0 group 0 parameters")
    assert parameters.startswith("2 of 1,200 numbers (")
    turned = observe()
    turned.optimizers[0].groups[0].parameters.reverse()
    changed = list_changes(collect_settings(observe()), collect_settings(turned))
    assert [(change.name, change.is_neutral) for change in changed] == [("optimizer 0 group 0 order", True)]
    del found["optimizer 0 group 0 order"]
    assert found == {
        "optimizer 0": "AdamW",
        "optimizer 0 group 0 betas": [0.9, 0.999],
        "optimizer 0 group 0 weight_decay": 0.0,
        "optimizer 0 group 0 momentum": 0.3,
        "optimizer 0 group 0 root": 0.282842712,
        "optimizer 0 group 0 limit": "inf",
        "optimizer 0 group 0 implementation": "foreach",
    }


def test_a_run_that_was_watched_lightly_has_the_settings_that_were_seen() -> None:
    light = observe()
    light.deep_steps, light.modules, light.numerics = [], {}, {}
    assert not {"initialisation", "forward", "loss"} & collect_settings(light).keys()
    # What one of them does not tell is no difference.
    assert list_changes(collect_settings(observe()), collect_settings(light)) == []


def test_clipping_tells_what_it_covers_and_when_it_is_called() -> None:
    observed = observe()
    step = observed.steps[0]
    step.trace = StepTrace(gradients=[[0.5, None, 0.25]])
    step.clipping = [ClippingCall("norm", 1.0, num_gradients=2, num_micro_batches=2)]
    assert collect_settings(observed)["clipping"] == {
        "clipping": "norm to 1",
        "clipping covers": "all gradients",
        "clipping comes": "after the last backward",
    }
    step.clipping = [ClippingCall("norm", 1.0, num_gradients=1, num_micro_batches=1)]
    found = collect_settings(observed)["clipping"]
    assert found["clipping covers"] == "1 of 2 gradients"
    assert found["clipping comes"] == "before the last backward"
    step.clipping = [ClippingCall("norm", 1.0, num_micro_batches=2, is_before_unscale=True)]
    found = collect_settings(observed)["clipping"]
    assert "clipping covers" not in found
    assert found["clipping comes"] == "before the loss scale is taken off"


def test_batches_that_are_not_finite_are_told_where_there_are_any() -> None:
    observed = observe()
    name = "loader 0 batches that are not finite"
    assert name not in collect_settings(observed)["data"]
    observed.loaders[0].non_finite_batches = [3, 7]
    assert collect_settings(observed)["data"][name] == "3 7"


def test_matrices_that_were_filled_with_one_number_are_told() -> None:
    observed = observe()
    observed.deep_steps[0].parameters[0].are_rows_equal = True
    assert collect_settings(observed)["initialisation"]["matrices of equal rows"] == "a"


def test_names_are_those_of_the_model_though_a_copy_of_it_was_seen_later() -> None:
    observed = observe()
    copied = observe()
    copied.optimizers[0].groups[0].parameters = ["Net.b", "Net.a"]
    assert list_group_names(copied) == list_group_names(observed) == [[["b", "a"]]]
    assert collect_settings(copied) == collect_settings(observed)


def test_names_that_are_known_in_part_tell_no_difference() -> None:
    observed, in_part = observe(), observe()
    in_part.optimizers[0].groups[0].parameters = ["?0", "a"]
    found = collect_settings(in_part)["optimizer"]
    assert found["optimizer 0 group 0 parameters"] == "2 of 1,200 numbers"
    assert "optimizer 0 group 0 order" not in found
    assert not list_changes(collect_settings(observed), collect_settings(in_part))
    in_part.optimizers[0].groups[0].parameters = ["?0"]
    assert list_changes(collect_settings(observed), collect_settings(in_part))
