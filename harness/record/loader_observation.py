"""What a watched run showed of its data loaders, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class EpochObservation:
    """One pass of a DataLoader: how many batches and samples it gave, and in which order.

    `num_distinct` and `order` come from the sampler: distinct indices drawn, and a fingerprint of their
    sequence; None for iterable data sets and when watched less than deep. With workers the sampler runs ahead
    of the batches given.
    """

    after_step: int
    num_batches: int = 0
    num_indices: int = 0
    num_distinct: int | None = None
    order: str | None = None
    is_complete: bool = False
    """Whether the program read on until there was nothing left."""


@dataclass(slots=True)
class LoaderObservation:
    """One DataLoader that was iterated.

    Attributes:
        dataset: Class of the data set.
        num_samples: Its length; None where it has none.
        batch_size: As configured; None with a batch sampler of its own.
        num_workers: Worker processes.
        sampler: Class of the sampler, which tells shuffling from reading in order.
        drop_last: Whether an incomplete last batch is left out.
        epochs: Its passes, in order.
        fingerprints: One per batch given, over shapes, types and a sample of the contents; when watched deep.
        is_shuffled: Whether its sampler draws at random; None for samplers that are not of torch.
        num_training_batches: Batches after which a model was called that trains, before the next one was read.
        num_evaluation_batches: Batches after which a model was called in eval mode or without gradients.
        num_checked_batches: Batches of the first pass that were looked at sample by sample.
        non_finite_batches: Positions of the first of those with an input that is not finite, from 0.
        label_range: Smallest and largest of their labels, where a batch ends in one whole number per sample.
        num_label_batches: Those of them with four labels or more.
        num_one_label_batches: Those of these in which all labels are the same.
        num_looked_at: Samples of the first pass whose contents were compared; when watched deep.
        num_different: How many different ones were among them.
        copied_generator: Attribute of the data set that holds a random generator which its `__getitem__` uses,
            and of which every worker gets the same copy; None without workers, with a `worker_init_fn`, and where
            it is seeded for each sample.
    """

    dataset: str
    num_samples: int | None
    batch_size: int | None
    num_workers: int
    sampler: str
    drop_last: bool
    epochs: list[EpochObservation] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    is_shuffled: bool | None = None
    num_training_batches: int = 0
    num_evaluation_batches: int = 0
    num_checked_batches: int = 0
    non_finite_batches: list[int] = field(default_factory=list)
    label_range: tuple[int, int] | None = None
    num_label_batches: int = 0
    num_one_label_batches: int = 0
    copied_generator: str | None = None
    num_looked_at: int = 0
    num_different: int = 0


@dataclass(slots=True)
class OverlapObservation:
    """How much of what a DataLoader gave to evaluation had been given to training as well.

    Attributes:
        evaluation: Position of the loader among `RunObservation.loaders`.
        is_same_dataset: Whether a loader for training reads the very same data set object, or a subset of it.
        num_samples: Samples of the evaluation that were compared, of its first pass.
        share: Of them, how many are in what was kept of the training: by index where the data set is the same,
            else by their contents.
        coverage: Share of the training data that was kept to compare with.
        twin_share: Share of the training samples that equal another one, as small or artificial ones may.
        last_step: Steps done before the loader's last pass.
    """

    evaluation: int
    is_same_dataset: bool
    num_samples: int
    share: float
    coverage: float = 1.0
    twin_share: float = 0.0
    last_step: int = 0
