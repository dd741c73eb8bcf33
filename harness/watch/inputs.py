"""Measures the tensors that a model is called with on a deep step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.record.deep import InputObservation

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TENSORS = 8
MAX_NUMBERS = 2**20
MAX_COMPARED = 2**18


def measure_inputs(tensors: Sequence[torch.Tensor]) -> list[InputObservation]:
    """The range of each tensor, and whether its samples differ; those that can't be measured are left out."""
    found = []
    for tensor in tensors[:MAX_TENSORS]:
        local = getattr(tensor, "_local_tensor", tensor).detach()
        if local.layout is torch.strided and local.device.type != "meta" and not local.is_complex():
            try:
                found.append(_measure(local))
            # Inside the transforms of torch.func a tensor has no values of its own.
            except (RuntimeError, NotImplementedError):
                continue
    return found


def _measure(tensor: torch.Tensor) -> InputObservation:
    found = InputObservation(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
    with torch.no_grad():
        numbers = tensor.reshape(-1)
        numbers = numbers[:: max(1, numbers.numel() // MAX_NUMBERS)]
        if numbers.is_floating_point():
            found.num_nan = int(numbers.isnan().sum())
            found.num_inf = int(numbers.isinf().sum())
            if found.num_nan or found.num_inf:
                numbers = numbers[numbers.isfinite()]
        numbers = numbers.double()
        if numbers.numel():
            low, high = numbers.aminmax()
            found.minimum, found.maximum = float(low), float(high)
            std, mean = torch.std_mean(numbers, correction=0)
            found.mean, found.std = float(mean), float(std)
        if tensor.dim() > 1 and tensor.shape[0] > 1:
            samples = tensor.reshape(tensor.shape[0], -1)
            samples = samples[:, : max(1, MAX_COMPARED // tensor.shape[0])]
            found.are_samples_equal = bool((samples == samples[:1]).all()) if samples.numel() else None
    return found
