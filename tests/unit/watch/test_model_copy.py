"""Copies of models hold the same, share nothing that changes, and compute the same."""

from __future__ import annotations

import copy
from typing import Any, Self

import pytest
import torch
from torch import nn

from harness.watch.model_copy import bring_up_to_date, copy_model


class Tied(nn.Module):
    """Shares a parameter, holds values of its own, and a layer outside its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((1,), 2.0))
        self.seen: list[int] = []
        self.settings = {"depth": 2}
        self.hidden = [self.head]
        self.missing: nn.Module | None = None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(tokens))
        result: torch.Tensor = self.scale * self.hidden[0](self.norm(self.embedding(tokens)))
        return result


class Copied(nn.Linear):
    """Says itself how it is copied."""

    num_copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        type(self).num_copies += 1
        made = type(self)(self.in_features, self.out_features)
        memo[id(self)] = made
        made.load_state_dict(copy.deepcopy(self.state_dict(), memo))
        return made


TOKENS = torch.arange(5)
INPUTS = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Tied(), TOKENS),
        (nn.LSTM(4, 3, num_layers=2), INPUTS),
        (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), INPUTS),
        (nn.Sequential(Copied(4, 3), nn.ReLU()), INPUTS),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), INPUTS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_copy_computes_the_same_and_shares_no_tensor(model: nn.Module, inputs: torch.Tensor) -> None:
    model.eval()
    copied = copy_model(model)

    assert type(copied) is type(model)
    assert list(copied.state_dict()) == list(model.state_dict())
    for name, tensor in copied.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
        assert tensor.data_ptr() != model.state_dict()[name].data_ptr(), name
    first, second = (
        found[0] if isinstance(found, tuple) else found for found in (model(inputs), copied(inputs))
    )
    assert torch.equal(first, second)


def test_a_copy_keeps_what_is_shared_inside_and_nothing_of_the_original() -> None:
    model = Tied()
    copied = copy_model(model)
    assert isinstance(copied, Tied)

    assert copied.head.weight is copied.embedding.weight
    assert copied.hidden[0] is copied.head
    assert copied.missing is None
    copied.seen.append(1)
    copied.settings["depth"] = 3
    copied.head.register_forward_hook(lambda *_: None)
    assert (model.seen, model.settings, len(model.head._forward_hooks)) == ([], {"depth": 2}, 0)
    assert not any(parameter.requires_grad for parameter in copied.parameters())


def test_a_copy_is_brought_up_to_date_where_it_is_still_built_alike() -> None:
    linear = nn.Linear(4, 3)
    model = nn.Sequential(linear, nn.BatchNorm1d(3))
    copied = copy_model(model)
    with torch.no_grad():
        linear.weight.add_(1.0)
    model(torch.ones(2, 4))

    assert bring_up_to_date(copied, model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(copied.state_dict()[name], tensor), name
    assert not bring_up_to_date(copied, nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
