"""Rules about the targets that a loss function is given."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loss_calls import (
    HARD,
    count_classes,
    count_targets,
    find_obstacle_to_calls,
    group_calls,
    has_labels,
    list_calls,
    tell_place,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun
    from harness.rules.loss_calls import Call

CAUSAL = re.compile(
    r"causal|gpt|llama|qwen|mistral|gemma|decoderonly|languagemodel|rwkv|mamba", re.IGNORECASE
)
LINEAR = ("addmm", "mm", "convolution", "add", "mkldnn_convolution")
MIN_LABELS = 16
MIN_LABELS_OF_FEW = 32
FEW = 50
SOME = 2
MAX_CLASSES_OF_NOTE = 64


def _check_ignored(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = [(step, call) for step, call in list_calls(run, *HARD) if has_labels(call)]
    empty = [(step, call) for step, call in calls if call.share_ignored == 1.0]
    if not empty:
        return
    step, first = empty[0]
    is_nan = any(call.value is not None and not math.isfinite(call.value) for _, call in empty)
    is_all = len(empty) == len(calls)
    if is_all:
        effect = "there is nothing to learn from"
    elif is_nan:
        effect = "the mean over none is NaN, and the gradient with it"
    else:
        effect = "such a micro-batch teaches nothing"
    yield Evidence(
        message=f"all targets of {first.name} are {first.ignore_index}, which it ignores "
        f"({tell_place(empty, len(calls))}): {effect}.",
        cause="a mask that covers the answer too, or a cut to the maximum length that leaves only the prompt.",
        advice="look at the labels of one batch beside its inputs, and leave samples without targets out.",
        subject=first.name,
        step=step,
        severity=None if is_all or is_nan else Severity.NOTE,
    )


ALL_IGNORED = Rule(
    code="T311",
    name="all-targets-ignored",
    severity=Severity.ERROR,
    summary="Every micro-batch has targets that count.",
    explanation="""\
An error when all targets of all calls watched are the ignored label, or when those of one call are and its mean is
therefore NaN. A note when some micro-batches have none and the loss stays finite.""",
    cases=("a prompt mask that covers the completion (trl#6668)", "truncation that cuts the answer off"),
    find_obstacle=find_obstacle_to_calls,
    check=_check_ignored,
    explains=("T1", "T2", "T4", "T5"),
)


def _check_shift(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = [(step, call) for step, call in list_calls(run, *HARD) if has_labels(call)]
    shifts = {call.target_shift for _, call in calls if call.target_shift is not None}
    if not shifts or 1 in shifts:
        return
    wrong = [(step, call) for step, call in calls if call.target_shift is not None]
    # What a model is called with by name is not known in time in its very first call.
    if 2 * len(wrong) < len(calls):
        return
    step, first = wrong[0]
    is_causal = _is_causal(run)
    shift = first.target_shift or 0
    if shift == 0:
        seen = "are the very tokens the model is called with, each at its place: copying is all there is to learn"
        cause = "targets that were never shifted by one, or a mask that ignores nothing."
    else:
        places = f"{abs(shift)} places {'ahead' if shift > 0 else 'back'}"
        seen = f"are the tokens the model is called with, moved {places} and not one ahead"
        cause = (
            "a shift in the data and another one in the loss."
            if shift > 1
            else "a shift in the wrong direction."
        )
    yield Evidence(
        message=f"the targets of {first.name} {seen} ({tell_place(wrong, len(calls))}).",
        cause=cause,
        advice="let position t predict token t + 1: logits[:, :-1] against tokens[:, 1:], in one place only.",
        subject=first.name,
        step=step,
        severity=Severity.ERROR if is_causal and shift == 0 else None,
    )


def _is_causal(run: TrainingRun) -> bool:
    deep_steps = run.observed.deep_steps if run.observed else []
    return any(CAUSAL.search(module.kind) for deep in deep_steps for module in deep.modules)


TARGETS_NOT_NEXT = Rule(
    code="T312",
    name="targets-not-next-tokens",
    severity=Severity.WARNING,
    summary="Targets made of the model's own input tokens are the following ones.",
    explanation="""\
Where the targets that count equal the model's input tokens moved by some number of places (98 % of them), that
number has to be one. 0 means that the model may copy its input; an error where the classes of its modules tell a
causal model (GPT, Llama, "Causal..."), else a warning, as copying may be the task. 2 means that the shift was made
twice, -1 that it went the other way.

