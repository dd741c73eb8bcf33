from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.deep import DeepObservation, InputObservation, LossFunctionObservation, ModuleObservation
from harness.record.loader_observation import EpochObservation, LoaderObservation, OverlapObservation
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerObservation
from harness.record.run import Step
from harness.record.step_observation import StepObservation
from harness.rules import data_coverage, data_inputs, data_order, data_samples
from harness.rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding, Rule

    MakeRun = Callable[..., TrainingRun]

DEEP = (0, 1, 10)


def observe(loaders: list[LoaderObservation] | None = None, **changes: Any) -> RunObservation:
    """Sixteen steps of one optimizer, three of them deep, each with a batch of its own."""
    whole: dict[str, Any] = {
        "steps": [
            StepObservation(step, loss=2.0 - step / 16, optimizers=[0], num_micro_batches=1)
            for step in range(16)
        ],
        "deep_steps": [
            DeepObservation(
                step,
                batch_fingerprints=[f"batch {step}"],
                rng_fingerprints={"torch": f"begin {step}"},
                rng_fingerprints_after={"torch": f"end {step}"},
                inputs=[
                    InputObservation((8, 4), "float32", -1.0, 1.0, 0.1 * step, 1.0, are_samples_equal=False)
                ],
            )
            for step in DEEP
        ],
        "optimizers": [OptimizerObservation("SGD", [])],
        "loaders": loaders or [],
    }
    return RunObservation(**whole | changes)


def make_loader(*epochs: EpochObservation, **changes: Any) -> LoaderObservation:
    """A shuffled loader of 64 samples in batches of 8 that trains."""
    whole: dict[str, Any] = {
        "dataset": "Points",
        "num_samples": 64,
        "batch_size": 8,
        "num_workers": 0,
        "sampler": "RandomSampler",
        "drop_last": False,
        "epochs": list(epochs) or [make_epoch(0, "a"), make_epoch(8, "b")],
        "is_shuffled": True,
        "num_training_batches": 16,
    }
    return LoaderObservation(**whole | changes)


def make_epoch(after_step: int, order: str, **changes: Any) -> EpochObservation:
    return replace(EpochObservation(after_step, 8, 64, 64, order, is_complete=True), **changes)


def apply(rule: Rule, run: TrainingRun) -> list[Finding]:
    obstacle = rule.find_obstacle(run)
    assert obstacle is None, obstacle
    return rule.apply(run)


def same_batches() -> list[DeepObservation]:
    return [replace(deep, batch_fingerprints=["same"], inputs=[]) for deep in observe().deep_steps]


def with_inputs(**changes: Any) -> list[DeepObservation]:
    return [replace(deep, inputs=[replace(deep.inputs[0], **changes)]) for deep in observe().deep_steps]


SEQUENTIAL: dict[str, Any] = {"is_shuffled": False, "sampler": "SequentialSampler"}
ONE_BATCH = [make_epoch(step, "a", num_batches=1, is_complete=False) for step in range(4)]


