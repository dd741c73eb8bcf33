"""Sees single samples of the first pass of every DataLoader: overlaps, numbers that are not finite, labels.

And which loader feeds a training and which an evaluation: the models that are called after a batch, before the
next one is read, tell.
"""

from __future__ import annotations

import inspect
import math
import random
import sys
import weakref
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Subset

from harness.record.loader_observation import OverlapObservation
from harness.watch.fingerprints import read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.data import DataLoader

    from harness.record.loader_observation import LoaderObservation
    from harness.record.observation import RunObservation

MAX_SAMPLES = 4096
MAX_BYTES = 64 * 2**20
MAX_INDICES = 50_000
MAX_LOADERS = 32
MAX_WAITING = 256
MAX_TENSORS = 16
MAX_POSITIONS = 8
MIN_SAMPLE_BYTES = 16
PREFIX_TOKENS = 16
"""Whole numbers are compared by their beginning, as batches are padded to different lengths."""
MIN_LABELS = 4


@dataclass(slots=True)
class LoaderSamples:
    """What is kept of the samples of one loader while it is watched."""

    loader: LoaderObservation
    dataset: int | None = None
    maps: list[Sequence[int]] = field(default_factory=list)
    contents: Counter[int] = field(default_factory=Counter)
    num_looked_at: int = 0
    rows: set[int] = field(default_factory=set)
    num_bytes: int = 0
    indices: set[int] = field(default_factory=set)

    def add_indices(self, drawn: Sequence[int]) -> None:
        """Takes note of indices drawn, as those of the data set that subsets are made of."""
        if len(self.indices) > MAX_INDICES:
            return
        for members in self.maps:
            drawn = [int(members[index]) for index in drawn]
        self.indices.update(drawn)


class SampleLedger:
    """The samples of all loaders of a run."""

    def __init__(self, run: RunObservation) -> None:
        self._run = run
        self._all: list[LoaderSamples] = []
        self._datasets: list[tuple[weakref.ref[Any] | None, int]] = []
        self._waiting: list[LoaderSamples] = []
        self._num_forwards = 0
        self._evaluations = (0, 0)

    def open(self, loader: DataLoader[Any], found: LoaderObservation) -> LoaderSamples | None:
        """Begins to keep samples of a loader; None beyond the first few loaders."""
        if len(self._all) >= MAX_LOADERS:
            return None
        samples = LoaderSamples(found)
        base: Any = loader.dataset
        while type(base) is Subset:
            samples.maps.append(base.indices)
            base = base.dataset
        samples.dataset = self._number(base)
        found.copied_generator = _find_copied_generator(loader, base)
        self._all.append(samples)
        return samples

    def note_read(self, samples: LoaderSamples) -> None:
        """Takes note that a batch was read, whatever is in it."""
        self.settle()
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(samples)

    def look_at(self, samples: LoaderSamples, batch: object) -> None:
        """Takes note of the samples in a batch of the first pass, up to a number."""
        if samples.num_looked_at < MAX_SAMPLES and samples.num_bytes < MAX_BYTES:
            _look_at(samples, batch)

    def settle(self) -> None:
        """Counts the batches read before for what the models called since were called for."""
        run = self._run
        last = run.evaluations[-1].num_forwards if run.evaluations else 0
        evaluations = (len(run.evaluations), last)
        num_forwards = run.num_forwards or 0
        is_training, is_evaluation = num_forwards != self._num_forwards, evaluations != self._evaluations
        if not (is_training or is_evaluation):
            return
        for samples in self._waiting:
            samples.loader.num_training_batches += is_training
            samples.loader.num_evaluation_batches += is_evaluation
        self._waiting.clear()
        self._num_forwards, self._evaluations = num_forwards, evaluations

    def describe(self) -> None:
        """Compares what was evaluated with what was trained on."""
        training = [samples for samples in self._all if _is_for_training(samples.loader)]
        overlaps = []
        for samples in self._all:
            if training and _is_for_evaluation(samples.loader):
                overlap = _compare(samples, training)
                if overlap is not None:
                    overlap.evaluation = next(
                        (at for at, loader in enumerate(self._run.loaders) if loader is samples.loader), -1
                    )
                    overlaps.append(overlap)
        self._run.overlaps = [overlap for overlap in overlaps if overlap.evaluation >= 0]

    def _number(self, dataset: object) -> int:
        """The same number for the same object."""
        for number, (reference, identity) in enumerate(self._datasets):
            if identity == id(dataset) and (reference is None or reference() is dataset):
                return number
        try:
            self._datasets.append((weakref.ref(dataset), id(dataset)))
        except TypeError:
            self._datasets.append((None, id(dataset)))
        return len(self._datasets) - 1


def _is_for_training(loader: LoaderObservation) -> bool:
    return loader.num_training_batches > 0.5 * loader.num_evaluation_batches


def _is_for_evaluation(loader: LoaderObservation) -> bool:
    # Where batches are read ahead, one read for an evaluation may still be there when training goes on.
    return loader.num_evaluation_batches > 0 and loader.num_training_batches <= (
        0.25 * loader.num_evaluation_batches
    )


