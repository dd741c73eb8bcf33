"""The calls of models in a step: whether the first that differs has other input, or makes something else of it."""

from __future__ import annotations

import re
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING

from harness.baselines.pairs import Difference
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.baselines.pairs import Pair

SIGNS = 3
"""Of a fingerprint: one in 260,000 is that of something else."""
NOTHING = "-" * SIGNS
MODES = {"training": "t", "eval": "e", "without gradients": "n"}
WORD = re.compile(r"([ten]\d+:)(.{3})(.{3})(.{3})")
"""A call: its mode and its model, then fingerprints of the generator, of what it was given and of what it gave."""


def write_calls(calls: Iterable[tuple[str, int, str, str, str]]) -> str:
    """The calls of a step, as the trace has them, a word each; nothing where there is only one."""
    words = [
        f"{MODES[mode]}{position}:" + "".join(map(_shorten, prints)) for mode, position, *prints in calls
    ]
    return " ".join(words) if len(words) > 1 else ""


def _shorten(fingerprint: str) -> str:
    if not fingerprint:
        return NOTHING
    return b64encode(zlib.crc32(fingerprint.encode()).to_bytes(4, "big")).decode()[:SIGNS]


def compare_calls(pair: Pair) -> Iterator[Difference]:
    """The first call that differs: draws before it, what the model was called with, or what it gave.

    Calls of another model or mode tell nothing, as those of an evaluation that one of the runs makes in this step
    alone. None of it moves a training by itself.
    """
    calls = zip(_read(pair.before.calls), _read(pair.now.calls), strict=False)
    number, (before, now) = next(
        ((number, both) for number, both in enumerate(calls, 1) if both[0] != both[1]), (0, ((), ()))
    )
    if not number or before[0] != now[0] or NOTHING in (*before, *now):
        return
    differs = [one != other for one, other in zip(before[1:], now[1:], strict=True)]
    if differs[0]:
        # Draws before the first call are told of the step as a whole.
        if number > 1:
            yield _describe(
                Phase.RNG, f"draws before model call {number} of the step", "another state of the generator"
            )
    elif differs[1]:
        yield _describe(Phase.DATA, f"input of model call {number} of the step", "other contents")
    else:
        yield _describe(Phase.FORWARD, f"output of model call {number} of the step", "other values")


def _describe(phase: Phase, item: str, change: str) -> Difference:
    return Difference(phase, item, change, moves=False, is_of_call=True)


def _read(text: str) -> list[tuple[str, ...]]:
    """The parts of every word; text that is no call ends it."""
    found = []
    for word in text.split():
        match = WORD.fullmatch(word)
        if match is None:
            break
        found.append(match.groups())
    return found


def has_other_calls(pair: Pair) -> bool:
    """Whether models that train are known to have been given, or to have given, something else in one of the calls."""
    before, now = (
        [parts for parts in _read(text) if parts[0].startswith(MODES["training"])]
        for text in (pair.before.calls, pair.now.calls)
    )
    return bool(before and now) and before != now