@pytest.mark.parametrize(
    ("rule", "observed", "severity", "message"),
    [
        (
            data_order.SAME_BATCH,
            observe([make_loader(*ONE_BATCH, **SEQUENTIAL)]),
            Severity.WARNING,
            "was started anew 4 times",
        ),
        (
            data_order.SAME_BATCH,
            observe(
                [make_loader(make_epoch(0, "a", num_batches=1, is_complete=False))], deep_steps=same_batches()
            ),
            Severity.WARNING,
            "has 8 batches; 1 of them was read",
        ),
        (
            data_order.SAME_BATCH,
            observe(deep_steps=same_batches()),
            Severity.NOTE,
            "the same batch at steps 0, 1 and 10",
        ),
        (
            data_order.SAME_ORDER,
            observe([make_loader(make_epoch(0, "a"), make_epoch(8, "a"))]),
            Severity.WARNING,
            "2 passes one after the other gave their 64 samples in the very same order",
        ),
        (
            data_order.GENERATORS_RESET,
            observe(
                deep_steps=[
                    replace(deep, rng_fingerprints={"torch": "same"}) for deep in observe().deep_steps
                ]
            ),
            Severity.WARNING,
            "`torch`",
        ),
        (
            data_coverage.DATA_LEFT_OUT,
            observe([make_loader(*(replace(epoch, num_batches=2) for epoch in ONE_BATCH), **SEQUENTIAL)]),
            Severity.WARNING,
            "75% of the data never reach training",
        ),
        (
            data_coverage.DATA_LEFT_OUT,
            observe([make_loader(make_epoch(0, "a", num_distinct=9), sampler="SubsetRandomSampler")]),
            Severity.WARNING,
            "each 7 times",
        ),
        (
            data_coverage.DATA_LEFT_OUT,
            observe(
                [
                    make_loader(
                        make_epoch(0, "a", num_indices=9, num_distinct=9), sampler="SubsetRandomSampler"
                    )
                ]
            ),
            Severity.NOTE,
            "draw 9 of them (14%)",
        ),
        (
            data_coverage.EMPTY_LOADER,
            observe([make_loader(make_epoch(0, "a", num_batches=0), num_samples=4, drop_last=True)]),
            Severity.WARNING,
            "was read 1 times and never gave a batch",
        ),
        (
            data_coverage.EMPTY_LOADER,
            observe([make_loader(make_epoch(0, "a"), make_epoch(8, "a", num_batches=0))]),
            Severity.WARNING,
            "in 1 of its 2 passes",
        ),
        (data_coverage.NOT_SHUFFLED, observe([make_loader(**SEQUENTIAL)]), Severity.NOTE, "does not shuffle"),
        (
            data_coverage.NOT_SHUFFLED,
            observe(
                [make_loader(**SEQUENTIAL, label_range=(0, 3), num_label_batches=8, num_one_label_batches=7)]
            ),
            Severity.WARNING,
            "7 of 8 batches hold one label only (of 0 to 3)",
        ),
        (
            data_inputs.NON_FINITE_INPUTS,
            observe(
                [make_loader(non_finite_batches=[5], num_checked_batches=8)],
                steps=[StepObservation(0, loss=math.nan, optimizers=[0])],
            ),
            Severity.ERROR,
            "in 1 of the first 8 batches, first in batch 5",
        ),
        (data_inputs.NON_FINITE_INPUTS, observe(deep_steps=with_inputs(num_nan=3)), Severity.NOTE, "3 NaN"),
        (
            data_inputs.CONSTANT_INPUTS,
            observe(deep_steps=with_inputs(minimum=0.0, maximum=0.0)),
            Severity.WARNING,
            "every number that the model is called with is 0",
        ),
        (
            data_inputs.CONSTANT_INPUTS,
            observe(deep_steps=with_inputs(are_samples_equal=True)),
            Severity.WARNING,
            "all samples of a batch are the same",
        ),
        (data_inputs.INPUTS_OUT_OF_SCALE, observe(deep_steps=with_inputs(std=5e3)), Severity.NOTE, "5e+03"),
        (
            data_inputs.TINY_LAST_BATCH,
            observe(
                steps=[
                    StepObservation(step, num_samples=1 if step == 9 else 32, batch_shapes=[[(32, 4)]])
                    for step in range(16)
                ],
                deep_steps=[DeepObservation(0, modules=[ModuleObservation("norm", "BatchNorm1d", 1)])],
            ),
            Severity.NOTE,
            "1 of 16 steps have 1 sample only, usually 32",
        ),
        (
            data_samples.WORKERS_ALIKE,
            observe(
                [
                    make_loader(
                        make_epoch(0, "a", num_distinct=None),
                        num_workers=2,
                        fingerprints=["a", "a", "b", "b", "c", "c", "d", "d"],
                    )
                ]
            ),
            Severity.WARNING,
            "every 2 in a row are equal",
        ),
        (
            data_samples.WORKERS_ALIKE,
            observe([make_loader(num_workers=3, copied_generator="noise")]),
            Severity.WARNING,
            "3 workers each begin every pass with the same copy",
        ),
        (
            data_samples.ONE_LABEL,
            observe(
                [make_loader(label_range=(1, 1), num_label_batches=8, num_one_label_batches=8)],
                deep_steps=[
                    replace(
                        deep,
                        loss_functions=[
                            LossFunctionObservation(
                                "cross_entropy", (8, 4), (8,), "float32", "int64", "mean", label_range=(1, 1)
                            )
                        ],
                    )
                    for deep in observe().deep_steps
                ],
            ),
            Severity.WARNING,
            "every target of `cross_entropy` over 4 classes",
        ),
        (
            data_samples.EVALUATED_ON_TRAINING_DATA,
            observe(
                [make_loader(), make_loader(num_training_batches=0, num_evaluation_batches=4)],
                overlaps=[OverlapObservation(1, False, 32, 0.5, coverage=0.5, last_step=8)],
            ),
            Severity.WARNING,
            "about 100% of the 32 samples",
        ),
        (
            data_samples.EVALUATED_ON_TRAINING_DATA,
            observe(
                [make_loader(), make_loader(num_training_batches=0, num_evaluation_batches=4)],
                overlaps=[OverlapObservation(1, True, 64, 1.0, last_step=8)],
            ),
            Severity.NOTE,
            "it reads the very data set that training reads",
        ),
    ],
)
def test_faults_of_data_are_told(
    make_run: MakeRun, rule: Rule, observed: RunObservation, severity: Severity, message: str
) -> None:
    (finding,) = apply(rule, make_run(observed=observed))
    assert finding.code == rule.code
    assert finding.severity is severity
    assert message in finding.message


