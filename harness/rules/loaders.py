"""What several rules read off the DataLoaders of a run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.record.loader_observation import EpochObservation, LoaderObservation
    from harness.record.run import TrainingRun


def find_obstacle_to_loaders(run: TrainingRun) -> str | None:
    """Why nothing can be said of DataLoaders; None when something can."""
    if run.observed is None:
        return "nothing was watched"
    return None if run.observed.loaders else "no DataLoader was read"


def is_for_training(loader: LoaderObservation) -> bool:
    """Whether a model trained on what the loader gave. False: it did not, or it was not seen."""
    return loader.num_training_batches > 0.5 * loader.num_evaluation_batches


def is_for_evaluation(loader: LoaderObservation) -> bool:
    """Whether models were called with its batches in eval mode or without gradients, and next to never trained."""
    return 0 < loader.num_evaluation_batches >= 4 * loader.num_training_batches


def list_training_loaders(run: TrainingRun) -> list[LoaderObservation]:
    """The loaders that models trained on."""
    return [loader for loader in observed_of(run).loaders if is_for_training(loader)]


def tell_loader(loader: LoaderObservation) -> str:
    """A loader in words."""
    size = "" if loader.num_samples is None else f" of {loader.num_samples} samples"
    return f"the DataLoader over `{loader.dataset}`{size}"


def count_batches(loader: LoaderObservation) -> int | None:
    """Batches in a whole pass over the data set by one process; None where it can't be told."""
    if loader.num_samples is None or not loader.batch_size:
        return None
    whole, rest = divmod(loader.num_samples, loader.batch_size)
    return whole + (rest > 0 and not loader.drop_last)


@dataclass(frozen=True, slots=True)
class PassPair:
    """Two passes over the same data, one right after the other, in one and the same training."""

    loader: LoaderObservation
    first: EpochObservation
    second: EpochObservation


def list_pairs(run: TrainingRun) -> Iterator[PassPair]:
    """Passes of training that follow each other: of one loader, or of one that is built anew for every epoch.

    Pairs between which the optimizer changes are left out: a second training may begin as the first one did.
    """
    passes: dict[object, list[tuple[LoaderObservation, EpochObservation]]] = {}
    for loader in list_training_loaders(run):
        is_rebuilt = len(loader.epochs) == 1
        # A loader of one pass is of a kind with others like it.
        kind: object = (
            (loader.dataset, loader.num_samples, loader.batch_size, loader.sampler)
            if is_rebuilt
            else id(loader)
        )
        passes.setdefault(kind, []).extend((loader, epoch) for epoch in loader.epochs)
    for group in passes.values():
        for (loader, first), (_, second) in itertools.pairwise(group):
            before = _find_optimizers(run, first.after_step)
            if before and before == _find_optimizers(run, second.after_step):
                yield PassPair(loader, first, second)


def _find_optimizers(run: TrainingRun, after_step: int) -> frozenset[int]:
    steps = observed_of(run).steps
    at = next((step for step in steps if step.step >= after_step), None)
    return frozenset() if at is None else frozenset(at.optimizers)
