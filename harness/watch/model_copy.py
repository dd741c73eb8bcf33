"""Copies a trained model, so that the copy can be called after the run; says where that would do harm."""

from __future__ import annotations

import collections
import copy
import functools
import types
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.watch.members import list_buffers, list_parameters
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
ATOMS = frozenset((*PLAIN, torch.dtype, torch.device, torch.Size))
COLLECTIONS = frozenset({dict, collections.OrderedDict, set})
COPYING = (
    "__copy__",
    "__deepcopy__",
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__new__",
)
"""With what a class says how it is to be copied."""


def find_obstacle_to_copy(module: nn.Module) -> str | None:
    """Why a model can't be copied and called without harm; None when it can."""
    if (obstacle := find_obstacle_to_call(module)) is not None:
        return obstacle
    tensors = [*list_parameters(module), *list_buffers(module)]
    if any(type(tensor) not in {torch.Tensor, nn.Parameter} or tensor.is_meta for tensor in tensors):
        return "its parameters are of a class of their own"
    if count_bytes(tensors) > MAX_MODEL_BYTES:
        return f"it holds more than {MAX_MODEL_BYTES // 2**20} MiB"
    if any(isinstance(value, Optimizer) for part in module.modules() for value in vars(part).values()):
        return "it holds an optimizer"
    return None if _is_light(module) else "it holds many objects, or large ones, beside its parameters"


def find_obstacle_to_call(module: nn.Module) -> str | None:
    """Why a model can't be called without harm, even where a copy of it is there already."""
    parts = [*module.modules()]
    distributed = torch.distributed
    if any(type(part).__name__ in WRAPPED for part in parts) or (
        distributed.is_available() and distributed.is_initialized()
    ):
        return "it is compiled or distributed"
    return "it has hooks of its own" if any(map(_has_own_hooks, parts)) else None


def _is_light(module: nn.Module) -> bool:
    """Whether what a model holds beside its tensors is little: no data set, no replay buffer, no environment."""
    waiting: list[Any] = [
        value
        for part in module.modules()
        for name, value in vars(part).items()
        if name not in SHARED
        and (type(value) not in COLLECTIONS or value)
        and not name.startswith(("_forward", "_backward"))
    ]
    seen = {id(part) for part in module.modules()}
    num_bytes = 0
    while waiting:
        value = waiting.pop()
        if type(value) in ATOMS or id(value) in seen or isinstance(value, (*PLAIN, nn.Parameter)):
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
    attributes = vars(module)
    hooks = [hook for name in HOOKS if (held := attributes.get(name)) for hook in held.values()]
    return any(
        not str(getattr(hook, "__module__", type(hook).__module__)).startswith(OWN_HOOKS) for hook in hooks
    )


def copy_model(module: nn.Module, *, shares_parameters: bool = False) -> nn.Module:
    """A copy without gradients; what refers to a trainer is shared, and so may be the parameters."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for name in SHARED:
            if (holder := vars(part).get(name)) is not None:
                memo[id(holder)] = holder
    for parameter in list_parameters(module):
        if shares_parameters:
            memo[id(parameter)] = parameter
        elif id(parameter) not in memo:
            # Copied by hand, as copy.deepcopy would copy gradients too.
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    return _copy_part(module, memo)


def _copy_part(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """As `copy.deepcopy`, which takes ten times as long for what all modules hold: empty mappings, and flags."""
    if (known := memo.get(id(module))) is not None:
        return known  # type: ignore[no-any-return]
    kind = type(module)
    if not _is_copied_plainly(kind):  # type: ignore[arg-type]
        return copy.deepcopy(module, memo)
    memo[id(module)] = made = kind.__new__(kind)
    state: dict[str, Any] = {}
    for name, value in vars(module).items():
        if type(value) in ATOMS or (type(value) is tuple and all(type(part) in ATOMS for part in value)):
            state[name] = value
        elif name == "_modules":
            state[name] = {key: part and _copy_part(part, memo) for key, part in value.items()}
        elif name == "_parameters":
            state[name] = {key: part if part is None else memo[id(part)] for key, part in value.items()}
        elif type(value) in COLLECTIONS and not value:
            state[name] = type(value)()
        else:
            state[name] = copy.deepcopy(value, memo)
    if kind.__setstate__ is nn.Module.__setstate__:
        vars(made).update(state)
    else:
        made.__setstate__(state)  # type: ignore[no-untyped-call]
    return made


@functools.lru_cache(maxsize=512)
def _is_copied_plainly(kind: type[nn.Module]) -> bool:
    """Whether a class leaves it to `nn.Module` how it is copied."""
    return all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in COPYING) and not any(
        "__slots__" in base.__dict__ for base in kind.__mro__
    )


def bring_up_to_date(model: nn.Module, module: nn.Module) -> bool:
    """Gives an earlier copy of a model its present values; False where the model is no longer built that way."""
    copies, tensors = ([*list_parameters(part), *list_buffers(part)] for part in (model, module))
    if [tensor.shape for tensor in copies] != [tensor.shape for tensor in tensors]:
        return False
    if copies:
        with torch.no_grad():
            torch._foreach_copy_(copies, tensors)
    return True
