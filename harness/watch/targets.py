"""Looks at targets beside what the model was called with: labels, padding, and what can be reached."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.deep import LossFunctionObservation

REACH = {
    "relu": (0.0, None),
    "threshold": (0.0, None),
    "softplus": (0.0, None),
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}
"""The smallest and the largest number an operation can give."""
REACH_TOLERANCE = 1e-3
NUM_DIMENSIONS_OF_TOKENS = 2
SHIFTS = (1, 0, 2, -1, 3)
SHARE_OF_MATCHES = 0.98
MAX_SHARE_OF_OTHERS = 0.3
MIN_COUNTED = 16
MIN_ROWS = 2
MIN_LENGTH = 4
MIN_TAIL = 2
NUM_FIRST = 512
MIN_SHARE_OF_ROWS = 0.25


def note_reach(found: LossFunctionObservation, targets: torch.Tensor) -> None:
    """Notes the range of the targets, and what share of them the inputs can never equal."""
    if not targets.numel() or targets.is_complex():
        return
    low, high = targets.aminmax()
    found.target_range = (float(low), float(high))
    if found.made_by not in REACH:
        return
    least, most = REACH[found.made_by]
    is_out = torch.zeros_like(targets, dtype=torch.bool)
    if least is not None:
        is_out |= targets < least - REACH_TOLERANCE
    if most is not None:
        is_out |= targets > most + REACH_TOLERANCE
    share = float(is_out.float().mean())
    found.share_out_of_reach = share or None


def _list_likely_shifts(rows: torch.Tensor, tokens: torch.Tensor, ignore_index: int | None) -> list[int]:
    """The shifts that the first rows do not rule out, which takes a dozen operations each to tell for sure."""
    ignored = -1 if ignore_index is None else ignore_index
    num_rows = max(1, NUM_FIRST // max(tokens.shape[1], 1))
    given, wanted = (part[:num_rows, :NUM_FIRST].tolist() for part in (tokens, rows))
    likely = []
    for shift in SHIFTS:
        most = (1.0 - SHARE_OF_MATCHES) * tokens.numel() + tokens.shape[0] * abs(shift)
        num_others = sum(
            after not in (before, ignored)
            for inputs, targets in zip(given, wanted, strict=True)
            for before, after in zip(inputs[max(shift, 0) :], targets[max(-shift, 0) :], strict=False)
        )
        if num_others <= most:
            likely.append(shift)
    return likely


def note_shift(found: LossFunctionObservation, targets: torch.Tensor, inputs: Sequence[torch.Tensor]) -> None:
    """Notes by how many places the targets that count are the model's input tokens moved on."""
    shifts = [
        shift
        for tokens in inputs
        if _is_tokens(tokens) and targets.numel() == tokens.numel()
        for shift in _list_likely_shifts(targets.reshape(tokens.shape), tokens, found.ignore_index)
        if _is_shifted(targets.reshape(tokens.shape), tokens, shift, found.ignore_index)
    ]
    # Where several fit, as in a sequence of one token only, the usual one does.
    found.target_shift = 1 if 1 in shifts else next(iter(shifts), None)


def _is_shifted(rows: torch.Tensor, tokens: torch.Tensor, shift: int, ignore_index: int | None) -> bool:
    length = tokens.shape[1] - abs(shift)
    if length < MIN_LENGTH:
        return False
    given = tokens[:, max(shift, 0) :][:, :length]
    wanted = rows[:, max(-shift, 0) :][:, :length]
    is_counted = torch.ne(wanted, -1 if ignore_index is None else ignore_index)
    num_counted = int(is_counted.sum())
    if num_counted < MIN_COUNTED:
        return False
    # The last targets of each row lie beyond what the model was called with.
    num_beyond = tokens.shape[0] * abs(shift)
    num_others = num_counted - int((given == wanted)[is_counted].sum())
    allowed = (1.0 - SHARE_OF_MATCHES) * num_counted + num_beyond
    return num_others <= min(allowed, MAX_SHARE_OF_OTHERS * num_counted)


def _is_tokens(tokens: torch.Tensor) -> bool:
    is_whole = not tokens.is_floating_point() and tokens.dtype != torch.bool
    return is_whole and tokens.dim() == NUM_DIMENSIONS_OF_TOKENS


def note_padding(
    found: LossFunctionObservation, targets: torch.Tensor, inputs: Sequence[torch.Tensor]
) -> None:
    """Notes whether targets that count are padding, as the rows of the model's inputs show it."""
    for tokens in inputs:
        if not _is_tokens(tokens):
            continue
        num_rows, length = tokens.shape
        if (
            num_rows < MIN_ROWS
            or length < MIN_LENGTH
            or targets.numel()
            not in (
                num_rows * length,
                num_rows * (length - 1),
            )
        ):
            continue
        rows = targets.reshape(num_rows, -1)
        for is_turned in (False, True):
            padding = find_padding(tokens.flip(1) if is_turned else tokens)
            if padding is None:
                continue
            found.padding_id = padding
            if padding == found.ignore_index:
                return
            num_counted = round((1.0 - (found.share_ignored or 0.0)) * rows.numel())
            # Shifting may have left ignored places behind the padding.
            ignored = padding if found.ignore_index is None else found.ignore_index
            filled = _find_fill(rows.masked_fill(rows == ignored, padding), padding, is_turned=is_turned)
            # What follows on the last token may stand for the end of the sequence, which is to be learned.
            is_filled = _find_fill(tokens, padding, is_turned=is_turned)[:, : rows.shape[1]]
            is_scored = filled & is_filled & (rows == padding)
            found.share_padding = int(is_scored.sum()) / max(num_counted, 1)
            return


def find_padding(tokens: torch.Tensor) -> int | None:
    """The token that fills up rows of different lengths and, but for a first one, stands nowhere else.

    None where there is none, or all rows are of one length.
    """
    # Most tokens are not padded, and the last columns tell so at once.
    ends = tokens[:, -MIN_TAIL:].tolist()
    counts = collections.Counter(row[-1] for row in ends)
    candidate = min(token for token, count in counts.items() if count == max(counts.values()))
    if sum(set(row) == {candidate} for row in ends) < MIN_SHARE_OF_ROWS * len(ends):
        return None
    lengths = find_tails(tokens, candidate).sum(1)
    num_elsewhere = int((tokens[:, 1:] == candidate).sum()) - int(
        lengths.clamp_max(tokens.shape[1] - 1).sum()
    )
    is_uneven = bool(lengths.min() < lengths.max())
    share = float((lengths >= MIN_TAIL).float().mean())
    return candidate if is_uneven and num_elsewhere == 0 and share >= MIN_SHARE_OF_ROWS else None


def _find_fill(tokens: torch.Tensor, token: int, *, is_turned: bool) -> torch.Tensor:
    return find_tails(tokens.flip(1), token).flip(1) if is_turned else find_tails(tokens, token)


def find_tails(tokens: torch.Tensor, token: int) -> torch.Tensor:
    """Which places belong to a run of a token that goes on to the end of its row."""
    return (tokens == token).flip(1).long().cumprod(1).flip(1).bool()
