"""Rules about the numbers that a model is called with."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from harness.rules.deep_steps import find_obstacle_to_deep, list_deep, observed_of, tell_steps
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loaders import list_training_loaders, tell_loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation, InputObservation
    from harness.record.run import TrainingRun

MIN_NUMBERS = 16
MIN_STEPS = 2
MIN_COUNTED = 8


def _check_finite(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    is_loss_broken = any(not math.isfinite(step.loss or 0.0) for step in observed.steps)
    severity = Severity.ERROR if is_loss_broken else Severity.NOTE
    follows = "and the loss is not finite either" if is_loss_broken else "though the loss stays finite"
    broken = next((loader for loader in list_training_loaders(run) if loader.non_finite_batches), None)
    advice = "find the samples (torch.isfinite over the data set), and leave them out or fill them in."
    cause = "missing values or a preprocessing that divides by zero or takes the logarithm of zero."
    if broken is not None:
        first = broken.non_finite_batches[0]
        yield Evidence(
            message=f"{tell_loader(broken)} gave inputs that are not finite in {len(broken.non_finite_batches)} of the "
            f"first {broken.num_checked_batches} batches, first in batch {first} of its first pass, {follows}.",
            cause=cause,
            advice=advice,
            subject=broken.dataset,
            severity=severity,
        )
        return
    for _, deep in list_deep(run):
        tensor = next((tensor for tensor in deep.inputs if tensor.num_nan), None)
        if tensor is not None:
            yield Evidence(
                message=f"the model is called with {tensor.num_nan} NaN in an input of shape {tensor.shape} at step "
                f"{deep.step}, {follows}.",
                cause=cause,
                advice=advice,
                subject="inputs",
                step=deep.step,
                severity=severity,
            )
            return


def _check_constant(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    deep_steps = [deep for _, deep in list_deep(run) if deep.inputs]
    if len(deep_steps) < MIN_STEPS or observed_of(run).environments:
        return
    if not all(_is_looked_at(deep) for deep in deep_steps):
        return
    steps = tell_steps([deep.step for deep in deep_steps])
    shape = deep_steps[0].inputs[0].shape
    tensors = [tensor for deep in deep_steps for tensor in deep.inputs if not _is_mask(tensor)]
    if not tensors:
        return
    if all(map(_is_constant, tensors)):
        values = sorted({tensor.minimum or 0.0 for tensor in tensors})
        yield Evidence(
            message=f"every number that the model is called with is {values[0]:g} at {steps} (shape {shape})."
            if len(values) == 1
            else f"each tensor that the model is called with holds one number only at {steps} (shape {shape}).",
            cause="what was read never reaches the batch: a buffer that is not filled, a mask applied to everything, "
            "a product with zero.",
            advice="print one batch, from the file on and after each transform.",
            subject="inputs",
            step=deep_steps[0].step,
        )
    elif all(tensor.are_samples_equal for tensor in tensors if len(tensor.shape) > 1):
        yield Evidence(
            message=f"all samples of a batch are the same at {steps} (shape {shape}).",
            cause="the data set gives the same sample for every index, or one sample is repeated to a batch.",
            advice="compare dataset[0] and dataset[1], and what the collate function makes of them.",
            subject="inputs",
            step=deep_steps[0].step,
        )


def _is_looked_at(deep: DeepObservation) -> bool:
    first = max(deep.inputs, key=lambda tensor: math.prod(tensor.shape))
    return len(first.shape) > 1 and first.shape[0] > 1 and math.prod(first.shape) >= MIN_NUMBERS


def _is_mask(tensor: InputObservation) -> bool:
    """Whether it may tell which positions count; single numbers, such as how many do, are none of the inputs."""
    is_whole = "float" not in tensor.dtype
    return not tensor.shape or (is_whole and (tensor.minimum, tensor.maximum) == (0.0, 1.0))


def _is_constant(tensor: InputObservation) -> bool:
    return tensor.minimum is not None and tensor.minimum == tensor.maximum


def _check_scale(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found = [
        (
            deep.step,
            max((_find_size(tensor) for tensor in deep.inputs if _is_measured(tensor)), default=0.0),
        )
        for _, deep in list_deep(run)
        if deep.inputs
    ]
    if len(found) >= MIN_STEPS and all(size > bounds["max_size"] for _, size in found):
        step, size = found[0]
        yield Evidence(
            message=f"the inputs have a mean or a spread of {size:.3g} at step {step}, and above "
            f"{bounds['max_size']:g} "
            f"at {tell_steps([step for step, _ in found])}.",
            cause="inputs in their raw unit; layers are made for a mean near 0 and a spread near 1.",
            advice="subtract the mean and divide by the standard deviation of the training data.",
            subject="inputs",
            step=step,
        )


def _is_measured(tensor: InputObservation) -> bool:
    return (
        "float" in tensor.dtype
        and len(tensor.shape) > 1
        and math.prod(tensor.shape) >= MIN_NUMBERS
        and tensor.mean is not None
    )


def _find_size(tensor: InputObservation) -> float:
    return max(abs(tensor.mean or 0.0), tensor.std or 0.0)


def _check_last_batch(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    norms = [
        module.name
        for _, deep in list_deep(run)[:1]
        for module in deep.modules
        if "BatchNorm" in module.kind and module.is_training
    ]
    steps = [step for step in observed_of(run).steps if step.num_samples and len(step.batch_shapes) == 1]
    if not norms or len(steps) < MIN_COUNTED:
        return
    usual = statistics.median(step.num_samples or 0 for step in steps)
    tiny = [step for step in steps if (step.num_samples or 0) <= bounds["max_samples"]]
    if not tiny or usual < 4 * bounds["max_samples"] or len(tiny) > 0.2 * len(steps):
        return
    yield Evidence(
        message=f"{len(tiny)} of {len(steps)} steps have {tiny[0].num_samples} "
        f"sample{'s' * (tiny[0].num_samples != 1)} "
        f"only, usually {usual:.0f}, and `{norms[0]}` takes its statistics from them.",
        cause="the last batch of an epoch is what is left over.",
        advice="drop_last=True in training, or a batch size that leaves more over.",
        subject=norms[0],
        step=tiny[0].step,
    )


NON_FINITE_INPUTS = Rule(
    code="T811",
    name="non-finite-inputs",
    severity=Severity.ERROR,
    summary="Inputs hold neither NaN nor infinity.",
    explanation="""\
