"""Decides where a step begins and ends, and gathers what belongs to it.

A step ends when an optimizer has stepped. Another optimizer that steps before the next backward belongs to
the same step; one that steps inside a backward waits for its end.
"""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.record.observation import PHASES, ClippingCall, StepObservation
from harness.watch.readings import ReadingQueue, is_known, number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.deep import DeepStep
    from harness.watch.readings import Reading

POLL_EVERY = 16


@dataclass(slots=True)
class OpenStep:
    """A step while it is being gathered; numbers may still be on their device."""

    number: int
    losses: list[Reading] = field(default_factory=list)
    num_micro_batches: int = 0
    num_closure_calls: int = 0
    has_first_closure_call: bool = False
    optimizers: list[int] = field(default_factory=list)
    learning_rates: list[list[Reading]] = field(default_factory=list)
    clipping: list[tuple[ClippingCall, Reading]] = field(default_factory=list)
    measured_norms: list[Reading] = field(default_factory=list)
    batch_shapes: list[list[tuple[int, ...]]] = field(default_factory=list)
    num_samples: int = 0
    num_tokens: int = 0
    sequence_length: int = 0
    has_batch: bool = False
    times_s: list[float] = field(default_factory=list)
    is_partly_timed: bool = False
    rss_bytes: int | None = None
    was_skipped: bool = False
    found_inf: Reading = None
    deep: DeepStep | None = None

    def is_known(self) -> bool:
        """Whether every number of it has been brought over from its device."""
        return (
            is_known(self.losses)
            and is_known(self.measured_norms)
            and is_known((self.found_inf,))
            and is_known(norm for _, norm in self.clipping)
            and all(is_known(rates) for rates in self.learning_rates)
        )


class StepLedger:
    """Keeps the step that is open, the one just closed, and those that wait for their numbers."""

    def __init__(self, emit: Callable[[StepObservation, OpenStep], None]) -> None:
        self.readings = ReadingQueue()
        self.open = OpenStep(0)
        self.last: OpenStep | None = None
        self.num_calls = 0
        self.num_steps = 0
        self._emit = emit
        self._sealed: collections.deque[OpenStep] = collections.deque()

    def begin(self) -> None:
        """Says that something of the next step has happened: the last one takes no further optimizer."""
        if self.last is None:
            return
        self._sealed.append(self.last)
        self.last = None
        if not self.readings.is_empty and len(self._sealed) % POLL_EVERY == 0:
            self.readings.send()
            self.readings.collect(wait=False)
        self._drain()

    def find_row(self, optimizer: int) -> OpenStep:
        """The step that this optimizer's coming call belongs to."""
        last = self.last
        if last is None or self.open.num_micro_batches or optimizer in last.optimizers:
            return self.open
        return last

    def close(self, optimizer: int, times_s: list[float]) -> OpenStep | None:
        """Counts a call of an optimizer; the step it ended, or None when it joined the last one."""
        self.num_calls += 1
        row = self.find_row(optimizer)
        row.optimizers.append(optimizer)
        if row is self.last:
            row.times_s = [before + more for before, more in zip(row.times_s, times_s, strict=True)]
            return None
        self.begin()
        row.times_s = times_s
        self.last = row
        self.open = OpenStep(row.number + 1)
        self.num_steps += not row.was_skipped
        return row

    def finish(self) -> None:
        """Hands on everything that is closed, waiting for its numbers; what is still open is no step."""
        if self.last is not None:
            self._sealed.append(self.last)
            self.last = None
        self.readings.collect(wait=True)
        self._drain()

    def _drain(self) -> None:
        while self._sealed and (self.readings.is_empty or self._sealed[0].is_known()):
            row = self._sealed.popleft()
            self._emit(build_step(row), row)


def build_step(row: OpenStep) -> StepObservation:
    """The record of a step whose numbers are all there."""
    losses = [loss for reading in row.losses if (loss := number_of(reading)) is not None]
    clipping: list[ClippingCall] = []
    grad_norm = clipped_grad_norm = None
    if row.clipping or row.measured_norms:
        for call, reading in row.clipping:
            call.norm = number_of(reading)
            clipping.append(call)
        grad_norm, clipped_grad_norm = _find_norms(clipping, [number_of(norm) for norm in row.measured_norms])
    found_inf = number_of(row.found_inf)
    is_timed = row.deep is None and not row.is_partly_timed and bool(row.times_s)
    return StepObservation(
        step=row.number,
        loss=sum(losses) if losses else None,
        losses=losses,
        num_micro_batches=row.num_micro_batches,
        num_closure_calls=row.num_closure_calls,
        optimizers=row.optimizers,
        learning_rates=[[number_of(rate) for rate in rates] for rates in row.learning_rates],
        grad_norm=grad_norm,
        clipped_grad_norm=clipped_grad_norm,
        batch_shapes=row.batch_shapes,
        num_samples=row.num_samples if row.has_batch else None,
        num_tokens=row.num_tokens or None,
        sequence_length=row.sequence_length or None,
        time_s=sum(row.times_s) if is_timed else None,
        phase_times_s=dict(zip(PHASES, row.times_s, strict=True)) if is_timed else {},
        rss_bytes=row.rss_bytes,
        is_deep=row.deep is not None,
        was_skipped=row.was_skipped or bool(found_inf),
        clipping=clipping,
    )


def _find_norms(
    clipping: list[ClippingCall], measured: list[float | None]
) -> tuple[float | None, float | None]:
    """The gradient norm before clipping and as the optimizer got it.

    Several clipping calls of one step are taken to cover different parameters, as in a GAN.
    """
    calls = [call for call in clipping if call.kind == "norm" and call.norm is not None]
    at_step = _join([norm for norm in measured if norm is not None])
    if not calls:
        return (None if clipping else at_step), at_step
    if any(call.norm_type != 2.0 for call in calls) and len(calls) > 1:  # noqa: PLR2004  the Euclidean norm
        return None, at_step
    before = _join([call.norm for call in calls if call.norm is not None])
    after = _join([_clip(call.norm, call.max_norm) for call in calls if call.norm is not None])
    return before, after if at_step is None else at_step


def _clip(norm: float, max_norm: float | None) -> float:
    # Source: torch.nn.utils.clip_grad_norm_, which scales by max_norm / (norm + 1e-6), at most 1.
    return norm if max_norm is None else norm * min(1.0, max_norm / (norm + 1e-6))


def _join(norms: list[float]) -> float | None:
    if len(norms) == 1:
        return norms[0]
    return math.sqrt(sum(norm * norm for norm in norms)) if norms else None
