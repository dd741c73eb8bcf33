"""The truth about the faults of the gallery of `benchmarks.detection`: where each begins to act.

Written down before the comparison was seen, fault by fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.divergence.change import Truth
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA, RNG, INITIALISATION = Phase.DATA, Phase.RNG, Phase.INITIALISATION
FORWARD, LOSS, GRADIENTS = Phase.FORWARD, Phase.LOSS, Phase.GRADIENTS
CLIPPING, OPTIMIZER, SCHEDULE = Phase.CLIPPING, Phase.OPTIMIZER, Phase.SCHEDULE

ONE_PHASE: Mapping[Phase, tuple[str, ...]] = {
    DATA: (
        "targets-not-shifted",
        "targets-shifted-twice",
        "padding-scored",
        "all-targets-ignored",
        "trains-on-validation",
        "same-batch-every-step",
        "loader-restarted-every-step",
        "not-shuffled",
        "tenth-of-the-data",
        "epoch-cut-short",
        "nan-in-data",
        "constant-inputs",
        "constant-labels",
        "data-set-ignores-index",
    ),
    RNG: (
        "reseeded-every-step",
        "reseeded-each-epoch",
    ),
    INITIALISATION: (
        "wide-initialisation",
        "zero-initialisation",
        "constant-initialisation",
        "too-many-classes",
        "dead-units",
    ),
    FORWARD: (
        "double-softmax",
        "log-probabilities-into-cross-entropy",
        "sigmoid-before-cross-entropy",
        "half-precision-overflow",
        "left-in-eval",
        "never-in-training-mode",
        "causal-mask-missing",
        "causal-mask-off-by-one",
        "heads-and-positions-mixed",
        "attention-over-the-batch",
        "normalised-over-the-batch",
        "output-ignores-input",
        "positions-missing",
    ),
    LOSS: (
        "negated-loss",
        "probabilities-into-nll",
        "loss-spike",
        "log-of-zero",
        "loss-summed-over-batch",
        "exponential-overflow",
        "targets-out-of-range",
        "accumulation-not-divided",
        "accumulation-not-token-weighted",
        "accumulation-divided-twice",
        "generator-label-wrong",
        "backward-without-scale",
        "every-step-skipped",
        "loss-in-low-precision",
    ),
    GRADIENTS: (
        "cleared-inside-accumulation",
        "gradients-never-cleared",
        "gradients-of-head-cleared-only",
        "detached-in-the-middle",
        "backbone-without-gradient",
        "residual-detached",
        "noise-in-gradient",
        "frozen-after-first-epoch",
        "generator-detached-in-own-step",
        "discriminator-not-cleared",
        "discriminator-loss-reaches-generator",
    ),
    CLIPPING: (
        "clipped-after-step",
        "clipped-wrong-parameters",
        "clipped-copy",
        "clipped-before-backward",
        "clipped-far-too-low",
        "clipped-before-unscale",
    ),
    OPTIMIZER: (
        "maximize",
        "copied-optimizer",
        "norms-left-out",
        "backbone-left-out",
        "epsilon-too-large",
        "weight-decay-wild",
        "weight-decay-on-norms",
        "discriminator-never-updated",
        "generator-never-updated",
        "both-optimizers-over-generator",
        "generator-step-moves-discriminator",
    ),
    SCHEDULE: (
        "learning-rate-x100",
        "learning-rate-zero",
        "learning-rate-tiny",
        "schedule-per-micro-batch",
        "schedule-per-batch",
        "schedule-never-stepped",
        "schedule-before-optimizer",
        "schedule-too-short",
        "schedule-of-another-optimizer",
        "schedule-per-epoch",
        "warm-up-never-ends",
        "schedule-decays-to-nothing",
    ),
}
"""Faults that have one phase, and the same one in every program."""

NOT_IN_TRAINING = (
    "evaluated-with-gradient",
    "evaluates-the-first-weights",
    "ema-never-updated",
    "ema-decay-one",
    "ema-decay-inverted",
    "ema-of-a-copy",
    "checkpoint-misses-keys",
    "checkpoint-of-first-weights",
    "checkpoint-empty",
    "checkpoint-without-optimizer",
    "checkpoint-of-fresh-optimizer",
    "checkpoint-without-scheduler",
    "checkpoint-without-step",
    "checkpoint-without-generators",
    "checkpoint-without-ema",
    "checkpoint-step-stuck",
    "checkpoint-pickles-the-model",
    "checkpoint-truncated",
    "checkpoint-never-written",
    "checkpoint-before-training-only",
    "checkpoint-without-scaler",
    "logged-last-micro-batch",
    "logged-scaled",
    "logged-constant",
    "logged-twice",
    "logged-step-stuck",
    "logged-one-row-late",
    "logged-learning-rate-wrong",
    "log-unreadable",
    "losses-kept-with-graph",
    "never-steps",
)
"""Faults of logs, checkpoints, averages, evaluation and memory, and the one that trains not at all."""

WITH_REASON: Mapping[str, Truth] = {
    "nan-backward": Truth((LOSS, GRADIENTS), "A term of the loss that is 0; the gradient tells of it first."),
    "loss-cut-off": Truth((LOSS, GRADIENTS), "The loss keeps its value and loses its graph."),
    "step-inside-accumulation": Truth(
        (OPTIMIZER, DATA), "The optimizer steps elsewhere, so that a step has one micro-batch, not two."
    ),
    "cleared-after-backward": Truth((GRADIENTS,)),
    "backward-twice": Truth(
        (GRADIENTS, LOSS),
        "The loss reaches the gradient twice: a matter of the gradient as of the loss's scale.",
    ),
    "gradient-changed-after-clipping": Truth(
        (GRADIENTS, CLIPPING),
        "Between clipping and the step: both norms that one could ask for are in doubt.",
    ),
    "head-replaced-after-optimizer": Truth(
        (INITIALISATION, OPTIMIZER),
        "The head has other first values, and is not the one that the optimizer holds.",
    ),
    "layer-frozen-by-accident": Truth((GRADIENTS,)),
    "pure-bfloat16": Truth(
        (INITIALISATION, FORWARD),
        "The precision of the parameters, and so of all that is computed with them.",
    ),
    "optimizer-rebuilt-each-step": Truth(
        (OPTIMIZER, SCHEDULE),
        "State and schedule are lost in the same step: the schedule moves the first optimizer.",
    ),
    "optimizer-rebuilt-each-epoch": Truth(
        (OPTIMIZER, SCHEDULE),
        "State and schedule are lost in the same step: the schedule moves the first optimizer.",
    ),
    "weights-reset-each-epoch": Truth(
        (INITIALISATION,), "Parameters are set between two steps, by no optimizer."
    ),
    "ema-not-restored": Truth((INITIALISATION,), "Parameters are set between two steps, by no optimizer."),
    "evaluated-in-training-mode": Truth(
        (RNG,), "Training is the same, but for the draws that dropout makes in evaluation."
    ),
    "dropout-in-eval": Truth(
        (FORWARD, RNG),
        "The same dropout in training, as a function; evaluation draws, which moves the generator.",
    ),
    "batch-norm-never-moves": Truth(
        (FORWARD,), "Training does not use the averages; a setting of a module tells of it."
    ),
    "validated-on-training-data": Truth((DATA,), "Training is the same; evaluation is given other batches."),
    "validation-overlaps": Truth((DATA,), "Training is the same; evaluation is given other batches."),
    "labels-shuffled": Truth(
        (DATA, LOSS),
        "The labels are data; where the loop shuffles them, the loader's batch is still the same.",
    ),
    "workers-share-a-stream": Truth((DATA, RNG), "Augmentation draws from another generator."),
    "inputs-not-scaled": Truth((DATA, INITIALISATION), "It takes out a layer as well."),
    "checkpoint-of-another-model": Truth((RNG,), "Building a model draws, which moves the generator."),
    "discriminator-sees-no-real-data": Truth(
        (DATA, FORWARD), "The loader's batch is the same; the discriminator is called with something else."
    ),
    "step-without-unscale": Truth(
        (GRADIENTS, CLIPPING), "Gradients carry the loss scale, and clipping cuts them down to its bound."
    ),
}
"""Faults that need a word of explanation, or have two phases."""

EXCEPTIONS: Mapping[tuple[str, str], Truth] = {
    ("autoencoder", "double-softmax"): Truth((LOSS,), "The loss function does it, not the model."),
    ("language_model", "cleared-after-backward"): Truth(
        (GRADIENTS, CLIPPING), "They are cleared between clipping and the step."
    ),
    ("language_model", "layer-frozen-by-accident"): Truth(
        (GRADIENTS, OPTIMIZER), "Its optimizer leaves out what needs no gradient."
    ),
    ("hf_trainer", "layer-frozen-by-accident"): Truth(
        (GRADIENTS, OPTIMIZER), "Its optimizer leaves out what needs no gradient."
    ),
    ("lightning_trainer", "dropout-in-eval"): Truth((FORWARD,), "It drops twice in training."),
    ("gan", "evaluated-in-training-mode"): Truth(
        (),
        "Its evaluation draws from a generator of its own, and training does not use batch norm's averages.",
    ),
    ("gan", "constant-inputs"): Truth((DATA, RNG), "The noise is input and draw in one."),
    ("hf_trainer", "checkpoint-of-another-model"): Truth((), "It happens after the last step."),
    ("image_classifier", "validated-on-training-data"): Truth(
        (DATA, RNG), "Its training data draw their augmentation in evaluation too."
    ),
}
"""Where a program makes something else of a fault."""


def _collect() -> dict[str, Truth]:
    found = {name: Truth((phase,)) for phase, names in ONE_PHASE.items() for name in names}
    return found | {name: Truth() for name in NOT_IN_TRAINING} | dict(WITH_REASON)


TRUTHS = _collect()


def find_gallery_truth(program: str, fault: str) -> Truth:
    """The truth about a fault of the gallery in a program.

    Raises:
        KeyError: Nobody has said yet what is right for this fault.
    """
    return EXCEPTIONS.get((program, fault)) or TRUTHS[fault]
