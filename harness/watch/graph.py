"""Reads autograd's graph: which operation made a tensor, and how shapes grew.

Only names, shapes and links are read; what nodes saved for the backward is left alone, as unpacking it may run
a forward pass again.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

MAX_STEPS = 32
MAX_LOSS_NODES = 64
SAME_VALUES = frozenset(
    [
        "alias",
        "as_strided",
        "clone",
        "expand",
        "flatten",
        "index",
        "permute",
        "reshape_alias",
        "select",
        "slice",
        "split",
        "squeeze",
        "t",
        "to_copy",
        "transpose",
        "unbind",
        "unsafe_view",
        "unsqueeze",
        "view",
    ]
)
"""Operations after which the values are those of before: views, copies, casts and selections."""
ELEMENTWISE = frozenset(
    [
        "abs",
        "add",
        "clamp",
        "clamp_min",
        "clone",
        "div",
        "exp",
        "log",
        "mean",
        "mul",
        "neg",
        "pow",
        "relu",
        "rsub",
        "sqrt",
        "square",
        "sub",
        "sum",
        "to_copy",
        "where",
    ]
)
"""Operations that a loss written by hand is made of."""
EXPLICIT = frozenset(("unsqueeze", "expand", "repeat"))
"""Operations with which a program asks for a broadcast."""


def name_operation(node: Any) -> str:
    """The operation a node stands for, such as `log_softmax`."""
    return _shorten(str(node.name()))


@functools.lru_cache(maxsize=1024)
def _shorten(name: str) -> str:
    plain = re.sub(r"Backward\d*$", "", name.rpartition("::")[2])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()


def find_maker(tensor: torch.Tensor) -> str | None:
    """The operation that made the values of a tensor, views and casts aside; None outside a graph."""
    node: Any = tensor.grad_fn
    for _ in range(MAX_STEPS):
        if node is None:
            return None
        name = name_operation(node)
        if name not in SAME_VALUES:
            return name
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return None


def find_grown_shape(loss: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shapes of a prediction and of its difference from a target, where N of them became N times N.

    A column less a row of the same length gives a square. Where the program itself put the dimension in, or both
    sides have a graph, as in pairwise losses, it was meant.
    """
    for node in _walk_loss(loss):
        if name_operation(node) not in ("sub", "rsub"):
            continue
        parents = [(before, output) for before, output in node.next_functions if before is not None]
        if len(parents) != 1 or name_operation(parents[0][0]) in EXPLICIT:
            continue
        before, output = parents[0]
        given, grown = _shape_of(before, output), _shape_of(node, 0)
        if given is None or grown is None:
            continue
        length = max(given, default=1)
        is_line = length > 1 and sum(size > 1 for size in given) == 1
        if is_line and grown == (length, length):
            return given, grown
    return None


def _walk_loss(loss: torch.Tensor) -> Iterator[Any]:
    """The nodes between a loss and the model: only what losses are written with."""
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while waiting and len(seen) < MAX_LOSS_NODES:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = name_operation(node)
        if name in ELEMENTWISE or name in SAME_VALUES:
            yield node
            waiting += [before for before, _ in node.next_functions]


def _shape_of(node: Any, output: int) -> tuple[int, ...] | None:
    metadata = getattr(node, "_input_metadata", None)
    return None if not metadata or output >= len(metadata) else tuple(metadata[output].shape)
