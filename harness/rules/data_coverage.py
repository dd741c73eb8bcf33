"""Rules about which of its data a training reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.loaders import count_batches, find_obstacle_to_loaders, list_training_loaders, tell_loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.loader_observation import LoaderObservation
    from harness.record.run import TrainingRun

MIN_PASSES = 3
MIN_SAMPLES = 8
MIN_LOOKED_AT = 32
WITHOUT_REPLACEMENT = ("SubsetRandomSampler", "SequentialSampler")


def _check_coverage(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for loader in list_training_loaders(run):
        evidence = _find_cut_off(loader, run, bounds) or _find_subset(loader, run, bounds)
        if evidence is not None:
            yield evidence
            return


def _find_cut_off(
    loader: LoaderObservation, run: TrainingRun, bounds: Mapping[str, float]
) -> Evidence | None:
    """The end of the data that no pass reaches."""
    num_batches = count_batches(loader)
    longest = max(epoch.num_batches for epoch in loader.epochs)
    if loader.is_shuffled is not False or num_batches is None or loader.num_samples is None or longest < 2:  # noqa: PLR2004
        return None
    num_batches //= max(1, observed_of(run).world_size if loader.sampler == "DistributedSampler" else 1)
    is_cut = not any(epoch.is_complete for epoch in loader.epochs) and len(loader.epochs) >= MIN_PASSES
    if not is_cut or longest > bounds["max_share"] * num_batches:
        return None
    return Evidence(
        message=f"none of {len(loader.epochs)} passes over {tell_loader(loader)} went beyond batch {longest} of "
        f"{num_batches}, and it reads in order: {1 - longest / num_batches:.0%} of the data never reach training.",
        cause="a break or a limit of batches per epoch, perhaps left over from debugging.",
        advice="take the limit out, shuffle, or make the data set as small as it is meant to be.",
        subject=loader.dataset,
        step=loader.epochs[1].after_step,
    )


def _find_subset(loader: LoaderObservation, run: TrainingRun, bounds: Mapping[str, float]) -> Evidence | None:
    """What the sampler of whole passes leaves out, or draws several times instead."""
    whole = [
        epoch
        for epoch in loader.epochs
        if epoch.is_complete and epoch.num_distinct and epoch.num_distinct >= MIN_SAMPLES
    ]
    if not whole or loader.num_samples is None or loader.sampler not in WITHOUT_REPLACEMENT:
        return None
    most = max(epoch.num_distinct or 0 for epoch in whole)
    drawn = whole[0].num_indices
    if drawn >= bounds["min_repeats"] * most and most < 0.5 * loader.num_samples:
        return Evidence(
            message=f"a pass over {tell_loader(loader)} draws {drawn} samples, but only {most} different ones: each "
            f"{drawn / most:.0f} times, and {1 - most / loader.num_samples:.0%} of the data never.",
            cause="the list of indices that the sampler was given repeats itself.",
            advice=f"look at what {loader.sampler} was built with; len(set(indices)) should be len(indices).",
            subject=loader.dataset,
            step=whole[0].after_step,
        )
    others = [
        other
        for other in observed_of(run).loaders
        if other is not loader and (other.dataset, other.num_samples) == (loader.dataset, loader.num_samples)
    ]
    if most < bounds["min_subset"] * loader.num_samples and not others:
        return Evidence(
            message=f"whole passes over {tell_loader(loader)} draw {most} of them ({most / loader.num_samples:.0%}), "
            "and no other loader reads the rest.",
            cause="a sampler over a part of the data, on purpose or left over from debugging.",
            advice=f"look at what {loader.sampler} was built with.",
            subject=loader.dataset,
            severity=Severity.NOTE,
        )
    return None


def _check_repeats(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for loader in list_training_loaders(run):
        drawn = max((epoch.num_distinct or 0 for epoch in loader.epochs), default=0)
        most = bounds["max_different"] * min(drawn, loader.num_looked_at)
        if min(drawn, loader.num_looked_at) < MIN_LOOKED_AT or loader.num_different > most:
            continue
        yield Evidence(
            message=f"{tell_loader(loader)} was asked for {drawn} different samples, and of the first "
            f"{loader.num_looked_at} it gave only {loader.num_different} differ from one another "
            f"({loader.num_different / loader.num_looked_at:.1%}, allowed: more than {bounds['max_different']:.0%}).",
            cause="the data set does not use its index, or its list holds the same few objects again and again.",
            advice="compare dataset[0] with dataset[len(dataset) // 2].",
            subject=loader.dataset,
        )
        return


def _check_empty(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for loader in observed_of(run).loaders:
        empty = [epoch for epoch in loader.epochs if epoch.is_complete and not epoch.num_batches]
        if not empty:
            continue
        if len(empty) == len(loader.epochs):
            is_small = loader.drop_last and loader.num_samples and loader.batch_size
            cause = (
                f"drop_last leaves out the only batch: {loader.num_samples} samples are fewer than one batch of "
                f"{loader.batch_size}."
                if is_small
                else "the data set is empty, or a filter has left nothing."
            )
            seen = f"{tell_loader(loader)} was read {len(empty)} times and never gave a batch"
        else:
            cause = "it reads a generator that is used up after its first pass."
            seen = f"{tell_loader(loader)} gave no batch in {len(empty)} of its {len(loader.epochs)} passes"
        yield Evidence(
            message=f"{seen}; what loops over it does nothing, and says nothing.",
            cause=cause,
            advice="check len(loader) before the training, and refuse to go on with 0.",
            subject=loader.dataset,
            step=empty[0].after_step,
        )
        return


def _check_shuffling(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for loader in list_training_loaders(run):
        whole = [epoch for epoch in loader.epochs if epoch.is_complete and epoch.num_batches >= MIN_PASSES]
        if loader.is_shuffled is not False or len(whole) < 2:  # noqa: PLR2004  once is no repetition
            continue
        low, high = loader.label_range or (0, 0)
        is_sorted = low < high and loader.num_one_label_batches >= 0.8 * max(loader.num_label_batches, 4)
        seen = f"{tell_loader(loader)} gives training the same order in all of its {len(whole)} whole passes"
        if is_sorted:
            seen += (
                f", and {loader.num_one_label_batches} of {loader.num_label_batches} batches hold one label only "
                f"(of {low} to {high})"
            )
        yield Evidence(
            message=f"{seen}: it does not shuffle ({loader.sampler}).",
            cause="the data are sorted by label, and shuffle=True is missing."
            if is_sorted
            else "shuffle=True is missing, or the order is meant.",
            advice="shuffle=True; nothing where the order is meant.",
            subject=loader.dataset,
            step=whole[1].after_step,
            severity=None if is_sorted else Severity.NOTE,
        )
        return


DATA_LEFT_OUT = Rule(
    code="T804",
    name="data-left-out",
    severity=Severity.WARNING,
    summary="Training reads all of its data.",
    explanation="""\
