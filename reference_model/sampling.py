"""Lets the model write: token after token from a prompt."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts_NT: Tensor,
    *,
    num_tokens: int,
    num_choices: int,
    temperature: float,
    seed: int,
) -> Tensor:
    """Sequences [N, T + num_tokens] that continue the prompts.

    The samples depend on the seed, not on the global random state, and the model returns to its mode.

    Args:
        model: gives logits [N, T, V] for tokens [N, T].
        prompts_NT: first tokens of each sequence, on the model's device.
        num_tokens: tokens to add.
        num_choices: tokens 0 to num_choices - 1 may be drawn; the others only ever start a sequence.
        temperature: divides the logits.
        seed: of the draws.
    """
    was_training = model.training
    model.eval()
    # Drawn on the CPU, so that one seed gives the same draws on every device.
    generator = torch.Generator().manual_seed(seed)
    tokens_NT = prompts_NT
    for _ in range(num_tokens):
        logits_NV = model(tokens_NT)[:, -1, :num_choices].float().cpu()
        next_N1 = torch.multinomial((logits_NV / temperature).softmax(-1), 1, generator=generator)
        tokens_NT = torch.cat([tokens_NT, next_N1.to(tokens_NT.device)], dim=1)
    model.train(was_training)
    return tokens_NT
