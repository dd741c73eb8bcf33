"""Rules about samples: in evaluation and in training, their labels, and what workers make of them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers
from harness.rules.deep_steps import list_deep, observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loaders import (
    find_obstacle_to_loaders,
    is_for_evaluation,
    list_training_loaders,
    tell_loader,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.loader_observation import LoaderObservation, OverlapObservation
    from harness.record.run import TrainingRun

MIN_STEPS = 2
MIN_GROUPS = 3
MIN_COMPARED = 8
MIN_DEVIATIONS = 4.0
HELD_OUT = re.compile(r"(^|[/_ .-])(val|valid|validation|eval|test|dev|held_?out)([/_ .-]|$)", re.IGNORECASE)


def _find_obstacle_to_overlap(run: TrainingRun) -> str | None:
    obstacle = find_obstacle_to_loaders(run)
    if obstacle is not None or run.observed is None:
        return obstacle
    if not run.observed.overlaps:
        return "no DataLoader that only evaluates was read beside one that trains"
    if len(run.observed.optimizers) > 1 and not has_several_optimizers(run.observed):
        return "several optimizers one after the other: the data of one training may evaluate another"
    return None


def _check_overlap(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    later = [overlap for overlap in observed.overlaps if overlap.last_step > 0]
    found = [
        overlap
        for overlap in later
        if overlap.num_samples >= MIN_COMPARED and _estimate(overlap) > bounds["max_share"]
    ]
    if not found:
        return
    worst = max(found, key=_estimate)
    compared = {overlap.evaluation for overlap in observed.overlaps}
    has_held_out = any(overlap not in found for overlap in later) or any(
        is_for_evaluation(loader) and at not in compared for at, loader in enumerate(observed.loaders)
    )
    is_whole = _estimate(worst) >= bounds["whole_share"]
    if has_held_out and (is_whole or worst.is_same_dataset):
        # Beside data that are held out, those of the training are evaluated on purpose.
        return
    loader = observed.loaders[worst.evaluation]
    names = sorted(name for name in _list_metrics(run) if HELD_OUT.search(name))
    share = min(1.0, worst.share / max(worst.coverage, 1e-9))
    how = (
        "it reads the very data set that training reads"
        if worst.is_same_dataset
        else "by the contents of the samples, out of another data set object"
    )
    is_told = bool(names) or not worst.is_same_dataset
    told = f", and the program logs `{names[0]}`" if names else ""
    yield Evidence(
        message=f"about {share:.0%} of the {worst.num_samples} samples compared of "
        f"{tell_loader(loader)}, with which the "
        f"model is evaluated, are training data ({how}){told}.",
        cause="the loader for evaluation was built over the training data."
        if worst.is_same_dataset
        else "the split lets samples through on both sides, or both sides read the same file.",
        advice="build it over data that are held out; what it says now can't show overfitting."
        if is_whole
        else "split by something that keeps equal samples together, and check that nothing is shared.",
        subject=loader.dataset,
        step=worst.last_step,
        severity=None if is_told else Severity.NOTE,
    )


def _estimate(overlap: OverlapObservation) -> float:
    """The share of the evaluation's samples that are training data, beyond what equal samples explain."""
    if overlap.is_same_dataset:
        return overlap.share
    num, twins = overlap.num_samples, overlap.twin_share
    noise = MIN_DEVIATIONS * math.sqrt(twins * (1 - twins) / num)
    if overlap.share * num < MIN_COMPARED or twins >= 1 or overlap.share - twins <= noise:
        return 0.0
    return (overlap.share - twins) / (1 - twins) / max(overlap.coverage, 1e-9)


def _list_metrics(run: TrainingRun) -> set[str]:
    names = {name for step in run.logged for name in step.metrics}
    return names | {name for file in run.log_files for row in file.rows[:200] for name in row}


