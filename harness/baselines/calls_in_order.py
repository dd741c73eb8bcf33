"""The calls of models in a step: whether the first that differs has other input, or makes something else of it."""

from __future__ import annotations

import zlib
from base64 import b64encode
from typing import TYPE_CHECKING

from harness.baselines.pairs import Difference
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.baselines.pairs import Pair

SIGNS = 3
"""Of a fingerprint, so that a call takes ten signs: one in 260,000 is that of something else."""
NOTHING = "-" * SIGNS
MODES = {"training": "t", "eval": "e", "without gradients": "n"}
INPUT_OF, DRAWS_BEFORE, OUTPUT_OF = "input of call", "draws before call", "what was given by call"


def write_calls(calls: Iterable[tuple[str, str, str, str]]) -> str:
    """The calls of a step, as the trace has them, a word each; nothing where there is only one."""
    words = [MODES[mode] + "".join(map(_shorten, prints)) for mode, *prints in calls]
    return " ".join(words) if len(words) > 1 else ""


def _shorten(fingerprint: str) -> str:
    if not fingerprint:
        return NOTHING
    return b64encode(zlib.crc32(fingerprint.encode()).to_bytes(4, "big")).decode()[:SIGNS]


def compare_calls(pair: Pair) -> Iterator[Difference]:
    """The first call that differs: draws before it, what the model was called with, or what it gave.

    Calls of another mode tell nothing, as those of an evaluation that one of the runs makes in this step alone. None
    of it moves a training by itself.
    """
    calls = zip(pair.before.calls.split(), pair.now.calls.split(), strict=False)
    for number, (before, now) in enumerate(calls, 1):
        if before == now:
            continue
        parts = [
            word[1 + SIGNS * place : 1 + SIGNS * (place + 1)] for place in range(3) for word in (before, now)
        ]
        if before[0] != now[0] or NOTHING in parts:
            return
        draws, given = parts[0] != parts[1], parts[2] != parts[3]
        if draws:
            found = Phase.RNG, f"{DRAWS_BEFORE} {number} of the step", "another state of the generator"
        elif given:
            found = Phase.DATA, f"{INPUT_OF} {number} of the step", "other contents"
        else:
            found = Phase.FORWARD, f"{OUTPUT_OF} {number} of the step", "other values"
        yield Difference(*found, moves=False, is_of_call=True)
        return


def has_other_calls(pair: Pair) -> bool:
    """Whether calls of the step are known to differ in one of the models."""
    return bool(pair.before.calls and pair.now.calls) and pair.before.calls != pair.now.calls
