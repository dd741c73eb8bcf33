"""The order of training: which sequences make up each batch, from the seed and the position alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler

from reference_model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_model.distributed import World


class MicroBatchSampler(Sampler[list[int]]):
    """Endless micro-batches of indices; each epoch is a new permutation without its ragged end.

    A batch holds the same sequences whatever the number of micro-batches and ranks it is cut into. The
    position (epoch, micro-batch) is all there is to save: `position` names the next micro-batch.

    Args:
        num_sequences: sequences of an epoch, N.
        batch_size: sequences of an optimizer step over all ranks and micro-batches.
        accumulation_steps: micro-batches of an optimizer step.
        seed: of the order.
        world: this process among the ranks.
        num_variants: variants of each sequence; index i of variant v is served as i + v * N.
        variant_fraction: share of the sequences served as one of the variants above 0.
    """

    def __init__(
        self,
        *,
        num_sequences: int,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
        world: World,
        num_variants: int = 1,
        variant_fraction: float = 0.0,
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
        self.num_variants = num_variants
        self.variant_fraction = variant_fraction
        self.position = {"epoch": 0, "micro_batch": 0}

    def __iter__(self) -> Iterator[list[int]]:
        micro_size = self.batch_size // (self.accumulation_steps * self.world.size)
        per_epoch = (self.num_sequences // self.batch_size) * self.accumulation_steps
        while True:
            epoch, micro_batch = self.position["epoch"], self.position["micro_batch"]
            order = self._order_epoch(epoch)
            for index in range(micro_batch, per_epoch):
                is_last = index + 1 == per_epoch
                self.position = {"epoch": epoch + is_last, "micro_batch": 0 if is_last else index + 1}
                start = (index * self.world.size + self.world.rank) * micro_size
                yield order[start : start + micro_size]

    def _order_epoch(self, epoch: int) -> list[int]:
        # A large prime keeps the epochs of one seed apart from those of the next seeds.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order_N = torch.randperm(self.num_sequences, generator=generator)
        if self.num_variants > 1 and self.variant_fraction > 0:
            is_varied_N = torch.rand(self.num_sequences, generator=generator) < self.variant_fraction
            variant_N = torch.randint(1, self.num_variants, (self.num_sequences,), generator=generator)
            order_N = order_N + self.num_sequences * variant_N * is_varied_N
        order: list[int] = order_N.tolist()
        return order
