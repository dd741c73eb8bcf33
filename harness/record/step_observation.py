"""What a watched run showed of one step, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from harness.record.trace import StepTrace

PHASES = ("data", "forward", "backward", "optimizer", "other")


@dataclass(slots=True)
class ClippingCall:
    """One call that clipped gradients.

    Attributes:
        kind: "norm" or "value".
        max_norm: The bound, a norm or a value; None where it was not one number.
        norm: The norm before clipping; None for clipping by value.
        norm_type: Order of the norm.
        num_gradients: How many gradients it covered; None where it got a generator, but for deep steps.
        is_before_unscale: Whether gradients still carried the loss scale of a GradScaler.
        num_micro_batches: Backward passes of the step before it.
    """

    kind: str
    max_norm: float | None
    norm: float | None = None
    norm_type: float = 2.0
    num_gradients: int | None = None
    is_before_unscale: bool = False
    num_micro_batches: int | None = None


@dataclass(slots=True)
class StepObservation:
    """One optimizer step.

    Attributes:
        step: Position among the steps seen, from 0.
        loss: Sum of what reached backward in the step, each with the value the program gave it; None where
            nothing did. With a closure that is called more than once: of its first call.
        losses: The values that were summed, in order.
        num_micro_batches: Backward passes of the step; of a closure's first call only.
        num_closure_calls: How often the optimizer called its closure; 0 without one.
        optimizers: Indices of the optimizers that stepped, into `RunObservation.optimizers`.
        learning_rates: Learning rate per group, of each optimizer that stepped, in that order; None where a
            group has none that is a number.
        grad_norm: Norm of the gradients before clipping; None where neither the program clipped nor norms
            were asked for.
        clipped_grad_norm: Norm the optimizer was given.
        update_norm: Norm of the change of the parameters (deep steps).
        update_to_weight: `update_norm` over the norm of the parameters before (deep steps).
        batch_shapes: Shapes of the tensors the model was called with, one list per micro-batch.
        num_samples: Samples of the step; None where no batch was seen.
        num_tokens: Tokens of the step; None where batches are not token ids.
        sequence_length: The longest sequence of the step; None where batches are not token ids.
        time_s: Seconds from the end of the previous step to the end of this one; None for deep steps and
            for a first step whose start was not seen.
        phase_times_s: Seconds by phase: data, forward, backward, optimizer, other.
        has_device_times: Whether these are times of a GPU, between events in its stream; otherwise the host's.
        rss_bytes: Resident set at the end of the step, no more often than every tenth of a second, later ever more
            rarely; None for the others and outside Linux.
        is_deep: Whether it was watched in depth, so that its time says nothing.
        was_skipped: Whether a GradScaler skipped it because of infinite gradients.
        clipping: The clipping calls of the step.
        num_host_syncs: How often the program waited for its GPU; None where not counted, as on most steps.
        first_host_sync: Where it first did, as `file:line`.
        trace: What tells it from the same step of another run; of the first steps, where runs are compared.
    """

    step: int
    loss: float | None = None
    losses: list[float] = field(default_factory=list)
    num_micro_batches: int = 0
    num_closure_calls: int = 0
    optimizers: list[int] = field(default_factory=list)
    learning_rates: list[list[float | None]] = field(default_factory=list)
    grad_norm: float | None = None
    clipped_grad_norm: float | None = None
    update_norm: float | None = None
    update_to_weight: float | None = None
    batch_shapes: list[list[tuple[int, ...]]] = field(default_factory=list)
    num_samples: int | None = None
    num_tokens: int | None = None
    sequence_length: int | None = None
    time_s: float | None = None
    phase_times_s: dict[str, float] = field(default_factory=dict)
    has_device_times: bool = False
    rss_bytes: int | None = None
    is_deep: bool = False
    was_skipped: bool = False
    clipping: list[ClippingCall] = field(default_factory=list)
    num_host_syncs: int | None = None
    first_host_sync: str | None = None
    trace: StepTrace | None = None

    def to_json(self) -> dict[str, Any]:
        """The step as a JSON object; what was not seen is left out."""
        found = {name: value for name in STEP_FIELDS if _was_seen(value := getattr(self, name))}
        if self.clipping:
            found["clipping"] = [asdict(call) for call in self.clipping]
        if self.trace is not None:
            found["trace"] = self.trace.to_json()
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The step that `to_json` wrote."""
        step = cls(**value)
        step.clipping = [ClippingCall(**call) for call in value.get("clipping", [])]
        step.batch_shapes = [[tuple(shape) for shape in shapes] for shapes in step.batch_shapes]
        if value.get("trace") is not None:
            step.trace = StepTrace.from_json(value["trace"])
        return step


def _was_seen(value: object) -> bool:
    is_empty = isinstance(value, (list, dict)) and not value
    return value is not None and value is not False and not is_empty


STEP_FIELDS = tuple(entry.name for entry in fields(StepObservation))