Silent when some loss of the run has a shift of one, as with heads for several tokens and with decoders; and about
masked language models, whose targets are not what the model is called with.""",
    cases=(
        "labels that the model shifts already, shifted by the data too",
        "a language model trained on its own input (OpenJarvis#521)",
    ),
    find_obstacle=find_obstacle_to_calls,
    check=_check_shift,
)


def _check_padding(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    calls = [(step, call) for step, call in list_calls(run, *HARD) if has_labels(call)]
    scored = [
        (step, call)
        for step, call in calls
        if (call.share_padding or 0) > bounds["max_share"]
        and not call.has_weight
        and call.reduction != "none"
    ]
    if not scored:
        return
    step, first = scored[0]
    share = max(call.share_padding or 0 for _, call in scored)
    yield Evidence(
        message=f"padding is scored: token {first.padding_id} fills up the rows of the model's input, and up to "
        f"{share:.0%} of the targets that {first.name} counts are this token at filled-up places, where it ignores "
        f"{first.ignore_index} ({tell_place(scored, len(calls))}; at most {bounds['max_share']:.0%} allowed).",
        cause="targets padded with the token of the inputs and not with the label that the loss ignores.",
        advice=f"set the padded targets to {first.ignore_index}, or give the loss ignore_index={first.padding_id}.",
        subject=first.name,
        step=step,
    )


PADDING_SCORED = Rule(
    code="T313",
    name="padding-scored",
    severity=Severity.WARNING,
    summary="Padding is no target.",
    explanation="""\
A token is taken for padding when it fills up rows of different lengths of the model's input, in a quarter of them
for two places or more, and stands nowhere else. Then targets that are this token, at such places, and count, are
padding. The first one after a sequence is left out: it may stand for its end. So are losses with weights per class
and losses per sample, which a program masks itself.

Silent where the token occurs within sequences too, as the black of pixels read as tokens does.""",
    cases=("labels padded with the pad token, ignore_index left at -100",),
    bounds=(Bound("max_share", 0.01, "largest share of the targets that may be padding"),),
    find_obstacle=find_obstacle_to_calls,
    check=_check_padding,
    explains=("T1",),
)


def _check_labels(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for calls in group_calls([(step, call) for step, call in list_calls(run, *HARD) if has_labels(call)]):
        counted = [(step, call) for step, call in calls if call.label_range is not None]
        if not counted or count_classes(counted[0][1]) < 2 or is_contrastive(counted):  # noqa: PLR2004  as in T304
            continue
        ranges = [call.label_range for _, call in counted if call.label_range is not None]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        evidence = _judge_labels(counted, low, high)
        if evidence is not None:
            yield evidence
            return


def is_contrastive(calls: list[Call]) -> bool:
    """Whether classes are samples: labels that are positions, or scores that no head with a class per row made."""
    return any(call.are_labels_positions for _, call in calls) or any(
        call.made_by is not None and call.made_by not in LINEAR for _, call in calls
    )


def _judge_labels(calls: list[Call], low: int, high: int) -> Evidence | None:
    step, first = calls[0]
    classes = count_classes(first)
    num_labels = sum(count_targets(call) for _, call in calls)
    place = tell_place(calls, len(calls))
    is_per_sample = all(len(call.target_shape) == 1 and call.target_shift is None for _, call in calls)
    steps = {step for step, _ in calls}
    if low == high and num_labels >= MIN_LABELS and len(steps) > 1:
        return Evidence(
            message=f"all {num_labels} labels seen by {first.name} are class {low} of {classes} ({place}).",
            cause="labels that were lost on the way, such as a column of zeros, or data in the order of their classes.",
            advice="count the labels of the whole set, and shuffle it.",
            subject=first.name,
            step=step,
            # A few crops of an image or a volume may well be all background.
            severity=None if all(len(call.target_shape) <= 1 for _, call in calls) else Severity.NOTE,
        )
    if not is_per_sample or num_labels < MIN_LABELS_OF_FEW:
        return None
    used = high + 1
    if used * FEW <= classes:
        severity = Severity.WARNING
    elif classes <= MAX_CLASSES_OF_NOTE and used * SOME <= classes and num_labels >= 10 * classes:
        severity = Severity.NOTE
    else:
        return None
    return Evidence(
        message=f"{first.name} chooses from {classes} classes, and none of {num_labels} labels seen is above {high} "
        f"({place}).",
        cause="a head built for another set of labels, such as the 1000 classes that library models come with.",
        advice=f"build the head with {used} classes, or as many as the data have.",
        subject=first.name,
        step=step,
        severity=severity,
    )


FEW_LABELS = Rule(
    code="T314",
    name="labels-do-not-fit-classes",
    severity=Severity.WARNING,
    summary="Labels use the classes that the head has.",
    explanation="""\
A warning when every label of every step watched is one and the same class, over at least 16 labels in two steps;
and when none of at least 32 labels reaches a fiftieth of the classes. A note when not half of up to 64 classes
occur.

Silent about contrastive losses, whose classes are samples (labels 0, 1, 2, ...; scores that no linear layer or
convolution made, as with a temperature), and about tokens, which may use a part of a vocabulary. Labels of
adversarial training are of one class in every call, and of two over all.

A slice of data in the order of their classes looks the same as labels that are all one. A label per pixel that is
always the same is a note: a few crops may be all background.""",
    cases=("a head with 1000 classes for ten", "labels read from the wrong column"),
    find_obstacle=find_obstacle_to_calls,
    check=_check_labels,
    explains=("T104",),
)

RULES = (ALL_IGNORED, TARGETS_NOT_NEXT, PADDING_SCORED, FEW_LABELS)
