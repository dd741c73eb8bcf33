"""The calls of models in a step: whether the first that differs has other input, or makes something else of it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.baselines.pairs import MODE, Difference
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_json import sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.baselines.pairs import Pair
    from harness.record.trace import ModelCall

SIGNS = 3
"""Of a fingerprint: one in 260,000 is that of something else."""
NOTHING = "-" * SIGNS
MODES = {(True, True): "t", (False, True): "e", (True, False): "u", (False, False): "v"}
"""A letter for a mode, training or not, with gradients or without; a capital one where the input is made."""
WORD = re.compile(r"([teuvTEUV])([0-9]{1,6}):(.{3})(.{3})(.{3})")
"""A call: its mode and its model, then fingerprints of the generator, of what it was given and of what it gave."""
TRAINING = (MODES[True, True], MODES[True, False])
OUTPUT = "output"
FEW = 3
"""Calls of one model in one mode that are kept of later steps."""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call as it is stored: the letter of its mode, and what `ModelCall` has, as text."""

    mode: str
    is_made: bool
    model: str
    generator: str
    given: str
    gave: str


def write_calls(calls: Iterable[ModelCall], *, all_of_them: bool) -> str:
    """The calls of a step, as the trace has them, a word each; nothing where there is only one."""
    counts: Counter[str] = Counter()
    words = []
    for call in calls:
        mode = MODES[call.is_training, call.has_gradient]
        counts[f"{mode}{call.model}"] += 1
        if all_of_them or counts[f"{mode}{call.model}"] <= FEW:
            prints = "".join(
                sign(part.encode(), SIGNS) if part else NOTHING
                for part in (call.generator, call.given, call.gave)
            )
            words.append(f"{mode.upper() if call.is_made else mode}{call.model}:{prints}")
    return " ".join(words) if len(words) > 1 else ""


def compare_calls(pair: Pair) -> Iterator[Difference]:
    """The first call that differs: the model's mode, draws before it, its input, or what it gave.

    Calls of another model tell nothing, nor do those in another mode where there are more or fewer of them, or the
    model is not in this mode in every step, as in an evaluation. Nor does a part of the input that no output depends
    on. None of it moves a training by itself.
    """
    rows = read_calls(pair.before.calls), read_calls(pair.now.calls)
    for number, (before, now) in enumerate(zip(*rows, strict=False), 1):
        if before.model != now.model:
            return
        if before.mode != now.mode:
            if len(rows[0]) == len(rows[1]) and _is_in_every_step(pair, before):
                mode = "training" if now.mode in TRAINING else "eval"
                yield _describe(
                    Phase.FORWARD, f"{MODE} model call {number} of the step", f"now in {mode} mode"
                )
            return
        if before.generator != now.generator:
            # Draws before the first call are told of the step as a whole.
            if number > 1:
                item = f"draws before model call {number} of the step"
                yield _describe(Phase.RNG, item, "another state of the generator")
            return
        if NOTHING in (before.given, now.given):
            return
        is_given_otherwise, is_known = before.given != now.given, NOTHING not in (before.gave, now.gave)
        if before.gave != now.gave or (is_given_otherwise and not is_known):
            is_made = any(
                _is_made(call, row[: number - 1]) for call, row in zip((before, now), rows, strict=True)
            )
            if is_given_otherwise and not is_made:
                yield _describe(Phase.DATA, f"input of model call {number} of the step", "other contents")
            else:
                what = "input" if is_given_otherwise else OUTPUT
                yield _describe(Phase.FORWARD, f"{what} of model call {number} of the step", "other values")
            return


def _is_made(call: StoredCall, earlier: Sequence[StoredCall]) -> bool:
    """Whether the input of a call comes from earlier ones: through a graph, or as one of them gave it."""
    return call.is_made or any(call.given == other.gave for other in earlier)


def _is_in_every_step(pair: Pair, call: StoredCall) -> bool:
    """Whether the model is called in this mode in every step of these optimizers that was traced."""
    steps = [
        point
        for point in pair.baseline.points
        if point.optimizers == pair.before.optimizers and point.gradients
    ]
    return all(
        any((other.model, other.mode) == (call.model, call.mode) for other in read_calls(point.calls))
        for point in steps
    )


def _describe(phase: Phase, item: str, change: str) -> Difference:
    return Difference(phase, item, change, moves=False, is_of_call=True)


def read_calls(text: str) -> list[StoredCall]:
    """The calls that `write_calls` wrote; a word that is no call ends them."""
    found = []
    for word in text.split():
        match = WORD.fullmatch(word)
        if match is None:
            break
        letter, *rest = match.groups()
        found.append(StoredCall(letter.lower(), letter.isupper(), *rest))
    return found


def has_other_outputs(pair: Pair) -> bool:
    """Whether models that train are known to have given something else in one of the calls of the step.

    Of calls that only one of the runs makes, as of one more micro-batch, nothing is known.
    """
    return any(one.gave != other.gave for one, other in _pair_training(pair))


def has_other_inputs(pair: Pair) -> bool:
    """Whether models that train are known to have been called with something else in one of the calls of the step."""
    return any(one.given != other.given and not one.is_made for one, other in _pair_training(pair))


def _pair_training(pair: Pair) -> list[tuple[StoredCall, StoredCall]]:
    """The calls of models that train in both runs, up to the first that is of another model."""
    before, now = (
        [call for call in read_calls(text) if call.mode == MODES[True, True]]
        for text in (pair.before.calls, pair.now.calls)
    )
    both = zip(before, now, strict=False)
    return list(itertools.takewhile(lambda calls: calls[0].model == calls[1].model, both))
