"""Whether the losses that a program logs are those that were watched, and by which rule they follow from them."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.record.habits import (
    MIN_COMPARED,
    MIN_COVERED,
    RELATIVE,
    Alignment,
    Kind,
    Log,
    find_epochs,
    is_number,
    list_alignments,
    list_curves,
    list_means_since_last,
)
from harness.record.run import find_loss_name
from harness.record.watched import has_several_optimizers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.observation import RunObservation
    from harness.record.run import TrainingRun

__all__ = ["Agreement", "Kind", "compare_logged"]

MIN_REPEATED = 8
MAX_COMPARED, MAX_STEPS = 500, 2000
"""The first so many are compared, so that a long run costs a moment only."""
MAX_SPAN = 4
MIN_BITS = 30.0
"""How unlikely an accidental fit must be: the number of rules tried is below 2**20."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the losses that a program logged compare with those that were watched.

    Attributes:
        kind: The simplest rule by which the logged losses follow from the watched ones.
        metric: Name of the logged loss; None where none was logged.
        num_compared: Logged values that fell on watched steps; for `UNRELATED`, those that could have.
        max_deviation: Largest distance between a logged value and what the rule says, in the log's unit; for
            `UNRELATED`, of the plain comparison by step number, NaN where the numbers have nothing in common.
        window: Steps that are averaged; 1 for none, 0 where it varies.
        scale: Logged over watched; 1 where they are equal.
        shift: The log's number of the first watched step: 0 or 1 in most programs, more in a resumed run.
        of: What was compared: "step" (sum of what reached backward, mean over the ranks), "rank 0",
            "mean of micro-batches" or "last micro-batch".
        num_hidden: Compared steps whose watched loss is not finite, while the log tells a finite one.
    """

    kind: Kind
    metric: str | None = None
    num_compared: int = 0
    max_deviation: float = math.nan
    window: int = 1
    scale: float = 1.0
    shift: int = 0
    of: str = "step"
    num_hidden: int = 0

    @property
    def is_disagreement(self) -> bool:
        """Whether the log is certainly wrong: it repeats one loss, or tells a number where there was none.

        False: not shown to be wrong, not shown to be right. A `scale` other than 1 is a fact for a rule to weigh
        (a loss divided by the number of micro-batches), and `UNRELATED` is not knowing.
        """
        return self.kind is Kind.REPEATED or self.num_hidden > 0


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well a curve fits the log; `bits` tells how unlikely that is by accident."""

    num_compared: int
    max_deviation: float
    scale: float
    bits: float


def compare_logged(run: TrainingRun) -> Agreement:
    """Compares the losses that a program logged (`run.logged`) with those that were watched.

    Pure: reads `run.logged`, `run.loss_name`, `run.steps`, `run.observed` and `run.ranks`, and nothing else.
    Understands step numbers from 0, from 1, from where a run was resumed, in micro-batches or none at all; logging
    every k steps or once an epoch; means since the last log, over a window, over the epoch so far; exponential
    smoothing; rounding to digits; a constant factor; the last or the mean of a step's micro-batches; one rank or
    the mean of all; and steps that a GradScaler skipped, counted or not. A rule is believed only where an
    accidental fit is as good as impossible. Values that are not finite on either side are left out;
    `num_hidden` counts those that only the log hides.

    The first 2000 steps and 500 logged values are compared, in at most a second.

    Returns:
        The agreement; `Kind.TOO_FEW` where there is no log, no watched loss, or fewer than six values in common.
    """
    name = find_loss_name(run.logged, run.loss_name) or find_loss_name(run.logged)
    if name is None:
        return Agreement(Kind.TOO_FEW)
    finite = [
        (step.step, step.metrics[name])
        for step in run.logged
        if name in step.metrics and is_number(step.metrics[name])
    ]
    observed = run.observed
    if observed is None or has_several_optimizers(observed) or len(finite) < MIN_COMPARED:
        return Agreement(Kind.TOO_FEW, name)
    log = Log.read(finite[:MAX_COMPARED], observed)
    series = _list_series(run, observed)
    epochs = find_epochs(observed)
    vague: Agreement | None = None
    for is_scaled, (of, losses) in itertools.product((False, True), series):
        agreement = _explain(log, losses, epochs, is_scaled=is_scaled)
        if agreement is not None and agreement.kind is not Kind.TOO_FEW:
            return replace(agreement, metric=name, of=of)
        vague = vague or agreement
    if vague is not None or not series:
        return replace(vague or Agreement(Kind.TOO_FEW), metric=name)
    return replace(_judge_unexplained(log, series[0][1]), metric=name)


def _explain(
    log: Log, losses: Sequence[float], epochs: Sequence[int], *, is_scaled: bool
) -> Agreement | None:
    """The simplest rule that fits; of kind `TOO_FEW` where what fits may do so by accident; None without any."""
    alignments = list_alignments(log.numbers, len(losses), epochs)
    vague = None if alignments else Agreement(Kind.TOO_FEW)
    curves = list_curves(losses, epochs)
    for alignment in alignments:
        for curve in (curves[0], *list_means_since_last(losses, alignment), *curves[1:]):
            fit = _fit(log, curve.values, alignment.indices, is_scaled=is_scaled)
            if fit is None:
                continue
            is_plain = curve.kind is Kind.SAME and not is_scaled
            if not is_plain and fit.bits < MIN_BITS:
                vague = vague or Agreement(Kind.TOO_FEW, num_compared=fit.num_compared)
                continue
            kind = Kind.SCALED if is_scaled else curve.kind
            if is_plain and alignment.shift not in (0, 1):
                kind = Kind.SHIFTED
            return Agreement(
                kind,
                num_compared=fit.num_compared,
                max_deviation=fit.max_deviation,
                window=curve.window,
                scale=fit.scale,
                shift=alignment.shift,
                num_hidden=_count_hidden(losses, alignment) if fit.bits >= MIN_BITS else 0,
            )
    return (None if is_scaled else _find_shift(log, losses)) or vague


