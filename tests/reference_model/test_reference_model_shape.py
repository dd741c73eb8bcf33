from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from reference_model import ModelConfig
from reference_model.config import OptimConfig
from reference_model.model import Transformer
from reference_model.optim import AveragedWeights, build_optimizer


@pytest.fixture(params=[4, 12], ids=["rows", "one row"])
def model(request: pytest.FixtureRequest) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(width=16, layers=2, heads=2, dropout=0.1)
    model = Transformer(config, vocab_size=11, context=12, row_length=request.param).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def test_logits_have_one_score_per_token_of_the_vocabulary(model: Transformer) -> None:
    assert model(torch.zeros(3, 12, dtype=torch.long)).shape == (3, 12, 11)
    assert model(torch.zeros(1, 1, dtype=torch.long)).shape == (1, 1, 11)


@pytest.mark.parametrize("changed", range(12))
def test_a_later_token_changes_no_earlier_logit(model: Transformer, changed: int) -> None:
    tokens = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, changed] = (other[:, changed] + 1) % 11
    before, after = model(tokens), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed:], after[:, changed:])


def test_a_shorter_sequence_gives_the_same_logits(model: Transformer) -> None:
    tokens = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5])


def test_the_token_above_is_one_row_before_the_one_predicted() -> None:
    model = Transformer(ModelConfig(width=8, heads=2), vocab_size=20, context=12, row_length=4)
    above = model._tokens_above(torch.arange(12)[None])
    # Position t predicts token t + 1; a row earlier than that is t - 3.
    assert above.tolist() == [[20, 20, 20, 20, 1, 2, 3, 4, 5, 6, 7, 8]]


def test_untrained_loss_is_that_of_a_guess() -> None:
    model = Transformer(ModelConfig(width=16, heads=2), vocab_size=27, context=12, row_length=4)
    logits = model(torch.zeros(2, 12, dtype=torch.long))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.arange(24))
    assert loss.item() == pytest.approx(math.log(27))


def test_every_parameter_is_optimized_and_only_linear_ones_decay(model: Transformer) -> None:
    decayed, kept = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert {names.pop(id(p)).split(".")[-2] for p in decayed["params"]} == {
        "qkv",
        "out",
        "up",
        "down",
        "head",
    }
    assert all("norm" in names.pop(id(p)) or "embedding" for p in kept["params"])
    assert not names


def test_averaged_weights_lag_and_the_model_gets_its_own_back(model: Transformer) -> None:
    averaged = AveragedWeights(model, decay=0.9)
    start = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 1.0
    averaged.update(model)
    averaged.update(model)
    with averaged.swapped_in(model):
        moved = (model.head.weight - start).detach()
        # Decays 1/10 and 2/11 leave 2/110 of the start.
        torch.testing.assert_close(moved, torch.full_like(moved, 1 - 2 / 110))
    torch.testing.assert_close(model.head.weight.detach(), start + 1.0)
