"""The calls of models in a step: whether the first that differs has other input, or makes something else of it."""

from __future__ import annotations

import re
import zlib
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING

from harness.baselines.pairs import Difference
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.baselines.pairs import Pair
    from harness.record.trace import ModelCall

SIGNS = 3
"""Of a fingerprint: one in 260,000 is that of something else."""
NOTHING = "-" * SIGNS
MODES = {(True, True): "t", (False, True): "e", (True, False): "u", (False, False): "v"}
"""A letter for a mode, training or not, with gradients or without; a capital one where the input is made."""
WORD = re.compile(r"([teuvTEUV])(\d+):(.{3})(.{3})(.{3})")
"""A call: its mode and its model, then fingerprints of the generator, of what it was given and of what it gave."""
FEW = 3
"""Calls of one model in one mode that are kept of later steps."""


def write_calls(calls: Iterable[ModelCall], *, all_of_them: bool) -> str:
    """The calls of a step, as the trace has them, a word each; nothing where there is only one."""
    counts: Counter[str] = Counter()
    words = []
    for call in calls:
        mode = MODES[call.is_training, call.has_gradient]
        counts[f"{mode}{call.model}"] += 1
        if all_of_them or counts[f"{mode}{call.model}"] <= FEW:
            prints = "".join(map(_shorten, (call.generator, call.given, call.gave)))
            words.append(f"{mode.upper() if call.is_made else mode}{call.model}:{prints}")
    return " ".join(words) if len(words) > 1 else ""


def _shorten(fingerprint: str) -> str:
    if not fingerprint:
        return NOTHING
    return b64encode(zlib.crc32(fingerprint.encode()).to_bytes(4, "big")).decode()[:SIGNS]


def compare_calls(pair: Pair) -> Iterator[Difference]:
    """The first call that differs: draws before it, what the model was called with, or what it gave.

    Calls of another model or mode tell nothing, as those of an evaluation that one of the runs makes in this step
    alone. Nor does a part of the input that no output depends on. None of it moves a training by itself.
    """
    calls = zip(_read(pair.before.calls), _read(pair.now.calls), strict=False)
    for number, (before, now) in enumerate(calls, 1):
        (mode, model, *prints), (other_mode, other_model, *other_prints) = before, now
        if (mode.lower(), model) != (other_mode.lower(), other_model):
            return
        draws, given, gave = (one != other for one, other in zip(prints, other_prints, strict=True))
        if draws:
            # Those before the first call are told of the step as a whole.
            if number > 1:
                yield _describe(
                    Phase.RNG,
                    f"draws before model call {number} of the step",
                    "another state of the generator",
                )
            return
        if NOTHING in (prints[1], other_prints[1]):
            return
        if gave or (given and NOTHING in (prints[2], other_prints[2])):
            is_made = mode.isupper() and other_mode.isupper()
            if given and not is_made:
                yield _describe(Phase.DATA, f"input of model call {number} of the step", "other contents")
            else:
                what = "input" if given else "output"
                yield _describe(Phase.FORWARD, f"{what} of model call {number} of the step", "other values")
            return


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


def has_other_outputs(pair: Pair) -> bool:
    """Whether models that train are known to have given something else in one of the calls of the step.

    Of calls that only one of the runs makes, as of one more micro-batch, nothing is known.
    """
    before, now = (
        [(model, gave) for mode, model, _, _, gave in _read(text) if mode.lower() == MODES[True, True]]
        for text in (pair.before.calls, pair.now.calls)
    )
    return any(one != other for one, other in zip(before, now, strict=False))
