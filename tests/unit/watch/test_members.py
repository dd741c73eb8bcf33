"""The quick list of a model's parameters and buffers is the one torch gives."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from torch import nn

from harness.watch.members import list_buffers, list_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator


def build_tied() -> nn.Module:
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 5)
    )
    model[2].weight = model[0].weight
    model.append(model[1])
    model.register_module("none", None)
    model[1].register_parameter("none", None)
    return model


class OwnList(nn.Linear):
    """Says itself what its parameters are."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return itertools.islice(super().parameters(recurse), 1)


@pytest.mark.parametrize(
    "model",
    [
        build_tied(),
        nn.LSTM(4, 3),
        nn.TransformerEncoderLayer(4, 2, 8),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        nn.ReLU(),
        OwnList(2, 2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_members_are_those_of_torch_in_its_order(model: nn.Module) -> None:
    assert [*map(id, list_parameters(model))] == [*map(id, model.parameters())]
    assert [*map(id, list_buffers(model))] == [*map(id, model.buffers())]
