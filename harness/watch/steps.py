"""Decides where a step begins and ends, and gathers what belongs to it.

A step ends when an optimizer has stepped. Another optimizer that steps before the next backward belongs to
the same step; one that steps inside a backward waits for its end.
"""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.record.step_observation import PHASES, ClippingCall, StepObservation
from harness.watch.readings import ReadingQueue, is_known, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.watch.data import BatchSize
    from harness.watch.deep import DeepStep
    from harness.watch.device_clock import DeviceClock, DeviceTimes
    from harness.watch.readings import Reading
    from harness.watch.trace import TracedStep

POLL_EVERY = 16
# Completing steps one by one, each with a cold cache, takes twice as long.
STEPS_TOGETHER = 64


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
    clipping: Sequence[tuple[ClippingCall, Reading]] = ()
    measured_norms: Sequence[Reading] = ()
    batches: list[BatchSize] = field(default_factory=list)
    times_s: Sequence[float] = ()
    device_times: Sequence[DeviceTimes | None] = ()
    is_partly_timed: bool = False
    rss_bytes: int | None = None
    was_skipped: bool = False
    num_host_syncs: int | None = None
    first_host_sync: str | None = None
    found_inf: Reading = None
    deep: DeepStep | None = None
    trace: TracedStep | None = None

    @property
    def is_looked_at(self) -> bool:
        """Whether it is watched in depth, or traced."""
        return self.deep is not None or self.trace is not None

    def is_known(self) -> bool:
        """Whether every number of it has been brought over from its device."""
        return (
            is_known(self.losses)
            and is_known(self.measured_norms)
            and is_known((self.found_inf,))
            and is_known(norm for _, norm in self.clipping)
            and all(is_known(rates) for rates in self.learning_rates)
            and all(times is None or times.is_known() for times in self.device_times)
        )


class StepLedger:
    """Keeps the step that is open, the one just closed, and those that wait for their numbers.

    Args:
        emit: Takes each step once its numbers are known, in order.
        is_prompt: Whether a step is handed on as soon as the next one begins; deep steps always are, as they
            hold copies of parameters.
    """

    def __init__(self, emit: Callable[[StepObservation, OpenStep], None], *, is_prompt: bool = False) -> None:
        self.readings = ReadingQueue()
        self.open = OpenStep(0)
        self.last: OpenStep | None = None
        self.num_calls = 0
        self.num_steps = 0
        self._emit = emit
        self._has_device_times = False
        self._together = 1 if is_prompt else STEPS_TOGETHER
        self._sealed: collections.deque[OpenStep] = collections.deque()

    def begin(self) -> None:
        """Says that something of the next step has happened: the last one takes no further optimizer."""
        last = self.last
        if last is None:
            return
        self._sealed.append(last)
        self.last = None
        num_sealed = len(self._sealed)
        must_drain = num_sealed >= self._together or last.deep is not None
        if num_sealed % POLL_EVERY == 0 and self.readings.num_later:
            self.readings.poll()
            must_drain = True
        if must_drain:
            self._drain()

    def find_row(self, optimizer: int) -> OpenStep:
        """The step that this optimizer's coming call belongs to."""
        last = self.last
        if last is None or self.open.num_micro_batches or optimizer in last.optimizers:
            return self.open
        return last

    def close(
        self, optimizer: int, times_s: list[float], device: DeviceClock | None = None
    ) -> OpenStep | None:
        """Counts a call of an optimizer; the step it ended, or None when it joined the last one."""
        self.num_calls += 1
        row = self.open if self.last is None else self.find_row(optimizer)
        row.optimizers.append(optimizer)
        if device is not None:
            row.device_times = [*row.device_times, device.take()]
            self._has_device_times = True
        if row is self.last:
            row.times_s = [before + more for before, more in zip(row.times_s, times_s, strict=True)]
            return None
        if self.last is not None:
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
        for row in self._sealed:
            for times in row.device_times:
                if times is not None:
                    times.wait()
        self._drain()

    def _drain(self) -> None:
        is_known = self.readings.is_empty and not self._has_device_times
        has_later = self.readings.num_later > 0
        while self._sealed and (is_known or self._sealed[0].is_known()):
            row = self._sealed.popleft()
            self._emit(build_step(row, has_later=has_later), row)


def build_step(row: OpenStep, *, has_later: bool = True) -> StepObservation:
    """The record of a step whose numbers are all there; without `has_later` none ever had to be waited for."""
    losses: list[Any] = row.losses
    rates: list[list[Any]] = row.learning_rates
    if has_later:
        losses = [number_of(loss) for loss in losses]
        rates = [[number_of(rate) for rate in groups] for groups in rates]
    if None in losses:
        losses = [loss for loss in losses if loss is not None]
    batches = row.batches
    num_samples, num_tokens, sequence_length = None, 0, 0
    if batches:
        num_samples = batches[0].num_samples
        num_tokens, sequence_length = batches[0].num_tokens, batches[0].sequence_length
        for batch in batches[1:]:
            num_samples += batch.num_samples
            num_tokens += batch.num_tokens
            sequence_length = max(sequence_length, batch.sequence_length)
    clipping: list[ClippingCall] = []
    grad_norm = clipped_grad_norm = None
    if row.clipping or row.measured_norms:
        for call, reading in row.clipping:
            call.norm = number_of(reading)
            clipping.append(call)
        grad_norm, clipped_grad_norm = _find_norms(clipping, [number_of(norm) for norm in row.measured_norms])
    found_inf = None if row.found_inf is None else number_of(row.found_inf)
    is_timed = row.deep is None and not row.is_partly_timed and bool(row.times_s)
    times_s, has_device_times = row.times_s, False
    if row.device_times:
        # Read in any case: their events are used again.
        found = [None if times is None else times.read() for times in row.device_times]
        known = [times for times in found if times is not None]
        if has_device_times := len(known) == len(found):
            times_s = [sum(parts) for parts in zip(*known, strict=True)]
    return StepObservation(
        step=row.number,
        loss=sum(losses) if losses else None,
        losses=losses,
        num_micro_batches=row.num_micro_batches,
        num_closure_calls=row.num_closure_calls,
        optimizers=row.optimizers,
        learning_rates=rates,
        grad_norm=grad_norm,
        clipped_grad_norm=clipped_grad_norm,
        batch_shapes=[batch.shapes for batch in batches],
        num_samples=num_samples,
        num_tokens=num_tokens or None,
        sequence_length=sequence_length or None,
        time_s=sum(times_s) if is_timed else None,
        phase_times_s=dict(zip(PHASES, times_s, strict=True)) if is_timed else {},
        has_device_times=is_timed and has_device_times,
        rss_bytes=row.rss_bytes,
        is_deep=row.deep is not None,
        was_skipped=row.was_skipped or bool(found_inf),
        num_host_syncs=row.num_host_syncs,
        first_host_sync=row.first_host_sync,
        clipping=clipping,
        trace=None if row.trace is None else row.trace.finish(),
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
