"""What the graph behind a tensor tells, and what targets are beside the model's input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.record.deep import LossFunctionObservation
from harness.watch.dead_units import count_dead_units
from harness.watch.graph import find_grown_shape, find_maker
from harness.watch.held_graphs import HeldGraphs
from harness.watch.targets import note_padding, note_shift

MODEL = nn.Linear(3, 1)
INPUTS = torch.randn(5, 3)
TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 2, 3, 4, 0, 0, 0, 0], [1, 5, 3, 7, 5, 0, 0, 0]])


def test_the_operation_that_made_a_tensor_is_found_behind_views_and_casts() -> None:
    scores = torch.randn(4, 6, requires_grad=True)
    assert find_maker(scores.softmax(0).view(-1).bfloat16()) == "softmax"
    assert find_maker(torch.log_softmax(scores, -1)[scores > 0]) == "log_softmax"
    assert find_maker(MODEL(INPUTS).squeeze(-1)) == "addmm"
    assert find_maker(scores) is None


@pytest.mark.parametrize(
    ("targets", "grown"),
    [(torch.randn(5), ((5, 1), (5, 5))), (torch.randn(5, 1), None), (torch.randn(1), None)],
)
def test_a_column_that_became_a_square_is_found(targets: torch.Tensor, grown: object) -> None:
    assert find_grown_shape((MODEL(INPUTS) - targets).pow(2).mean()) == grown
    assert find_grown_shape((targets - MODEL(INPUTS)).abs().sum()) == grown


def test_pairs_that_a_program_asks_for_are_not() -> None:
    scores = MODEL(INPUTS).squeeze(-1)
    assert find_grown_shape((scores.unsqueeze(1) - scores.detach()).pow(2).mean()) is None
    assert find_grown_shape((MODEL(INPUTS) - scores).pow(2).mean()) is None


def test_only_graphs_that_are_held_are_counted() -> None:
    graphs = HeldGraphs()
    total = torch.zeros(())
    kept = []
    for step in range(3):
        loss = MODEL(INPUTS).exp().sum()
        mark = graphs.mark(loss, step)
        assert mark is not None
        mark.step = step
        loss.backward()
        kept.append(loss)
        total = total + loss
    del loss
    assert graphs.count(2) == (2, 2)
    # The sum alone holds on to every one of them.
    kept.clear()
    assert graphs.count(3) == (3, 3)
    total = total.detach()
    assert graphs.count(3) == (0, 3)
    assert graphs.mark(torch.zeros(()), 3) is None
    assert graphs.mark((kept, None), 3) is None
    assert graphs.count(4) == (0, 3)


def look(targets: torch.Tensor, tokens: torch.Tensor = TOKENS) -> tuple[Any, ...]:
    flat = targets.reshape(-1)
    share = float((flat == -100).float().mean())
    found = LossFunctionObservation(
        "cross_entropy",
        (flat.numel(), 10),
        (flat.numel(),),
        "",
        "",
        "mean",
        ignore_index=-100,
        share_ignored=share,
    )
    note_padding(found, flat, [tokens])
    note_shift(found, flat, [tokens])
    return found.padding_id, found.share_padding, found.target_shift


def shift(targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.pad(targets, (0, 1), value=-100)[:, 1:]


def test_padding_and_shift_of_targets_are_recognised() -> None:
    ignored = TOKENS.masked_fill(TOKENS == 0, -100)
    assert look(shift(TOKENS)) == (0, pytest.approx(5 / 21), 1)
    assert look(shift(ignored)) == (0, 0.0, None)
    many, more = TOKENS.repeat(4, 1), ignored.repeat(4, 1)
    assert look(shift(more), many) == (0, 0.0, 1)
    assert look(more, many) == (0, 0.0, 0)
    assert look(shift(shift(more)), many) == (0, 0.0, 2)
    assert look(shift(many.flip(1)), many.flip(1))[:2] == (0, pytest.approx(5 / 21))


def test_a_token_that_stands_within_rows_too_is_no_padding() -> None:
    pixels = TOKENS.clone()
    pixels[0, 3] = 0
    assert look(shift(pixels), pixels)[0] is None
    assert look(torch.randint(0, 9, (3, 8)))[2] is None


def test_dead_units_are_counted_where_a_relu_was_and_a_gradient_flows() -> None:
    hidden = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]], requires_grad=True)
    assert count_dead_units(MODEL, (hidden,)) == (3, 1)
    assert count_dead_units(MODEL, (hidden.detach(),)) is None
    assert count_dead_units(MODEL, (hidden - 1,)) is None
    assert count_dead_units(nn.Conv2d(2, 1, 1), (torch.zeros(2, 2, 4, 4, requires_grad=True),)) == (2, 2)
    assert count_dead_units(nn.ReLU(), (hidden,)) is None
