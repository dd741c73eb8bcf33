"""The tensors that a model is called with on a deep step: which are its inputs, and what they hold."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from harness.record.deep import InputObservation
from harness.watch.naming import unwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TENSORS = 8
MAX_NUMBERS = 2**20
MAX_COMPARED = 2**18
LABELS = ("label", "target")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def list_inputs(module: torch.nn.Module, args: object, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors a model is called with, without those that its forward calls labels.

    Of positional ones whose names can't be told, the first alone.
    """
    positional = list(args) if isinstance(args, (list, tuple)) else [args]
    names = _list_positional_names(unwrap(module))
    names += ["", *[LABELS[0]] * len(positional)][bool(names) :]
    named = [*zip(names, positional, strict=False), *((name, value) for name, value in kwargs.items())]
    return [value for name, value in named if isinstance(value, torch.Tensor) and not _is_label(name)]


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


def _list_positional_names(module: torch.nn.Module) -> list[str]:
    """The names of what a model's forward takes by position; empty where they can't be told."""
    function = getattr(module.forward, "__func__", None)
    code = getattr(function, "__code__", None)
    if code is not None and not hasattr(function, "__wrapped__"):
        # A signature takes as long to read as twenty tensor operations.
        return list(code.co_varnames[1 : code.co_argcount])
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [parameter.name for parameter in parameters if parameter.kind in POSITIONAL]


def _is_label(name: str) -> bool:
    return name == "y" or any(word in name.lower() for word in LABELS)
