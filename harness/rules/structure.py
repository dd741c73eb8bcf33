"""Rules about what the outputs of a model depend on, as a copy of it showed after the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun

BATCH_STEP = "called in eval mode after the run, with the batch of step"


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched"
    probes = run.observed.probes
    if not probes:
        return "no model could be probed after the run"
    obstacle = probes[0].obstacle
    return None if obstacle is None else f"{probes[0].module} could not be probed after the run: {obstacle}"


def _check_future(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for probe in observed_of(run).probes:
        change = probe.future_change or 0.0
        if change <= bounds["max_change"]:
            continue
        yield Evidence(
            message=f"{probe.module} sees the tokens that it is trained to predict: with other tokens later in the "
            f"sequence, outputs before them change, at position {probe.future_position} of {probe.future_length} by "
            f"{change:.1%} of the largest (allowed {bounds['max_change']:g}; {BATCH_STEP} {probe.step}).",
            cause="a causal mask that is missing, inverted or off by one; a reshape that mixes positions; or a "
            "normalisation over the sequence.",
            advice="change one token of an input and find the first module whose outputs before it change.",
            subject=probe.module,
            step=probe.step,
        )


def _check_samples(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for probe in observed_of(run).probes:
        change = probe.sample_change or 0.0
        if change <= bounds["max_change"]:
            continue
        yield Evidence(
            message=f"the samples of a batch see each other in {probe.module}: with another sample in the last or "
            f"first place, outputs of the others change by up to {change:.1%} of the largest (allowed "
            f"{bounds['max_change']:g}; {BATCH_STEP} {probe.step}).",
            cause="attention or a reshape over the wrong dimension, or statistics of the batch used in evaluation; "
            "only models that compare the samples of a batch do so on purpose.",
            advice="call it with one sample alone and within a batch, and find the first module whose outputs differ.",
            subject=probe.module,
            step=probe.step,
        )


def _check_constant(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for probe in observed_of(run).probes:
        if not probe.is_constant or probe.step < bounds["min_step"]:
            continue
        yield Evidence(
            message=f"the output of {probe.module} is the same, to the last bit, whatever sample it is given "
            f"({BATCH_STEP} {probe.step}).",
            cause="features that are lost on their way: multiplied by 0, cut off by units that are dead, or another "
            "variable used in their place.",
            advice="print the outputs of the modules for two samples, and find where they become equal.",
            subject=probe.module,
            step=probe.step,
        )


def _check_positions(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for probe in observed_of(run).probes:
        if not probe.ignores_position or probe.step < bounds["min_step"]:
            continue
        yield Evidence(
            message=f"{probe.module} has a parameter for positions, and one token at all {probe.future_length} "
            f"positions gives the same output at all of them: it can't tell positions apart "
            f"({BATCH_STEP} {probe.step}).",
            cause="the positions given to the embedding are all the same, or it is never added.",
            advice="look at what the position embedding is called with: it should be 0, 1, 2, ...",
            subject=probe.module,
            step=probe.step,
        )


MIN_STEP = Bound("min_step", 10, "first step after which outputs are expected to depend on something")

FUTURE_LEAK = Rule(
    code="T901",
    name="future-leak",
    severity=Severity.ERROR,
    summary="A model that predicts the next token does not see it.",
    explanation="""\
After the run a copy of the model, in eval mode, is called with the batch of a deep step and with the same batch with
other tokens in its second half, and in its last place; outputs before these must not change by more than `max_change`.

Only where the labels of the loss on that step were the model's own input tokens, shifted by one, and only at positions
that are scored: masked language models, encoders, classifiers, and prefixes that may see themselves are not judged. In
a mixture of experts with a limited capacity later tokens can displace earlier ones; that is a leak too.

Not tried on compiled and distributed models, on those above 32 MiB or slow to call, on those that are random in eval
mode, and where the loss is not one of torch's functions.""",
    cases=("causal masks that do nothing (xformers#103)", "a mask that is off by one"),
    bounds=(Bound("max_change", 1e-4, "largest change of an output, as a share of the largest output"),),
    find_obstacle=_find_obstacle,
    check=_check_future,
    explains=("T1",),
)

SAMPLES_MIXED = Rule(
    code="T902",
    name="samples-see-each-other",
    severity=Severity.WARNING,
    summary="The output of a sample does not depend on the others of its batch, in eval mode.",
    explanation="""\
After the run a copy of the model, in eval mode, is called with a batch and with the same batch with another sample in
the last place, or the first; outputs of the other samples must not change by more than `max_change`.

Only where all inputs have the batch size of a DataLoader as their first dimension, and no other: graphs, sequence-first
batches and unbatched sequences are not judged, nor are outputs that compare all samples with all. Batch norm in eval
mode is fine, and so are losses over the batch.""",
    cases=("attention over the batch (transformers#46634)", "features centred with the mean of their batch"),
    bounds=(Bound("max_change", 1e-3, "largest change of an output, as a share of the largest output"),),
    find_obstacle=_find_obstacle,
    check=_check_samples,
)

OUTPUT_CONSTANT = Rule(
    code="T903",
    name="output-ignores-input",
    severity=Severity.WARNING,
    summary="The output of a model depends on its input.",
    explanation="""\
After the run a copy of the model, in eval mode, is called with a batch and with its samples in other places; not one
bit of the output changed. Not judged before step `min_step`: heads that begin at 0 give 0 for everything. Silent where
the model returns a loss only, which is the same in any order.""",
    cases=("features multiplied by a mask that is all 0", "a layer of dead units"),
    bounds=(MIN_STEP,),
    find_obstacle=_find_obstacle,
    check=_check_constant,
    explains=("T1",),
)

POSITIONS_IGNORED = Rule(
    code="T904",
    name="positions-ignored",
    severity=Severity.WARNING,
    summary="A model with a parameter for positions can tell them apart.",
    explanation="""\
Where a model predicts the next token and has a parameter with `pos` in its name, a copy of it is called after the run
with one token at all positions; its outputs must not all be the same. Models without such a parameter may do without
positions on purpose. Not judged before step `min_step`.""",
    cases=("every position given the embedding of the first",),
    bounds=(MIN_STEP,),
    find_obstacle=_find_obstacle,
    check=_check_positions,
)

RULES = (FUTURE_LEAK, SAMPLES_MIXED, OUTPUT_CONSTANT, POSITIONS_IGNORED)
