"""Reads the data, splits it once and serves batches whose order depends on the seed and the position only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from reference_model.codec import BytesCodec, Codec, DigitsCodec
from reference_model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reference_model.config import DataConfig
    from reference_model.distributed import World

IGNORED = -100
Batch = tuple[Tensor, Tensor]


class SequenceDataset(Dataset[Batch]):
    """Sequences [N, T + 1] of tokens, served as inputs [B, T] and the targets [B, T] that follow them.

    Positions holding `IGNORED` pad the end of a sequence: token 0 as input, no target.
    """

    def __init__(self, sequences_NT: Tensor) -> None:
        self.sequences_NT = sequences_NT

    def __len__(self) -> int:
        return len(self.sequences_NT)

    def __getitem__(self, index: int) -> Batch:
        inputs_BT, targets_BT = self.__getitems__([index])
        return inputs_BT[0], targets_BT[0]

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once, which spares the loader one call per sequence."""
        sequences_BT = self.sequences_NT[indices]
        inputs_BT, targets_BT = sequences_BT[:, :-1], sequences_BT[:, 1:]
        return inputs_BT.clamp(min=0), targets_BT.contiguous()


@dataclass(frozen=True)
class Corpus:
    """The tokens of one source, split into what is learned and what is held out."""

    codec: Codec
    train: SequenceDataset
    val: SequenceDataset
    description: dict[str, object] = field(default_factory=dict)
    """Source, SHA-256 and counts, for the record of the run."""

    @property
    def context(self) -> int:
        """Number of positions the model sees."""
        return int(self.train.sequences_NT.shape[1]) - 1


def read_corpus(config: DataConfig) -> Corpus:
    """The digits, or the text file the configuration names, split by `split_seed`.

    Raises:
        ConfigError: if the file cannot be read or is too short to split.
    """
    if config.path is None:
        codec, sequences_NT = _read_digits()
        source = "scikit-learn digits"
    else:
        codec, sequences_NT = _read_text(config.path, config.context)
        source = str(config.path)
    num_val = round(len(sequences_NT) * config.val_fraction)
    if not 0 < num_val < len(sequences_NT):
        raise ConfigError(
            f"{source} gives {len(sequences_NT)} sequences, of which data.val_fraction {config.val_fraction} "
            f"holds out {num_val}; both sides need at least one: use more data or a smaller data.context"
        )
    order_N = torch.randperm(len(sequences_NT), generator=torch.Generator().manual_seed(config.split_seed))
    train = SequenceDataset(sequences_NT[order_N[:-num_val]])
    val = SequenceDataset(sequences_NT[order_N[-num_val:]])
    description = {
        "source": source,
        "sha256": hashlib.sha256(sequences_NT.numpy().tobytes()).hexdigest(),
        "num_train": len(train),
        "num_val": len(val),
        "split_seed": config.split_seed,
    }
    return Corpus(codec=codec, train=train, val=val, description=description)


def _read_digits() -> tuple[Codec, Tensor]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second that text runs need not spend

    digits = load_digits()
    codec = DigitsCodec()
    return codec, codec.encode(torch.from_numpy(digits.images).long(), torch.from_numpy(digits.target).long())


def _read_text(path: Path, context: int) -> tuple[Codec, Tensor]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read data.path {path}: {error.strerror}") from None
    if len(text) < 2 * context:
        raise ConfigError(
            f"data.path {path} has {len(text)} bytes; data.context {context} needs at least {2 * context}"
        )
    codec = BytesCodec(num_generated=context)
    tokens = codec.encode(text)
    # Windows share one byte: the last target of one is the first input of the next.
    num_windows = -(-(len(tokens) - 1) // context)
    padded = torch.full((num_windows * context + 1,), IGNORED)
    padded[: len(tokens)] = tokens
    return codec, padded.unfold(0, context + 1, context).contiguous()


class MicroBatchSampler(Sampler[list[int]]):
    """Endless micro-batches of indices; each epoch is a new permutation without its ragged end.

    A batch holds the same sequences whatever the number of micro-batches and ranks it is cut into. The
    position (epoch, micro-batch) is all there is to save: `position` names the next micro-batch.
    """

    def __init__(
        self, num_sequences: int, batch_size: int, accumulation_steps: int, seed: int, world: World
    ) -> None:
        if batch_size % (accumulation_steps * world.size):
            raise ConfigError(
                f"batch_size {batch_size} must be a multiple of accumulation_steps x ranks "
                f"({accumulation_steps} x {world.size})"
            )
        if num_sequences < batch_size:
            raise ConfigError(
                f"batch_size {batch_size} is larger than the {num_sequences} training sequences"
            )
        self.num_sequences = num_sequences
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.seed = seed
        self.world = world
        self.position = {"epoch": 0, "micro_batch": 0}

    def __iter__(self) -> Iterator[list[int]]:
        micro_size = self.batch_size // (self.accumulation_steps * self.world.size)
        per_epoch = (self.num_sequences // self.batch_size) * self.accumulation_steps
        while True:
            epoch, micro_batch = self.position["epoch"], self.position["micro_batch"]
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.num_sequences, generator=generator).tolist()
            for index in range(micro_batch, per_epoch):
                is_last = index + 1 == per_epoch
                self.position = {"epoch": epoch + is_last, "micro_batch": 0 if is_last else index + 1}
                start = (index * self.world.size + self.world.rank) * micro_size
                yield order[start : start + micro_size]


def build_loader(dataset: SequenceDataset, sampler: Sampler[list[int]]) -> DataLoader[Batch]:
    """A loader of ready batches; its own generator leaves the global random state alone."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_keep_batch,  # type: ignore[arg-type]  # what __getitems__ gives is a batch already
        generator=torch.Generator(),
    )


def _keep_batch(batch: Batch) -> Batch:
    return batch