The first 4096 samples of every DataLoader (the largest tensor of each batch), and what the model is called with on
steps watched in depth, where NaN alone counts, as masks hold minus infinity on purpose. An error when a loss is not
finite as well; else a note, as a model may fill in missing values itself. Blind to samples that come later.""",
    cases=("one damaged file among thousands", "the logarithm of a silent recording"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_finite,
    explains=("T2", "T1", "T4", "T5", "A1"),
)
CONSTANT_INPUTS = Rule(
    code="T812",
    name="constant-inputs",
    severity=Severity.WARNING,
    summary="What the model is called with differs from number to number and from sample to sample.",
    explanation="""\
Every step watched in depth (two at least) calls the model with tensors that hold one number each, or with batches in
which all samples are equal. Any input that varies keeps it silent, masks of 0 and 1 aside, and so do inputs of one
dimension, batches of one sample and fewer than 16 numbers. Arguments that `forward` calls label or target are not
counted.""",
    cases=("a buffer that the collate function never fills", "an image multiplied by an empty mask"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_constant,
    explains=("T1", "T9", "T801", "T4"),
)
INPUTS_OUT_OF_SCALE = Rule(
    code="T813",
    name="inputs-out-of-scale",
    severity=Severity.NOTE,
    summary="Inputs are normalised to the order of one.",
    explanation="""\
Mean or standard deviation of an input of floating type with two dimensions or more, on every step watched in depth.
Images of 0 to 255 stay below the bound. A note only: a model may begin with a norm of its own.""",
    cases=("raw sensor units fed to a network without a norm",),
    bounds=(Bound("max_size", 300.0, "largest mean or standard deviation of the inputs"),),
    find_obstacle=find_obstacle_to_deep,
    check=_check_scale,
)
TINY_LAST_BATCH = Rule(
    code="T816",
    name="tiny-batch",
    severity=Severity.NOTE,
    summary="Batch norms do not train on a sample or two left over.",
    explanation="""\
Steps with next to no samples where most have many times as many, in a model with a batch norm in training mode.""",
    cases=("a last batch of two samples, which moves the running statistics far off",),
    bounds=(Bound("max_samples", 2.0, "samples up to which a batch is tiny"),),
    find_obstacle=find_obstacle_to_deep,
    check=_check_last_batch,
)

RULES = (NON_FINITE_INPUTS, CONSTANT_INPUTS, INPUTS_OUT_OF_SCALE, TINY_LAST_BATCH)
