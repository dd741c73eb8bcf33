"""Reads the data, splits it once, and serves inputs with the targets that follow them."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reference_model.codec import IMAGE_SIDE, NUM_PIXELS, BytesCodec, Codec, DigitsCodec
from reference_model.errors import ConfigError

if TYPE_CHECKING:
    from reference_model.config import DataConfig
    from reference_model.sampler import MicroBatchSampler

IGNORED = -100
DIGITS_FILE = ("datasets", "data", "digits.csv.gz")
"""Where scikit-learn keeps its digits."""
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
    """The tokens of one source, split into what is learned and what is held out.

    `train` holds every variant of the sequences to learn: all of them as they are, then all of them moved one
    pixel one way, then the next way. Text has one variant.
    """

    codec: Codec
    train: SequenceDataset
    val: SequenceDataset
    num_variants: int = 1
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
    train_NT = sequences_NT[order_N[:-num_val]]
    variants = [train_NT, *codec.shifted(train_NT)] if isinstance(codec, DigitsCodec) else [train_NT]
    val = SequenceDataset(sequences_NT[order_N[-num_val:]])
    description = {
        "source": source,
        "sha256": hashlib.sha256(sequences_NT.numpy().tobytes()).hexdigest(),
        "num_train": len(train_NT),
        "num_val": len(val),
        "split_seed": config.split_seed,
    }
    return Corpus(
        codec=codec,
        train=SequenceDataset(torch.cat(variants)),
        val=val,
        num_variants=len(variants),
        description=description,
    )


def _read_digits() -> tuple[Codec, Tensor]:
    digits_NC = _read_digits_file()
    codec = DigitsCodec()
    images_N88 = digits_NC[:, :NUM_PIXELS].reshape(-1, IMAGE_SIDE, IMAGE_SIDE)
    return codec, codec.encode(images_N88, digits_NC[:, NUM_PIXELS])


def _read_digits_file() -> Tensor:
    """Pixels and class of every digit [N, 65], int64, of scikit-learn's file: to import it takes a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent.joinpath(*DIGITS_FILE)
        if path.exists():
            return torch.from_numpy(np.loadtxt(path, dtype=np.int64, delimiter=","))
    from sklearn.datasets import load_digits  # noqa: PLC0415 - only where the file is somewhere else

    digits = load_digits()
    return torch.from_numpy(np.column_stack([digits.data, digits.target])).long()


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


def build_loader(dataset: SequenceDataset, sampler: MicroBatchSampler) -> DataLoader[Batch]:
    """A loader of ready batches; its own generator leaves the global random state alone."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_keep_batch,  # type: ignore[arg-type]  # what __getitems__ gives is a batch already
        generator=torch.Generator(),
    )


def _keep_batch(batch: Batch) -> Batch:
    return batch
