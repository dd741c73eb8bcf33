"""What tells one step of a training from another, phase by phase: equal steps leave equal traces."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class ModelCall:
    """One call of an outermost module.

    Attributes:
        model: Position of the model among all that were called.
        is_training: Whether it was in training mode.
        has_gradient: Whether gradients were recorded.
        is_made: Whether what it was called with comes from earlier calls: a gradient goes through it.
        generator: Fingerprint of torch's generators when it was called.
        given: Fingerprint of what it was called with.
        gave: Fingerprint of what it gave, its numbers without a dimension left out: a loss that it returns.
    """

    model: int
    is_training: bool
    has_gradient: bool
    is_made: bool
    generator: str
    given: str
    gave: str


@dataclass(slots=True)
class StepTrace:
    """The trace of one optimizer step.

    Attributes:
        generators: State of each random generator when the step's first forward or backward began, by name:
            "python", "numpy", "torch", "cuda".
        given: Fingerprint of the batches that DataLoaders had given until then; empty without one.
        called_with: Fingerprints of what the model was called with, one per micro-batch.
        outputs: Fingerprints of what the model gave, one per call, its numbers without a dimension left out: a loss
            that it returns. With a closure that is called more than once: of its first call.
        gradients: Norm of the gradient of every parameter as the optimizer got it, one list for each optimizer
            that stepped, in the order of its groups; None without a gradient.
        updates: Norm of the change of every parameter, in the same order; of a sample of the numbers where the
            parameters are too large to be copied.
        weights: Norm of every parameter before the step, in the same order; of the same sample.
        num_eval_calls: Calls of models in eval mode with gradients recorded; None where they were not counted.
        unclipped: Norm of the gradient of every parameter before the program clipped it, in the same order as
            `gradients`; None where it was not clipped, and empty where none was.
        side_calls: Calls of models that no optimizer holds, in eval mode or without gradients, such as those of a
            teacher: class, mode, fingerprints of what it was called with, of what it gave and of its parameters.
        calls: The first calls of each model in the step and mode, in order. With a closure that is called more than
            once: of its first call.
    """

    generators: dict[str, str] = field(default_factory=dict)
    given: str = ""
    called_with: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    gradients: list[list[float | None]] = field(default_factory=list)
    updates: list[list[float | None]] = field(default_factory=list)
    weights: list[list[float | None]] = field(default_factory=list)
    num_eval_calls: int | None = None
    unclipped: list[list[float | None]] = field(default_factory=list)
    side_calls: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The trace as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The trace that `to_json` wrote."""
        side_calls = [tuple(call) for call in value.get("side_calls", ())]
        calls = [ModelCall(**call) for call in value.get("calls", ())]
        return cls(**value | {"side_calls": side_calls, "calls": calls})
