"""One thread and fixed seeds, so that a watched run can be compared with an unwatched one bit by bit."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from harness.watch.taps import count_taps

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    module: Any = torch.nn.modules.module
    optimizer: Any = sys.modules["torch.optim.optimizer"]
    functions = (
        torch.autograd.backward,
        torch.autograd.grad,
        torch.save,
        torch.nn.functional.cross_entropy,
        torch.nn.functional.mse_loss,
        inspect.unwrap(torch.nn.utils.clip_grad_norm_),
    )
    codes = [function.__code__ for function in functions]
    methods = [
        (owner, name, owner.__dict__.get(name))
        for owner, name in (
            (torch.amp.GradScaler, "scale"),
            (torch.amp.GradScaler, "step"),
            (torch.optim.lr_scheduler.LRScheduler, "step"),
            (torch.optim.lr_scheduler.LRScheduler, "__init__"),
            (torch.utils.data.DataLoader, "__iter__"),
            (torch.utils.data.dataloader._BaseDataLoaderIter, "__next__"),
            (torch.autocast, "__enter__"),
            (torch.nn.Linear, "__call__"),
            (torch.nn.Sequential, "__call__"),
        )
    ]
    yield
    assert count_taps() == 0
    assert [function.__code__ for function in functions] == codes
    for owner, name, before in methods:
        assert owner.__dict__.get(name) is before
    assert not module._global_forward_hooks
    assert not module._global_forward_pre_hooks
    assert not module._global_forward_hooks_with_kwargs
    assert not module._global_forward_hooks_always_called
    assert not optimizer._global_optimizer_pre_hooks
    assert not optimizer._global_optimizer_post_hooks
