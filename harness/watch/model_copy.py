"""Copies a trained model, so that the copy can be called after the run; says where that would do harm."""

from __future__ import annotations

import collections
import copy
import types
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.watch.passes import count_bytes

MAX_MODEL_BYTES = 32 * 2**20
MAX_OBJECTS = 20_000
"""As many small objects are copied in a tenth of a second."""
MAX_PARTS = 100_000
"""Of one collection, which numbers and texts make up as a rule: a table of tokens is as long."""
WRAPPED = ("OptimizedModule", "DistributedDataParallel", "FullyShardedDataParallel", "DataParallel")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Hooks of torch itself that a model can't do without, such as those of spectral_norm.
OWN_HOOKS = "torch.nn.utils"
SHARED = ("_trainer", "_fabric")
"""Attributes of Lightning's modules that lead to all the rest of a program."""
PLAIN = (
    bool,
    int,
    float,
    str,
    bytes,
    type,
    type(None),
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
)
"""What a copy shares, or what costs it nothing."""


def find_obstacle_to_copy(module: nn.Module) -> str | None:
    """Why a model can't be copied and called without harm; None when it can."""
    distributed = torch.distributed
    if any(type(part).__name__ in WRAPPED for part in module.modules()) or (
        distributed.is_available() and distributed.is_initialized()
    ):
        return "it is compiled or distributed"
    tensors = [*module.parameters(), *module.buffers()]
    if any(type(tensor) not in {torch.Tensor, nn.Parameter} or tensor.is_meta for tensor in tensors):
        return "its parameters are of a class of their own"
    if count_bytes(tensors) > MAX_MODEL_BYTES:
        return f"it holds more than {MAX_MODEL_BYTES // 2**20} MiB"
    if any(_has_own_hooks(part) for part in module.modules()):
        return "it has hooks of its own"
    if any(isinstance(value, Optimizer) for part in module.modules() for value in vars(part).values()):
        return "it holds an optimizer"
    return None if _is_light(module) else "it holds many objects, or large ones, beside its parameters"


def _is_light(module: nn.Module) -> bool:
    """Whether what a model holds beside its tensors is little: no data set, no replay buffer, no environment."""
    waiting: list[Any] = [
        value
        for part in module.modules()
        for name, value in vars(part).items()
        if name not in SHARED and not name.startswith("_forward") and not name.startswith("_backward")
    ]
    seen = {id(part) for part in module.modules()}
    num_bytes = 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (*PLAIN, nn.Parameter)):
            continue
        seen.add(id(value))
        # A teacher, say, that a list keeps out of the model's own modules.
        is_hidden = isinstance(value, nn.Module)
        size = (
            count_bytes([*value.parameters(), *value.buffers()]) if is_hidden else getattr(value, "nbytes", 0)
        )
        num_bytes += size if isinstance(size, int) else 0
        if len(seen) > MAX_OBJECTS or num_bytes > MAX_MODEL_BYTES:
            return False
        parts = (
            [*value.keys(), *value.values()]
            if isinstance(value, dict)
            else value
            if isinstance(value, (list, tuple, set, frozenset, collections.deque))
            else getattr(value, "__dict__", {}).values()
        )
        if len(parts) > MAX_PARTS:
            return False
        waiting += parts
    return True


def _has_own_hooks(module: nn.Module) -> bool:
    hooks = [hook for name in HOOKS for hook in getattr(module, name, {}).values()]
    return any(
        not str(getattr(hook, "__module__", type(hook).__module__)).startswith(OWN_HOOKS) for hook in hooks
    )


def copy_model(module: nn.Module) -> nn.Module:
    """A copy without gradients; what refers to a trainer is shared."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for name in SHARED:
            if (holder := vars(part).get(name)) is not None:
                memo[id(holder)] = holder
    for parameter in module.parameters():
        if id(parameter) not in memo:
            # Copied by hand, as copy.deepcopy would copy gradients too.
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    return copy.deepcopy(module, memo)


def bring_up_to_date(model: nn.Module, module: nn.Module) -> bool:
    """Gives an earlier copy of a model its present values; False where the model is no longer built that way."""
    copies, tensors = ([*part.parameters(), *part.buffers()] for part in (model, module))
    if [tensor.shape for tensor in copies] != [tensor.shape for tensor in tensors]:
        return False
    with torch.no_grad():
        for kept, tensor in zip(copies, tensors, strict=True):
            kept.copy_(tensor)
    return True
