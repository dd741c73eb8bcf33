"""How programs log their losses: under which step numbers, averaged and smoothed how, and rounded to what."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.observation import RunObservation

MIN_COMPARED = 6
MIN_COVERED = 0.8
"""Share of the log that has to fall on watched steps."""
LARGEST = 1e100
"""Losses beyond count as not finite, so that sums of them are."""
RELATIVE = 1e-4
"""Sums and means in single precision, in another order than ours."""
MAX_DIGITS = 7
HALF_BITS, HALF_RELATIVE = 11, 2**-7
"""Losses with no more bits than this were computed in half precision, and are only as good."""
WINDOWS = (*range(2, 51), 64, 100, 128, 200, 250, 256, 500, 512, 1000)
DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


class Kind(StrEnum):
    """How the logged losses follow from the watched ones."""

    SAME = "same"
    """Each is the loss of its step, numbered from 0 or 1; up to rounding."""
    SHIFTED = "shifted"
    """The same losses under other step numbers: `shift` is the log's number of the first watched step."""
    SCALED = "scaled"
    """The watched losses, or means of `window` of them, times `scale`."""
    MEAN = "mean"
    """Each is the mean of the last `window` steps; 0 for a window that varies or grows, as within an epoch."""
    SMOOTHED = "smoothed"
    """An exponential moving average of the watched losses."""
    REPEATED = "repeated"
    """Every one is the loss of the same one step, while the watched losses moved on: the log is stale."""
    UNRELATED = "unrelated"
    """By none of these rules. That is no proof of a fault: it may be a validation loss, a part of the loss, a
    mean weighted by batch sizes, a median."""
    TOO_FEW = "too few"
    """Nothing can be said: too few values in common, too coarsely rounded, or no single watched loss."""


@dataclass(frozen=True, slots=True)
class Log:
    """The logged losses: their step numbers, values, and how far each may be from what a rule says."""

    numbers: list[int]
    values: list[float]
    tolerances: list[float]

    @classmethod
    def read(cls, pairs: Sequence[tuple[int, float]], observed: RunObservation) -> Log:
        """The log of pairs of step and value; what `observed` tells of the losses' type sets the precision."""
        values = [value for _, value in pairs]
        decimals, share = _find_rounding(values)
        precision = _find_precision(observed)
        tolerances = [1e-9 + max(decimals, share * abs(value)) + precision * abs(value) for value in values]
        return cls([number for number, _ in pairs], values, tolerances)


