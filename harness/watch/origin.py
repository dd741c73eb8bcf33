"""Finds where a loss that is not finite comes from, in its graph, before the backward frees it."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import torch

from harness.watch.graph import SAME_VALUES, name_operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harness.record.observation import NonFiniteObservation

MAX_NODES = 20_000
MAX_NAMES = 4
RISKY = (
    "sqrt",
    "rsqrt",
    "pow",
    "log",
    "log2",
    "log10",
    "div",
    "reciprocal",
    "acos",
    "asin",
    "atan2",
    "exp",
    "norm",
)
"""Operations whose result or gradient is not finite at the edge of what they are made for."""
STEEP = {
    "sqrt": ("result", 0.0),
    "rsqrt": ("result", float("inf")),
    "pow": ("self", 0.0),
    "log": ("self", 0.0),
    "acos": ("self", 1.0),
    "asin": ("self", 1.0),
}
"""What an operation saved, and the size at which its gradient is infinite."""
OUTPUTS = ("result", "result0", "output", "out")


def note_non_finite_parameters(
    found: NonFiniteObservation, parameters: Iterable[torch.Tensor], names: dict[int, str]
) -> None:
    """Notes which parameters hold numbers that are not finite."""
    held = list(parameters)
    broken = [parameter for parameter in held if not _is_finite(parameter)]
    found.num_all_parameters = len(held)
    found.num_parameters = len(broken)
    found.parameters = [names.get(id(parameter), "?") for parameter in broken[:MAX_NAMES]]


def note_origin(found: NonFiniteObservation, loss: torch.Tensor, names: dict[int, str]) -> None:
    """Notes the first operation of the forward pass that shows a number that is not finite.

    What the nodes saved for the backward is looked at in the order in which they were made. What hooks have
    packed away, as those of activation checkpointing have, is left alone.
    """
    nodes = sorted(_list_nodes(loss), key=_find_position)
    counts = collections.Counter(name for node in nodes if (name := name_operation(node)) in RISKY)
    found.risky_operations = dict(counts)
    for judge in (_judge, _judge_minus_infinity):
        for node in nodes:
            if (seen := judge(node)) is None:
                continue
            found.operation, found.detail = name_operation(node), seen
            parents = list(_list_ancestors(node))
            plain = [name_operation(parent) for parent in parents if not hasattr(parent, "variable")]
            found.before = plain[:MAX_NAMES]
            is_from_data = seen.startswith("was given") and not found.num_parameters
            found.is_from_data = is_from_data and all(_is_parameter(parent) for parent in parents)
            found.after = [
                names[id(parent.variable)]
                for parent in parents
                if hasattr(parent, "variable") and id(parent.variable) in names
            ][:2]
            return


def _is_parameter(node: Any) -> bool:
    return hasattr(node, "variable") or name_operation(node) in SAME_VALUES


def find_steep_operations(loss: torch.Tensor) -> list[str]:
    """Operations that were given numbers at which their gradient is infinite, such as "sqrt of 0"."""
    found: dict[str, None] = {}
    for node in _list_nodes(loss):
        name = name_operation(node)
        if name not in STEEP:
            continue
        role, edge = STEEP[name]
        saved = _read_saved(node)
        if role in saved and bool((saved[role].abs() == edge).any()) and _has_steep_exponent(node, name):
            found[f"{name} of {edge:g}"] = None
    return list(found)[:MAX_NAMES]


def _has_steep_exponent(node: Any, name: str) -> bool:
    exponent = getattr(node, "_saved_exponent", None)
    return name != "pow" or (isinstance(exponent, (int, float)) and exponent < 1)


def _list_nodes(loss: torch.Tensor) -> list[Any]:
    nodes: dict[Any, None] = {}
    waiting: list[Any] = [loss.grad_fn]
    while waiting and len(nodes) < MAX_NODES:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes[node] = None
        waiting += [before for before, _ in node.next_functions]
    return list(nodes)


def _find_position(node: Any) -> int:
    return int(node._sequence_nr())  # noqa: SLF001  no public name


def _list_ancestors(node: Any) -> Iterator[Any]:
    """The nodes before a node, nearest first, itself left out."""
    seen = {node}
    waiting = collections.deque(before for before, _ in node.next_functions if before is not None)
    while waiting and len(seen) < MAX_NODES:
        before = waiting.popleft()
        if before in seen:
            continue
        seen.add(before)
        yield before
        waiting.extend(earlier for earlier, _ in before.next_functions if earlier is not None)


def _read_saved(node: Any) -> dict[str, torch.Tensor]:
    """What a node saved for its backward, by name, where reading it runs nothing."""
    saved = {}
    for name in dir(node):
        if not name.startswith("_raw_saved_"):
            continue
        try:
            packed = getattr(node, name)
            # Older versions of torch do not say whether a hook would be run.
            if getattr(packed, "unpack_hook", packed) is not None:
                continue
            value = getattr(node, name.replace("_raw", "", 1))
        except RuntimeError:
            # Freed by an earlier backward, or written to since.
            continue
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
            saved[name.removeprefix("_raw_saved_")] = value.detach()
    return saved


def _judge(node: Any) -> str | None:
    """How a node shows the number; None where it does not."""
    saved = _read_saved(node)
    if not saved:
        return None
    name = name_operation(node)
    if (edge := EDGES.get(name)) is not None:
        role, is_over, told = edge
        if role in saved and is_over(saved[role]):
            return told
    for role, value in saved.items():
        if not bool(torch.isfinite(value).all()) and (seen := _tell(value, role, name)) is not None:
            return seen
    return None


def _tell(value: torch.Tensor, role: str, name: str) -> str | None:
    has_nan = bool(torch.isnan(value).any())
    if not has_nan and not bool((value == torch.inf).any()):
        return None
    number = "NaN" if has_nan else "infinity"
    if role not in OUTPUTS:
        return f"was given {number}"
    if name in ("softmax", "softmax_backward", "log_softmax") and has_nan:
        return "gave NaN: a whole row of its input was minus infinity, or the input was not finite"
    return f"gave {number}"


def _judge_minus_infinity(node: Any) -> str | None:
    """The same for minus infinity, which masks hold on purpose, so that it is the last thing to suspect."""
    for role, value in _read_saved(node).items():
        if bool((value == -torch.inf).any()):
            return "gave minus infinity" if role in OUTPUTS else "was given minus infinity"
    return None


def _is_finite(tensor: torch.Tensor) -> bool:
    local = getattr(tensor, "_local_tensor", tensor).detach()
    return bool(torch.isfinite(local).all())


EDGES: dict[str, tuple[str, Callable[[torch.Tensor], bool], str]] = {
    "log": ("self", lambda value: bool((value <= 0).any()), "was given 0 or less"),
    "log2": ("self", lambda value: bool((value <= 0).any()), "was given 0 or less"),
    "log10": ("self", lambda value: bool((value <= 0).any()), "was given 0 or less"),
    "log1p": ("self", lambda value: bool((value <= -1).any()), "was given -1 or less"),
    "div": ("other", lambda value: bool((value == 0).any()), "divided by 0"),
    "reciprocal": ("result", lambda value: bool(torch.isinf(value).any()), "divided by 0"),
    "rsqrt": ("result", lambda value: bool(torch.isinf(value).any()), "was given 0"),
    "sqrt": ("result", lambda value: bool(torch.isnan(value).any()), "was given a negative number"),
    "exp": ("result", lambda value: bool(torch.isinf(value).any()), "overflowed"),
}
"""What an operation saved, when that is over its edge, and how it is told."""
