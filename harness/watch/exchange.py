"""Other samples and tokens in a captured batch, and how far the outputs of a model move with them."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MIN_SAMPLES = 2


def list_changes(num_samples: int) -> list[tuple[tuple[int, ...], Callable[[torch.Tensor], torch.Tensor]]]:
    """Which samples of a batch are exchanged for which others, in as few calls as tell all that can be told.

    At both ends: under a mask over the wrong dimension, only later ones see earlier ones. Not for each other, which
    would leave statistics of the batch as they are. Two samples take a call each.
    """
    last = num_samples - 1
    if num_samples == MIN_SAMPLES:
        return [((last,), lambda tensor: tensor[[0, 0]]), ((0,), lambda tensor: tensor[[last, last]])]
    middle = [1, *range(1, last), 1]
    return [((0, last), lambda tensor: tensor[middle])]


@contextlib.contextmanager
def exchanged(tensors: list[torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[bool]:
    """Other values in the captured batch; tells whether they are others."""
    before = [tensor.clone() for tensor in tensors]
    after = [change(tensor) for tensor in tensors]
    has_changed = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    try:
        for tensor, new in zip(tensors, after, strict=True):
            tensor.copy_(new)
        yield has_changed
    finally:
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(old)


def measure_rows(
    before: list[torch.Tensor], after: list[torch.Tensor], outputs: list[int], rows: Sequence[int]
) -> float:
    """The largest change of some rows of some outputs."""
    return measure_change(
        [before[place][[*rows]] for place in outputs], [after[place][[*rows]] for place in outputs]
    )


def measure_change(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """The largest change of a number, over the largest number; infinite where shapes differ or one is NaN."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    shares = [0.0]
    for old, new in zip(before, after, strict=True):
        if torch.equal(old, new) or not old.numel():
            continue
        change = float((new.float() - old.float()).abs().max())
        shares.append(change / (float(old.float().abs().max()) or 1.0))
    return float("inf") if any(math.isnan(share) for share in shares) else max(shares)
