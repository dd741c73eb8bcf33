"""Counts the units of a ReLU that give nothing for a whole batch, where the next layer gets them."""

from __future__ import annotations

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_dead_units(module: nn.Module, args: object) -> tuple[int, int] | None:
    """How many units a linear or convolutional layer gets, and how many of them are 0 for the whole batch.

    None where the inputs are not what a ReLU gives, none of them below 0, or are data: where no gradient flows
    through them.
    """
    inputs = args[0] if isinstance(args, tuple) and args else None
    if not isinstance(inputs, torch.Tensor) or not inputs.requires_grad or not inputs.numel():
        return None
    if isinstance(module, CONVOLUTIONS):
        if inputs.dim() != module.weight.dim():
            return None
        dimension = 1
    elif isinstance(module, nn.Linear):
        dimension = inputs.dim() - 1
    else:
        return None
    values = getattr(inputs, "_local_tensor", inputs).detach()
    if float(values.amin()) < 0:
        return None
    # Without a copy: activations are what a step's memory goes into.
    others = [other for other in range(values.dim()) if other != dimension]
    highest = values.amax(others) if others else values
    return int(values.shape[dimension]), int((highest == 0).sum())