A loader that reads in order and of which three passes or more all end early, so that its end is never reached; or
whole passes in which a sampler without replacement draws a few samples several times each. A note where a sampler
draws a small part once each, and no other loader reads the rest.

Silent about a single pass that ends early, as that of a run which `max_steps` ended, about loaders that shuffle,
about weighted and other samplers with replacement, and about samplers and batch samplers of the program's own.""",
    cases=("a break left over from debugging", "a sampler built with the indices of another data set"),
    bounds=(
        Bound("max_share", 0.8, "share of the batches up to which a pass counts as cut short"),
        Bound("min_repeats", 3.0, "times that each sample is drawn in a pass, from which on it is told"),
        Bound("min_subset", 0.2, "share of the samples below which a sampler over a part is noted"),
    ),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_coverage,
)
EMPTY_LOADER = Rule(
    code="T806",
    name="empty-loader",
    severity=Severity.WARNING,
    summary="Every DataLoader that is read gives batches.",
    explanation="""\
Passes that end before the first batch: of an empty data set, of one smaller than a batch with `drop_last`, or of an
iterable that is used up after the first pass. A loop over nothing raises nothing, so a validation that never
happened looks like one that went well.""",
    cases=(
        "drop_last on a validation set smaller than a batch",
        "a generator as iterable data set, read twice",
    ),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_empty,
)
NOT_SHUFFLED = Rule(
    code="T807",
    name="not-shuffled",
    severity=Severity.WARNING,
    summary="Data sorted by label are shuffled.",
    explanation="""\
A warning when a loader that training reads does not shuffle, over two whole passes or more, and its batches hold one
label each, out of several. A note when it only does not shuffle: a curriculum is read in order on purpose, and data
that were shuffled once do little harm.""",
    cases=("shuffle left out over a data set stored class by class",),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_shuffling,
)

SAMPLES_REPEATED = Rule(
    code="T809",
    name="samples-repeated",
    severity=Severity.WARNING,
    summary="A data set gives different samples for different indices.",
    explanation="""\
The contents of the samples of a loader's first pass, up to 4096 of them and 2 KiB from either end of each, are compared
with the indices its sampler drew. A warning when 32 or more were drawn and at most `max_different` of those looked at
differ from one another. Silent where indices repeat themselves, as in weighted sampling, and for samples of less than
16 bytes, of which there are not many. Augmentation makes equal samples different, and hides them.""",
    cases=("a list built as [sample] * n", "an index taken modulo the length of a cache"),
    bounds=(Bound("max_different", 0.05, "largest share of different samples that counts"),),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_repeats,
    explains=("T1",),
)

RULES = (DATA_LEFT_OUT, SAMPLES_REPEATED, EMPTY_LOADER, NOT_SHUFFLED)
