"""What a run was set up with, and in what two runs differ."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from harness.baselines.run_settings import collect_settings
from harness.baselines.setting_changes import SettingChange, list_changes
from harness.baselines.trajectory import Phase
from harness.record.deep import (
    DeepObservation,
    LossFunctionObservation,
    ParameterObservation,
    UnheldParameter,
)
from harness.record.observation import (
    ClippingCall,
    EpochObservation,
    LoaderObservation,
    OptimizerGroup,
    OptimizerObservation,
    RunObservation,
    SchedulerObservation,
    StepObservation,
)

if TYPE_CHECKING:
    from harness.baselines.trajectory import Settings


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


def test_settings_of_an_optimizer_leave_out_how_it_computes_and_what_is_off() -> None:
    found = collect_settings(observe())["optimizer"]
    parameters = found.pop("optimizer 0 group 0 parameters")
    assert parameters.startswith("2 of 1,200 numbers (")
    assert found == {
        "optimizer 0": "AdamW",
        "optimizer 0 group 0 betas": [0.9, 0.999],
        "optimizer 0 group 0 weight_decay": 0.0,
        "optimizer 0 group 0 momentum": 0.3,
        "optimizer 0 group 0 root": 0.282842712,
        "optimizer 0 group 0 limit": "inf",
    }


def test_a_run_that_was_watched_lightly_has_the_settings_that_were_seen() -> None:
    light = observe()
    light.deep_steps, light.modules, light.numerics = [], {}, {}
    assert not {"initialisation", "forward", "loss"} & collect_settings(light).keys()
    # What one of them does not tell is no difference.
    assert list_changes(collect_settings(observe()), collect_settings(light)) == []


def test_changes_are_listed_in_the_order_of_phases_and_say_what_is_new_or_gone() -> None:
    before: Settings = {"schedule": {"rate": 0.1}, "data": {"size": 8, "drop": True}}
    after: Settings = {"schedule": {"rate": 0.3}, "data": {"size": 8, "shuffle": True}}
    changes = list_changes(before, after)
    assert changes == [
        SettingChange(Phase.DATA, "drop", True, None),
        SettingChange(Phase.DATA, "shuffle", None, True),
        SettingChange(Phase.SCHEDULE, "rate", 0.1, 0.3),
    ]
    assert [str(change) for change in changes] == [
        "drop is gone (was True)", "shuffle is new: True", "rate: 0.1 -> 0.3",
    ]  # fmt: skip


def test_orders_of_passes_that_did_not_go_equally_far_are_not_compared() -> None:
    name = "loader 0 order of pass 2"
    assert not list_changes({"data": {name: "aa/8"}}, {"data": {name: "bb/16"}})
    assert not list_changes({"data": {name: "aa/8"}}, {"data": {}})
    assert list_changes({"data": {name: "aa/8"}}, {"data": {name: "bb/8"}})