@dataclass(frozen=True, slots=True)
class Alignment:
    """On which watched step each logged value falls; None beyond the ends."""

    indices: Sequence[int | None]
    shift: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Values that could have been logged at each watched step, and the rule that makes them."""

    values: Sequence[float]
    kind: Kind
    window: int = 1


def list_alignments(numbers: Sequence[int], num_steps: int, epochs: Sequence[int]) -> list[Alignment]:
    """The usual ways in which logged values fall on watched steps: by number, by position, at ends of epochs."""
    first, num_logged = numbers[0], len(numbers)
    found = [Alignment([number - shift for number in numbers], shift) for shift in (0, 1, first)]
    shares = num_steps / num_logged
    for stride in sorted({1, max(1, math.floor(shares)), math.ceil(shares)}):
        found += [
            Alignment([start + stride * position for position in range(num_logged)], 0)
            for start in sorted({0, stride - 1})
        ]
    ends = [start - 1 for start in (*epochs[1:], num_steps)]
    if len(ends) >= num_logged:
        found.append(Alignment(ends[:num_logged], 0))
    kept = []
    for alignment in found:
        indices = [
            index if index is not None and 0 <= index < num_steps else None for index in alignment.indices
        ]
        # The last row of a log often stands for fewer steps than the others.
        if alignment.indices[-1] != indices[-1] and None not in indices[:-1]:
            indices[-1] = num_steps - 1 if indices[-2] != num_steps - 1 else None
        if sum(index is not None for index in indices) >= max(MIN_COMPARED, MIN_COVERED * num_logged):
            kept.append(Alignment(indices, alignment.shift))
    return kept


def list_curves(losses: Sequence[float], epochs: Sequence[int]) -> list[Curve]:
    """What a program could have logged at each step: the loss itself, then means, then smoothed ones."""
    curves = [Curve(losses, Kind.SAME)]
    if not all(map(is_number, losses)):
        return curves
    sums, num_steps = [0.0, *itertools.accumulate(losses)], len(losses)
    for window in WINDOWS:
        if window < num_steps:
            starts = [max(0, end - window) for end in range(1, num_steps + 1)]
            curves.append(Curve(_mean_from(sums, starts), Kind.MEAN, window))
    curves.append(Curve(_mean_from(sums, [0] * num_steps), Kind.MEAN, 0))
    if epochs:
        begins = [0, *epochs]
        starts = [begins[bisect.bisect_right(epochs, end)] for end in range(num_steps)]
        curves.append(Curve(_mean_from(sums, starts), Kind.MEAN, 0))
    for decay in DECAYS:
        for start in (0.0, losses[0]):
            smoothed = _smooth(losses, decay, start)
            curves.append(Curve(smoothed, Kind.SMOOTHED))
            if not start:
                corrected = [mean / (1 - decay ** (step + 1)) for step, mean in enumerate(smoothed)]
                curves.append(Curve(corrected, Kind.SMOOTHED))
    return curves


def list_means_since_last(losses: Sequence[float], alignment: Alignment) -> list[Curve]:
    """The mean of the steps since the last logged one; nothing where every step is logged."""
    indices = sorted({index for index in alignment.indices if index is not None})
    windows = [after - before for before, after in itertools.pairwise([-1, *indices])]
    if all(window == 1 for window in windows) or not all(map(is_number, losses)):
        return []
    means = [math.nan] * len(losses)
    for index, window in zip(indices, windows, strict=True):
        means[index] = statistics.fmean(losses[index - window + 1 : index + 1])
    usual = statistics.mode(windows)
    return [Curve(means, Kind.MEAN, usual if windows.count(usual) >= len(windows) - 2 else 0)]


def _mean_from(sums: Sequence[float], starts: Sequence[int]) -> list[float]:
    """The mean of the losses from each start up to its own position."""
    return [(sums[end + 1] - sums[start]) / (end + 1 - start) for end, start in enumerate(starts)]


def _smooth(losses: Sequence[float], decay: float, mean: float) -> list[float]:
    smoothed = []
    for loss in losses:
        mean = decay * mean + (1 - decay) * loss
        smoothed.append(mean)
    return smoothed


def find_epochs(observed: RunObservation) -> list[int]:
    """The steps at which passes of the most read DataLoader began; empty where none was seen."""
    loaders = [loader for loader in observed.loaders if loader.epochs]
    if not loaders:
        return []
    busiest = max(loaders, key=lambda loader: sum(epoch.num_batches for epoch in loader.epochs))
    return sorted({epoch.after_step for epoch in busiest.epochs})


def _find_rounding(logged: Sequence[float]) -> tuple[float, float]:
    """How far rounding may have moved a value: by the decimal places, and as a share by the digits, all have."""
    decimals = share = 0.0
    for digits in range(MAX_DIGITS):
        if all(value == round(value, digits) for value in logged):
            decimals = 0.5 * 10.0**-digits
            break
    for digits in range(1, MAX_DIGITS):
        if all(value == float(f"{value:.{digits}g}") for value in logged):
            share = 0.5 * 10.0 ** (1 - digits)
            break
    return decimals, share


def _find_precision(observed: RunObservation) -> float:
    """The share of itself by which the arithmetic may move a loss; more where losses are in half precision."""
    losses = [
        loss for row in observed.steps for loss in row.losses or [row.loss or 0.0] if math.isfinite(loss)
    ]
    is_half = all((math.frexp(loss)[0] * 2**HALF_BITS).is_integer() for loss in losses)
    return HALF_RELATIVE if is_half else RELATIVE


def is_number(value: float) -> bool:
    """Whether a loss is finite, and small enough to be summed."""
    return abs(value) < LARGEST