def _check_labels(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    deep_steps = list_deep(run)
    for loader in list_training_loaders(run):
        if loader.label_range is None or loader.num_label_batches < MIN_STEPS:
            continue
        low, high = loader.label_range
        calls = [
            [call for call in deep.loss_functions if call.is_training and call.label_range is not None]
            for _, deep in deep_steps
        ]
        is_used = len(calls) >= MIN_STEPS and all(
            step and all(call.label_range == (low, high) for call in step) for step in calls
        )
        if low != high or not is_used or len(calls[0][0].input_shape) < 2:  # noqa: PLR2004  rows by classes
            continue
        yield Evidence(
            message=f"every label that {tell_loader(loader)} gave is {low}, and so is every target of "
            f"`{calls[0][0].name}` over {calls[0][0].input_shape[1]} classes.",
            cause="labels that are read wrongly, or data of one class only: whatever the input, one answer is right.",
            advice="count the labels of the data set, and look at how they are made from what is stored.",
            subject=loader.dataset,
        )
        return


def _check_workers(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for loader in list_training_loaders(run):
        workers = loader.num_workers
        if workers < 2:  # noqa: PLR2004  one worker has nothing to share
            continue
        if _give_workers_the_same(loader):
            yield Evidence(
                message=f"the {workers} workers of {tell_loader(loader)} give the same batches: of "
                f"{len(loader.fingerprints)} batches, every {workers} in a row are equal.",
                cause="every worker reads the whole iterable data set: nothing shares it out between them.",
                advice="use torch.utils.data.get_worker_info() in __iter__ to give each worker its own part.",
                subject=loader.dataset,
            )
        elif loader.copied_generator is not None:
            yield Evidence(
                message=f"`{loader.dataset}` draws from a generator of its own, `{loader.copied_generator}`, and "
                f"{workers} workers each begin every pass with the same copy of it: their random numbers are equal, "
                "and repeat with every epoch.",
                cause="the generator is made in the data set's constructor and copied to the workers; only the global "
                "generators are seeded apart.",
                advice="draw from the global generator of torch, or make the generator in worker_init_fn from "
                "torch.initial_seed().",
                subject=loader.dataset,
            )


def _give_workers_the_same(loader: LoaderObservation) -> bool:
    prints, workers = loader.fingerprints, loader.num_workers
    first_pass = min(loader.epochs[0].num_batches, len(prints))
    groups = [set(prints[start : start + workers]) for start in range(0, first_pass - workers + 1, workers)]
    distinct = {min(group) for group in groups}
    return (
        loader.epochs[0].num_distinct is None
        and len(groups) >= MIN_GROUPS
        and all(len(group) == 1 for group in groups)
        and len(distinct) >= len(groups) - 1
    )


EVALUATED_ON_TRAINING_DATA = Rule(
    code="T814",
    name="evaluated-on-training-data",
    severity=Severity.WARNING,
    summary="Evaluation reads data that training does not.",
    explanation="""\
Which loader feeds a training and which an evaluation is told by the models that are called after its batches. Where
both read one data set object, or subsets of it, the indices of their first passes are compared; else the contents of
up to 4096 samples each, beyond what samples explain that equal one another within the training data.

A warning when the data are equal and the data set objects are not, or the program logs a metric that is called
validation or test; else a note. Silent where another loader evaluates on data that are held out, where nothing is
evaluated after the first step (statistics, targets computed in advance), and where optimizers follow one another, as
in cross-validation. Blind to batches that do not come from a DataLoader, and to samples that augmentation changes,
where the data set objects differ.""",
    cases=("an evaluation loader built over the training set", "duplicates on both sides of a random split"),
    bounds=(
        Bound("max_share", 0.1, "share of the evaluation's samples that may be training data"),
        Bound("whole_share", 0.9, "share from which on they are taken to be training data altogether"),
    ),
    find_obstacle=_find_obstacle_to_overlap,
    check=_check_overlap,
)
ONE_LABEL = Rule(
    code="T815",
    name="one-label",
    severity=Severity.WARNING,
    summary="Training data hold more than one label.",
    explanation="""\
A loader that training reads gave one and the same label with every sample of its first pass, and that label is the
only target of the classification losses on the steps watched in depth. Labels that the program makes itself, as for
contrastive learning with a queue, do not come from a loader; folders with one dummy class, as for generative models,
do not reach a classification loss. Both stay silent.""",
    cases=("labels parsed from the wrong part of a path",),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_labels,
    explains=("T1", "T3", "T4"),
)
WORKERS_ALIKE = Rule(
    code="T808",
    name="workers-alike",
    severity=Severity.WARNING,
    summary="Workers of a DataLoader share the data out and draw different random numbers.",
    explanation="""\
Batches of an iterable data set that come as often as there are workers; or a generator that the data set holds and
its `__getitem__` draws from, without a `worker_init_fn` and without seeding it there. The global generators of
Python, NumPy and PyTorch are seeded apart by PyTorch itself.

Blind to a generator that is used in a function which `__getitem__` calls.""",
    cases=(
        "augmentation repeated by every worker (pytorch#5059)",
        "an IterableDataset that every worker reads whole",
    ),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_workers,
)
RULES = (WORKERS_ALIKE, ONE_LABEL, EVALUATED_ON_TRAINING_DATA)