@pytest.mark.parametrize(
    "rule", [*data_order.RULES, *data_coverage.RULES, *data_inputs.RULES, *data_samples.RULES]
)
def test_a_clean_training_has_no_finding_about_data(make_run: MakeRun, rule: Rule) -> None:
    run = make_run(observed=observe([make_loader()]))
    assert rule.find_obstacle(run) is not None or rule.apply(run) == []


@pytest.mark.parametrize(
    ("rule", "observed"),
    [
        # Started anew, but shuffled each time.
        (
            data_order.SAME_BATCH,
            observe([make_loader(*(replace(epoch, order=str(at)) for at, epoch in enumerate(ONE_BATCH)))]),
        ),
        # One batch is all the data.
        (
            data_order.SAME_BATCH,
            observe(
                [make_loader(make_epoch(0, "a", num_batches=1), batch_size=64)], deep_steps=same_batches()
            ),
        ),
        # A second training with a new optimizer begins as the first one did.
        (
            data_order.SAME_ORDER,
            observe(
                [make_loader(make_epoch(0, "a"), make_epoch(8, "a"))],
                steps=[StepObservation(step, optimizers=[step // 8]) for step in range(16)],
            ),
        ),
        (
            data_order.SAME_ORDER,
            observe([make_loader(make_epoch(0, "a"), make_epoch(8, "a"), is_shuffled=False)]),
        ),
        # Nobody draws from the generator.
        (
            data_order.GENERATORS_RESET,
            observe(
                deep_steps=[
                    replace(
                        deep, rng_fingerprints={"torch": "same"}, rng_fingerprints_after={"torch": "same"}
                    )
                    for deep in observe().deep_steps
                ]
            ),
        ),
        # One pass that ends early, as of a run that was stopped.
        (
            data_coverage.DATA_LEFT_OUT,
            observe([make_loader(make_epoch(0, "a", num_batches=3, is_complete=False), **SEQUENTIAL)]),
        ),
        (
            data_coverage.DATA_LEFT_OUT,
            observe([make_loader(make_epoch(0, "a", num_distinct=20), sampler="WeightedRandomSampler")]),
        ),
        # A mask of minus infinity, labels all of one class that a contrastive loss makes itself.
        (data_inputs.NON_FINITE_INPUTS, observe(deep_steps=with_inputs(num_inf=3))),
        (data_inputs.CONSTANT_INPUTS, observe(deep_steps=with_inputs(shape=(8,), minimum=1.0, maximum=1.0))),
        (data_samples.ONE_LABEL, observe([make_loader(label_range=(0, 0), num_label_batches=8)])),
        (data_samples.WORKERS_ALIKE, observe([make_loader(num_workers=1, copied_generator="noise")])),
        # Held-out data beside the training data, and a pass before the first step alone.
        (
            data_samples.EVALUATED_ON_TRAINING_DATA,
            observe(
                [make_loader()] * 3,
                overlaps=[
                    OverlapObservation(1, False, 32, 1.0, last_step=8),
                    OverlapObservation(2, False, 32, 0.0, last_step=8),
                ],
            ),
        ),
        (
            data_samples.EVALUATED_ON_TRAINING_DATA,
            observe([make_loader()] * 2, overlaps=[OverlapObservation(1, False, 32, 1.0, last_step=0)]),
        ),
        # Samples of an artificial language that equal one another.
        (
            data_samples.EVALUATED_ON_TRAINING_DATA,
            observe(
                [make_loader()] * 2,
                overlaps=[OverlapObservation(1, False, 32, 0.5, twin_share=0.4, last_step=8)],
            ),
        ),
    ],
)
def test_look_alikes_are_silent(make_run: MakeRun, rule: Rule, observed: RunObservation) -> None:
    assert apply(rule, make_run(observed=observed)) == []


def test_training_data_logged_as_validation_are_a_warning(make_run: MakeRun) -> None:
    observed = observe([make_loader()] * 2, overlaps=[OverlapObservation(1, True, 64, 1.0, last_step=8)])
    logged = [Step(step, {"val_loss": 1.0 / (step + 1)}) for step in range(4)]
    (finding,) = apply(
        data_samples.EVALUATED_ON_TRAINING_DATA,
        make_run(observed=observed, logged=logged, logged_source="file"),
    )
    assert finding.severity is Severity.WARNING
    assert "the program logs `val_loss`" in finding.message


def test_what_was_seen_of_data_survives_the_record() -> None:
    observed = observe(
        [make_loader(label_range=(0, 3), copied_generator="noise")],
        overlaps=[OverlapObservation(0, True, 8, 0.5)],
    )
    assert RunObservation.from_json(observed.to_json()) == observed
