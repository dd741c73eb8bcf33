"""The ranks of one training, and what they tell each other. One process alone is a world of size 1."""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist

from reference_model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

# Seconds between the last exchange and the end. A thread of gloo that still drops an exchange while Python ends
# makes torch abort the process (2.13: about one launch in five of two short DDP ranks).
SETTLING_TIME_S = 0.2


@dataclass(frozen=True)
class World:
    """This process's place among the ranks."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    host: str = field(default_factory=socket.gethostname)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what a run writes once."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """Sum over the ranks."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.item()

    def any(self, *, flag: bool) -> bool:
        """Whether the flag is up on any rank."""
        return self.sum(float(flag)) > 0

    def share(self, value: T) -> T:
        """Rank 0's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values


def resolve_device(choice: str, local_rank: int) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: if CUDA is asked for and not there.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device is 'cuda', but torch sees no CUDA device; use --device cpu or --device auto"
        )
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


@contextmanager
def join_world(device_choice: str) -> Iterator[World]:
    """The world that torchrun's environment variables describe; gloo on CPU, NCCL on CUDA."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = resolve_device(device_choice, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device=device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), local_rank=local_rank, size=size, device=device)
    finally:
        time.sleep(SETTLING_TIME_S)
        dist.destroy_process_group()
