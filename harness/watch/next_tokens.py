"""Tells whether the labels of a loss are the tokens that the model was called with, shifted by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN_DIMENSIONS = 2
MIN_LENGTH = 3
MIN_SHARE = 0.95
"""Padding that is scored, or tokens that were masked out, may differ."""


@dataclass(slots=True)
class TargetNote:
    """Which input the labels follow from.

    Attributes:
        tokens: The input, as it was captured.
        time: Its dimension of positions, 0 or 1.
        is_scored: Where outputs count, by position, in the shape of the tokens.
    """

    tokens: torch.Tensor
    time: int
    is_scored: torch.Tensor


def find_token_input(batch: Any, targets: Sequence[tuple[torch.Tensor, int]]) -> TargetNote | None:
    """The token input that the labels of a loss are the continuation of; None where none is."""
    candidates = [tensor for tensor in _list_token_inputs(batch) if min(tensor.shape) > 0]
    for labels, ignore_index in targets:
        for tokens in candidates:
            for time in (1, 0):
                if (is_scored := _match(tokens, labels, ignore_index, time)) is not None:
                    return TargetNote(tokens, time, is_scored)
    return None


def _list_token_inputs(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        is_tokens = value.dim() == TOKEN_DIMENSIONS and value.dtype in {torch.int64, torch.int32}
        return [value] if is_tokens else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _list_token_inputs(part)]


def _match(tokens: torch.Tensor, labels: torch.Tensor, ignore_index: int, time: int) -> torch.Tensor | None:
    """Where outputs are scored, if the labels are the tokens shifted by one along a dimension; else None."""
    length = tokens.shape[time]
    if length < MIN_LENGTH or labels.is_floating_point() or labels.device != tokens.device:
        return None
    following = tokens.narrow(time, 1, length - 1)
    if labels.numel() == tokens.numel():
        given = labels.reshape(tokens.shape).narrow(time, 0, length - 1)
        all_given = labels.reshape(tokens.shape)
    elif labels.numel() == following.numel():
        given = labels.reshape(following.shape)
        all_given = given
    else:
        return None
    counts = given != ignore_index
    num_counted = int(counts.sum())
    same = int(((given == following) & counts).sum())
    unshifted = int(((given == tokens.narrow(time, 0, length - 1)) & counts).sum())
    if not num_counted or same < MIN_SHARE * num_counted or unshifted >= same:
        return None
    is_scored = torch.zeros_like(tokens, dtype=torch.bool)
    is_scored.narrow(time, 0, all_given.shape[time]).copy_(all_given != ignore_index)
    return is_scored
