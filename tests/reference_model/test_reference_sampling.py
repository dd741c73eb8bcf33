from __future__ import annotations

import pytest
import torch
from PIL import ImageChops
from torch import Tensor, nn

from reference_model.sampling import generate
from reference_model.sheet import draw_sheet


class Counter(nn.Module):
    """Says that the next token is one more than the last, and that token 9 is likelier still."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.modes.append(self.training)
        logits = nn.functional.one_hot((tokens + 1) % 8, 10).float() * 100.0
        logits[..., 9] = 200.0
        return logits


def run(model: nn.Module, **changes: object) -> Tensor:
    options: dict[str, object] = {"num_tokens": 5, "num_choices": 8, "temperature": 1.0, "seed": 0, **changes}
    return generate(model, torch.tensor([[0], [3]]), **options)  # type: ignore[arg-type]


def test_the_model_is_followed_among_the_tokens_that_may_be_drawn() -> None:
    assert run(Counter()).tolist() == [[0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 0]]


def test_generation_is_in_eval_mode_and_gives_the_mode_back() -> None:
    model = Counter().train()
    run(model)
    assert not any(model.modes)
    assert model.training


def test_samples_depend_on_the_seed_and_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (run(Counter(), temperature=1e3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("num_generated", [1, 8])
def test_sheet_shows_the_last_class_in_the_last_row(num_generated: int) -> None:
    images = torch.zeros(10, num_generated, 8, 8, dtype=torch.long)
    real = torch.zeros(10, 2, 8, 8, dtype=torch.long)
    blank = draw_sheet(images, real, "title", "subtitle")
    images[9, -1] = 16
    inked = draw_sheet(images, real, "title", "subtitle")
    changed = ImageChops.difference(blank, inked).getbbox()
    assert changed is not None
    left, top, right, bottom = changed
    assert (right - left, bottom - top) == (64, 64)
    assert blank.height - bottom < 64