def _fit(log: Log, values: Sequence[float], indices: Sequence[int | None], *, is_scaled: bool) -> _Fit | None:
    """How well a curve fits the log at an alignment; None where it does not."""
    triples = [
        (value, values[index], tolerance)
        for value, tolerance, index in zip(log.values, log.tolerances, indices, strict=True)
        if index is not None and is_number(values[index])
    ]
    if len(triples) < max(MIN_COMPARED, MIN_COVERED * len(indices)):
        return None
    scale = 1.0
    if is_scaled:
        ratios = [value / explained for value, explained, _ in triples if explained]
        scale = statistics.median(ratios) if ratios else 1.0
    worst = 0.0
    for value, explained, tolerance in triples:
        deviation = abs(value - scale * explained)
        if deviation > tolerance:
            return None
        worst = max(worst, deviation)
    changes = [abs(scale * (after[1] - before[1])) for before, after in itertools.pairwise(triples)]
    width = 2 * statistics.median(tolerance for _, _, tolerance in triples)
    novelty = math.log2(max(1.0, statistics.median(changes) / width)) if width else math.inf
    return _Fit(len(triples), worst, scale, (len(triples) - 1 - is_scaled) * novelty)


def _find_shift(log: Log, losses: Sequence[float]) -> Agreement | None:
    """The same losses under numbers that begin anywhere."""
    lowest, highest = min(log.numbers), max(log.numbers)
    if highest - lowest > MAX_SPAN * len(losses):
        return None
    for shift in range(lowest - len(losses) + 1, highest + 1):
        first = next((at for at, number in enumerate(log.numbers) if number >= shift), len(log.numbers) - 1)
        index = log.numbers[first] - shift
        if (
            not 0 <= index < len(losses)
            or not abs(log.values[first] - losses[index]) <= log.tolerances[first]
        ):
            continue
        numbers = [number - shift for number in log.numbers]
        indices = [number if 0 <= number < len(losses) else None for number in numbers]
        fit = _fit(log, losses, indices, is_scaled=False)
        if fit is not None and fit.bits >= MIN_BITS:
            return Agreement(Kind.SHIFTED, None, fit.num_compared, fit.max_deviation, shift=shift)
    return None


def _count_hidden(losses: Sequence[float], alignment: Alignment) -> int:
    return sum(index is not None and not is_number(losses[index]) for index in alignment.indices)


def _judge_unexplained(log: Log, losses: Sequence[float]) -> Agreement:
    """Repeated, where every logged value is the very loss of one step that the others left; else unrelated."""
    plain = [
        abs(value - losses[number])
        for number, value in zip(log.numbers, log.values, strict=True)
        if 0 <= number < len(losses) and is_number(losses[number])
    ]
    known = [loss for loss in losses if is_number(loss)]
    first, bound = log.values[0], log.tolerances[0]
    is_one_value = len(set(log.values)) == 1 and min(len(log.values), len(known)) >= MIN_REPEATED
    # A few digits are met by accident, and a mean of the whole run may be written beside every step.
    is_exact = bound <= 2 * RELATIVE * abs(first)
    num_equal = sum(abs(loss - first) <= bound for loss in known)
    is_mean = abs(statistics.fmean(known) - first) <= bound or abs(known[-1] - first) <= bound
    kind = Kind.REPEATED if is_one_value and is_exact and num_equal == 1 and not is_mean else Kind.UNRELATED
    return Agreement(kind, None, len(plain) or len(log.values), max(plain, default=math.nan))


def _list_series(run: TrainingRun, observed: RunObservation) -> list[tuple[str, list[float]]]:
    """The watched losses, one per step from the first on, in each of the ways a program may mean them."""
    rows = [row for position, row in enumerate(observed.steps[:MAX_STEPS]) if row.step == position]
    ways = [("step", [math.nan if row.loss is None else row.loss for row in rows])]
    if len(run.ranks) > 1:
        heads = {step.step: step.metrics["loss"] for step in run.steps if "loss" in step.metrics}
        ways = [("step", [heads.get(row.step, math.nan) for row in rows]), ("rank 0", ways[0][1])]
    if any(len(row.losses) > 1 for row in rows):
        ways += [
            (
                "mean of micro-batches",
                [sum(row.losses) / len(row.losses) if row.losses else math.nan for row in rows],
            ),
            ("last micro-batch", [(row.losses or [math.nan])[-1] for row in rows]),
        ]
    if any(row.was_skipped for row in rows):
        kept = [position for position, row in enumerate(rows) if not row.was_skipped]
        ways += [(of, [losses[position] for position in kept]) for of, losses in ways]
    return [(of, losses) for of, losses in ways if any(map(is_number, losses))]
