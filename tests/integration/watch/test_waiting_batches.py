"""Batches and indices that are looked at later than they were read are told as they were read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from harness.watch.fingerprints import fingerprint_batch, fingerprint_indices
from harness.watch.observer import Observer
from harness.watch.waiting_batches import MAX_BATCH_BYTES, MAX_WAITING

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("width", [5, MAX_BATCH_BYTES])
def test_a_batch_that_is_changed_after_it_was_read_has_the_fingerprint_of_what_was_read(width: int) -> None:
    data = torch.arange(20.0 * width).reshape(20, width)
    with Observer() as observer:
        for (batch,) in DataLoader(TensorDataset(data), batch_size=4):
            batch.zero_()

    (loader,) = observer.observation.loaders
    assert loader.fingerprints == [fingerprint_batch([rows]) for rows in data.split(4)]
    assert loader.num_different == 20


def test_small_and_large_batches_keep_their_order() -> None:
    sizes = [2, 2, 2 * MAX_BATCH_BYTES, 2, 2 * MAX_BATCH_BYTES, *[2] * (2 * MAX_WAITING)]
    batches = [torch.full((1, size), float(number)) for number, size in enumerate(sizes)]
    with Observer() as observer:
        for _ in DataLoader(batches, batch_size=None):  # type: ignore[arg-type]
            pass

    (loader,) = observer.observation.loaders
    assert loader.fingerprints == [fingerprint_batch(batch) for batch in batches]


def test_indices_of_an_iterator_that_is_dropped_early_are_counted() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(100, 2)), batch_size=2)
    with Observer() as observer:
        for number, _ in enumerate(loader):
            if number == 5:
                break

    (epoch,) = observer.observation.loaders[0].epochs
    assert (epoch.num_indices, epoch.num_distinct, epoch.num_batches) == (12, 12, 6)
    assert epoch.order == f"{fingerprint_indices(range(12)):08x}"
    assert not epoch.is_complete


def test_a_batch_sampler_may_hand_out_the_same_list_again() -> None:
    drawn = [0, 1]

    class Sampler:
        def __iter__(self) -> Iterator[list[int]]:
            for number in range(5):
                drawn[:] = [2 * number, 2 * number + 1]
                yield drawn

    with Observer() as observer:
        for _ in DataLoader(TensorDataset(torch.zeros(10, 2)), batch_sampler=Sampler()):
            pass

    (epoch,) = observer.observation.loaders[0].epochs
    assert (epoch.num_distinct, epoch.order) == (10, f"{fingerprint_indices(range(10)):08x}")