def _compare(samples: LoaderSamples, training: list[LoaderSamples]) -> OverlapObservation | None:
    last_step = samples.loader.epochs[-1].after_step if samples.loader.epochs else 0
    same = [other for other in training if other.dataset == samples.dataset and other.indices]
    if same and samples.indices:
        trained = set().union(*(other.indices for other in same))
        shared = len(samples.indices & trained) / len(samples.indices)
        return OverlapObservation(-1, True, len(samples.indices), shared, last_step=last_step)
    contents: Counter[int] = sum((other.contents for other in training), Counter())
    num_kept = contents.total()
    if not num_kept or not samples.contents:
        return None
    sizes = [other.loader.num_samples for other in training]
    num_all = sum(size for size in sizes if size is not None) if None not in sizes else num_kept
    num_shared = sum(count for sample, count in samples.contents.items() if sample in contents)
    num_twins = max(
        (_count_twins(other.contents) / other.contents.total() for other in training if other.contents),
        default=0.0,
    )
    return OverlapObservation(
        evaluation=-1,
        is_same_dataset=False,
        num_samples=samples.contents.total(),
        share=num_shared / samples.contents.total(),
        coverage=min(1.0, num_kept / max(num_all, 1)),
        twin_share=num_twins,
        last_step=last_step,
    )


def _count_twins(contents: Counter[int]) -> int:
    return sum(count for count in contents.values() if count > 1)


def _look_at(samples: LoaderSamples, batch: object) -> None:
    tensors: list[torch.Tensor] = []
    _collect(batch, tensors)
    tensors = [
        tensor
        for tensor in tensors
        if tensor.dim() and tensor.is_cpu and tensor.layout is torch.strided and tensor.shape[0]
    ]
    loader = samples.loader
    if not tensors:
        return
    inputs = max(tensors, key=lambda tensor: tensor.nbytes)
    if len(loader.non_finite_batches) < MAX_POSITIONS and not _is_finite(inputs):
        loader.non_finite_batches.append(loader.num_checked_batches)
    loader.num_checked_batches += 1
    _look_at_labels(loader, inputs, tensors[-1])
    if inputs.nbytes // inputs.shape[0] < MIN_SAMPLE_BYTES:
        return
    samples.num_bytes += inputs.nbytes
    rows = read_rows(inputs[: MAX_SAMPLES - samples.num_looked_at])
    samples.num_looked_at += len(rows)
    contents = [zlib.crc32(row) for row in rows]
    samples.rows.update(contents)
    loader.num_looked_at, loader.num_different = samples.num_looked_at, len(samples.rows)
    is_tokens = not inputs.is_floating_point() and inputs.dim() == 2  # noqa: PLR2004  samples by positions
    if is_tokens and inputs.shape[1] > PREFIX_TOKENS:
        contents = [zlib.crc32(row) for row in read_rows(inputs[: len(rows), :PREFIX_TOKENS])]
    # Not by `update`, which takes as long to begin as some samples.
    for content in contents:
        samples.contents[content] += 1


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or math.isfinite(float(tensor.detach().sum(dtype=torch.float64))):
        return True
    return bool(torch.isfinite(tensor).all())


def _look_at_labels(loader: LoaderObservation, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    is_label = labels is not inputs and labels.dim() == 1 and not labels.is_floating_point()
    if not is_label or labels.dtype is torch.bool or labels.shape[0] != inputs.shape[0]:
        return
    low, high = (int(bound) for bound in labels.aminmax())
    before = loader.label_range or (low, high)
    loader.label_range = (min(before[0], low), max(before[1], high))
    if labels.numel() >= MIN_LABELS:
        loader.num_label_batches += 1
        loader.num_one_label_batches += low == high


def _collect(value: Any, tensors: list[torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        if len(tensors) < MAX_TENSORS and type(value) is torch.Tensor:
            tensors.append(value)
    elif isinstance(value, (list, tuple)):
        for part in value[:MAX_TENSORS]:
            _collect(part, tensors)
    elif isinstance(value, Mapping):
        for part in value.values():
            _collect(part, tensors)


def _find_copied_generator(loader: DataLoader[Any], dataset: object) -> str | None:
    """The attribute whose generator the workers get equal copies of, and use without seeding it anew."""
    if not loader.num_workers or loader.worker_init_fn is not None:
        return None
    method = getattr(type(dataset), "__getitem__", None) or getattr(type(dataset), "__iter__", None)
    code = getattr(inspect.unwrap(method), "__code__", None) if method is not None else None
    if code is None or any("seed" in name or name == "get_worker_info" for name in code.co_names):
        return None
    numpy = sys.modules.get("numpy.random")
    kinds: tuple[type, ...] = (torch.Generator, random.Random)
    if numpy is not None:
        kinds += (numpy.Generator, numpy.RandomState)
    held = getattr(dataset, "__dict__", {})
    return next((name for name in code.co_names if isinstance(held.get(name), kinds)), None)
