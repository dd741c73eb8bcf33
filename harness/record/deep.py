"""What a step that was watched in depth showed, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class ModuleObservation:
    """One module that took part in the forward passes of the step.

    Attributes:
        name: As the model has it; the class name for an outermost module.
        kind: Its class.
        num_calls: How often it was called with gradients recorded.
        is_training: Whether it was in training mode at its last call.
        is_finite: Whether every number it gave was finite; None where it gave no floating tensor.
    """

    name: str
    kind: str
    num_calls: int = 0
    is_training: bool = True
    is_finite: bool | None = None


@dataclass(slots=True)
class ParameterObservation:
    """One parameter of the optimizers that stepped.

    Attributes:
        grad_norm: Norm of its gradient as the optimizer got it (after clipping); None without a gradient.
        is_stale: Whether it kept the gradient of an earlier step: no backward of this step touched it.
        leftover_norm: Norm of the gradient it still had when the step's first backward began; 0 or None when
            it had been cleared.
        update_norm: Norm of its change by the step; 0 when not one bit changed; None where not measured.
        weight_norm: Its norm before the step.
        fingerprint: Of its values before the step.
        is_trainable: `requires_grad` at the step.
        took_part: Whether a module that owns it was called in the step's forward passes; None where modules
            were not watched.
    """

    name: str
    num_elements: int
    dtype: str
    grad_norm: float | None = None
    is_stale: bool = False
    leftover_norm: float | None = None
    update_norm: float | None = None
    weight_norm: float | None = None
    fingerprint: str | None = None
    is_trainable: bool = True
    took_part: bool | None = None


@dataclass(slots=True)
class LossFunctionObservation:
    """One call of a loss function of `torch.nn.functional`.

    Attributes:
        name: Such as `cross_entropy`.
        input_shape: Of its first argument.
        target_shape: Of its second.
        reduction: As given or by default.
        ignore_index: Of classification losses.
        label_range: Smallest and largest integer label that counts; None where targets are not integers or
            all are ignored.
        share_ignored: Share of targets equal to `ignore_index`.
        is_probability: Whether the inputs look like probabilities: in 0 to 1, rows summing to 1.
        is_log_probability: Whether they look like log-probabilities: none above 0, exponentials summing to 1.
        target_equals_input: Whether targets are the very token ids the model was called with.
        value: What it returned; None for one value per element.
        scale: With which factor its result reached the gradient, as the backward passed it on; None where no
            backward came through.
        is_training: Whether a graph was recorded.
    """

    name: str
    input_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    input_dtype: str
    target_dtype: str
    reduction: str
    ignore_index: int | None = None
    label_range: tuple[int, int] | None = None
    share_ignored: float | None = None
    is_probability: bool | None = None
    is_log_probability: bool | None = None
    target_equals_input: bool | None = None
    value: float | None = None
    scale: float | None = None
    is_training: bool = True


@dataclass(slots=True)
class DeepObservation:
    """One step, watched in depth.

    Attributes:
        modules: Those that took part in forward passes with gradients, in order of their first call.
        modules_in_eval_mode: Names of those among them that were in eval mode.
        loss_functions: Their calls, in order.
        parameters: Of the optimizers that stepped.
        first_non_finite_module: The first that gave a number that is not finite.
        grad_norm: Norm over all gradients the optimizer got.
        batch_fingerprints: One per micro-batch: what the model was called with.
        rng_fingerprints: State of each generator when the step's first forward or backward began, by name:
            "python", "numpy", "torch", "cuda".
        autocast: Type in force at the first forward, such as "cpu bfloat16"; None outside autocast.
        num_sampled_updates: Parameters whose update was estimated from a sample, to bound the memory it takes.
    """

    step: int
    modules: list[ModuleObservation] = field(default_factory=list)
    modules_in_eval_mode: list[str] = field(default_factory=list)
    loss_functions: list[LossFunctionObservation] = field(default_factory=list)
    parameters: list[ParameterObservation] = field(default_factory=list)
    first_non_finite_module: str | None = None
    grad_norm: float | None = None
    batch_fingerprints: list[str] = field(default_factory=list)
    rng_fingerprints: dict[str, str] = field(default_factory=dict)
    autocast: str | None = None
    num_sampled_updates: int = 0

    def to_json(self) -> dict[str, Any]:
        """The step as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The step that `to_json` wrote."""
        deep = cls(**value)
        deep.modules = [ModuleObservation(**module) for module in value.get("modules", [])]
        deep.parameters = [ParameterObservation(**parameter) for parameter in value.get("parameters", [])]
        deep.loss_functions = [_read_loss_function(call) for call in value.get("loss_functions", [])]
        return deep


def _read_loss_function(value: dict[str, Any]) -> LossFunctionObservation:
    call = LossFunctionObservation(**value)
    call.input_shape = tuple(call.input_shape)
    call.target_shape = tuple(call.target_shape)
    if call.label_range is not None:
        smallest, largest = call.label_range
        call.label_range = (smallest, largest)
    return call
