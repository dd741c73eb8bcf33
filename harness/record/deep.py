"""What a step that was watched in depth showed, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from harness.record.structure import PassObservation


@dataclass(slots=True)
class ModuleObservation:
    """One module that took part in the forward passes of the step.

    Attributes:
        name: As the model has it; the class name for an outermost module.
        kind: Its class.
        num_calls: How often it was called with gradients recorded.
        is_training: Whether it was in training mode at its last call.
        is_finite: Whether every number it gave was finite; None where it gave no floating tensor.
        num_units: Units of the layer before whose outputs it got, where these came from a ReLU; else None.
        num_dead_units: How many of them were 0 for the whole batch, at its last call.
        output: Fingerprint of what it gave at its first call; where runs are compared.
        path: Its name with that of its model before it where there are several, as its parameters are named.
    """

    name: str
    kind: str
    num_calls: int = 0
    is_training: bool = True
    is_finite: bool | None = None
    num_units: int | None = None
    num_dead_units: int | None = None
    output: str | None = None
    path: str = ""


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
        shape: Its sizes; of this rank's shard where it is sharded.
        ran_without_gradient: Whether a module that owns it ran with gradients switched off inside a model that
            was called with them.
        call_position: Position of the module that owns it among those that took part, in the order in which
            they were through; None where none did.
        share_changed: Share of the numbers with a gradient that the step changed; of half precision only.
        model_position: Its place among the parameters of the models called, in their own order; None where it
            belongs to none.
        are_rows_equal: Whether all rows of a matrix were the same before the first step, and not 0.
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
    shape: tuple[int, ...] = ()
    ran_without_gradient: bool = False
    call_position: int | None = None
    share_changed: float | None = None
    model_position: int | None = None
    are_rows_equal: bool = False


@dataclass(slots=True)
class UnheldParameter:
    """One parameter of the models called in the step that no optimizer seen until then held.

    Attributes:
        grad_norm: Norm of the gradient it got in the step; None without one.
        is_trainable: `requires_grad` at the step.
        is_model_held: Whether an optimizer held other parameters of the same outermost model.
        is_model_training: Whether that model was in training mode.
        model_position: Its place among the parameters of the models called, in their own order.
    """

    name: str
    shape: tuple[int, ...] = ()
    grad_norm: float | None = None
    is_trainable: bool = True
    is_model_held: bool = True
    is_model_training: bool = True
    model_position: int | None = None


@dataclass(slots=True)
class StillParameter:
    """A parameter of any model seen until then that no optimizer held, as those of a teacher; where runs are compared.

    Attributes:
        weight_norm: Its norm before the step.
        fingerprint: Of its values before the step; None without storage.
    """

    name: str
    weight_norm: float
    fingerprint: str | None = None


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
        made_by: Operation that made the inputs, views and casts aside, such as "addmm" or "softmax"; None
            outside a graph.
        class_sums: Smallest and largest sum of the inputs over the classes; of their exponentials where the
            function expects log-probabilities.
        input_range: Smallest and largest input.
        target_range: Smallest and largest target, of targets that are not integers.
        target_sums: Smallest and largest sum over the classes, of targets that are probabilities of classes.
        share_out_of_reach: Share of the targets that what made the inputs can never give, such as negative ones
            of a ReLU; None where everything is in reach.
        share_odd_signs: Share of the targets that are neither 1 nor -1, where the function expects these.
        has_weight: Whether classes or elements are weighted.
        label_smoothing: As given.
        is_log_target: Whether targets were given as logarithms.
        are_labels_positions: Whether the labels are 0, 1, 2, ...: in-batch contrastive learning.
        target_shift: By how many places the labels are the model's input tokens moved on, those ignored aside:
            1 for the following token, 0 for the same; None where they are not.
        padding_id: Token that fills up the model's input rows; None where none was recognised.
        share_padding: Share of the targets that are such padding and count.
        inputs: Fingerprint of the inputs; where runs are compared.
        targets: Fingerprint of the targets; likewise.
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
    made_by: str | None = None
    class_sums: tuple[float, float] | None = None
    input_range: tuple[float, float] | None = None
    target_range: tuple[float, float] | None = None
    target_sums: tuple[float, float] | None = None
    share_out_of_reach: float | None = None
    share_odd_signs: float | None = None
    has_weight: bool = False
    label_smoothing: float = 0.0
    is_log_target: bool = False
    are_labels_positions: bool = False
    target_shift: int | None = None
    padding_id: int | None = None
    share_padding: float | None = None
    inputs: str | None = None
    targets: str | None = None


@dataclass(slots=True)
class BackwardObservation:
    """One tensor that a backward began at.

    Attributes:
        is_leaf: Whether it was made by no operation, so that its gradient reaches nothing.
        prediction_shape: Of a prediction that the difference from its targets blew up to a square; None where
            none did.
        difference_shape: Of that difference.
        steep_operations: Operations that were given numbers at which their gradient is infinite, such as "sqrt of 0".
    """

    is_leaf: bool = False
    prediction_shape: tuple[int, ...] | None = None
    difference_shape: tuple[int, ...] | None = None
    steep_operations: list[str] = field(default_factory=list)


@dataclass(slots=True)
class InputObservation:
    """One tensor that the model was called with, its labels aside; of the step's first micro-batch.

    Attributes:
        minimum, maximum, mean, std: Of its finite numbers; of a sample of a large one. None without any.
        num_nan: Numbers that are NaN.
        num_inf: Numbers that are infinite: masks hold minus infinity on purpose.
        are_samples_equal: Whether all samples are the same; None for fewer than two.
    """

    shape: tuple[int, ...]
    dtype: str
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    num_nan: int = 0
    num_inf: int = 0
    are_samples_equal: bool | None = None


@dataclass(slots=True)
class DeepObservation:
    """One step, watched in depth.

    Attributes:
        modules: Those that took part in forward passes with gradients, in order of their first call.
        modules_in_eval_mode: Names of those among them that were in eval mode.
        loss_functions: Their calls, in order; with a closure that is called more than once, those of its first call.
        parameters: Of the optimizers that stepped.
        unheld: Parameters, of the models called, that no optimizer held.
        still: Values of the parameters of all models that no optimizer held; where runs are compared.
        grad_norms_before_backward: Norm of the gradients that the parameters of these optimizers held when each
            backward began, 16 at most; None where they had none.
        grad_norms_after_backward: The same when it had ended.
        loss_scale: Factor by which a GradScaler scaled the losses; None without one.
        first_non_finite_module: The first that gave a number that is not finite.
        grad_norm: Norm over all gradients the optimizer got.
        batch_fingerprints: One per micro-batch: what the model was called with.
        rng_fingerprints: State of each generator when the step's first forward or backward began, by name:
            "python", "numpy", "torch", "cuda".
        rng_fingerprints_after: The same right before the optimizer steps.
        inputs: Tensors of the first micro-batch.
        autocast: Type in force at the first forward, such as "cpu bfloat16"; None outside autocast.
        num_sampled_updates: Parameters whose update was estimated from a sample, to bound the memory it takes.
        backwards: What its backwards began at.
        num_held_graphs: Graphs of earlier steps that were still held when it ended.
        num_marked_graphs: How many of those were looked for; 256 at most.
        num_compiled_graphs: Graphs that torch.compile had made by its end, since the run began.
        passes: Calls of outermost modules, by module and mode, without gradients too.
    """

    step: int
    modules: list[ModuleObservation] = field(default_factory=list)
    modules_in_eval_mode: list[str] = field(default_factory=list)
    loss_functions: list[LossFunctionObservation] = field(default_factory=list)
    parameters: list[ParameterObservation] = field(default_factory=list)
    unheld: list[UnheldParameter] = field(default_factory=list)
    still: list[StillParameter] = field(default_factory=list)
    grad_norms_before_backward: list[float | None] = field(default_factory=list)
    grad_norms_after_backward: list[float | None] = field(default_factory=list)
    loss_scale: float | None = None
    first_non_finite_module: str | None = None
    grad_norm: float | None = None
    batch_fingerprints: list[str] = field(default_factory=list)
    rng_fingerprints: dict[str, str] = field(default_factory=dict)
    rng_fingerprints_after: dict[str, str] = field(default_factory=dict)
    inputs: list[InputObservation] = field(default_factory=list)
    autocast: str | None = None
    num_sampled_updates: int = 0
    backwards: list[BackwardObservation] = field(default_factory=list)
    num_held_graphs: int = 0
    num_marked_graphs: int = 0
    num_compiled_graphs: int = 0
    passes: list[PassObservation] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The step as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The step that `to_json` wrote."""
        deep = cls(**value)
        deep.modules = [ModuleObservation(**module) for module in value.get("modules", [])]
        deep.parameters = [ParameterObservation(**parameter) for parameter in value.get("parameters", [])]
        deep.unheld = [UnheldParameter(**parameter) for parameter in value.get("unheld", [])]
        deep.still = [StillParameter(**parameter) for parameter in value.get("still", [])]
        listed: list[ParameterObservation | UnheldParameter] = [*deep.parameters, *deep.unheld]
        for parameter in listed:
            parameter.shape = tuple(parameter.shape)
        deep.inputs = [_read_input(tensor) for tensor in value.get("inputs", [])]
        deep.loss_functions = [_read_loss_function(call) for call in value.get("loss_functions", [])]
        deep.passes = [PassObservation(**found) for found in value.get("passes", [])]
        deep.backwards = [_read_backward(backward) for backward in value.get("backwards", [])]
        return deep


def _read_input(value: dict[str, Any]) -> InputObservation:
    tensor = InputObservation(**value)
    tensor.shape = tuple(tensor.shape)
    return tensor


def _read_loss_function(value: dict[str, Any]) -> LossFunctionObservation:
    call = LossFunctionObservation(**value)
    call.input_shape = tuple(call.input_shape)
    call.target_shape = tuple(call.target_shape)
    for name in PAIRS:
        if (pair := getattr(call, name)) is not None:
            setattr(call, name, tuple(pair))
    return call


PAIRS = ("label_range", "class_sums", "input_range", "target_range", "target_sums")


def _read_backward(value: dict[str, Any]) -> BackwardObservation:
    backward = BackwardObservation(**value)
    if backward.prediction_shape is not None and backward.difference_shape is not None:
        backward.prediction_shape = tuple(backward.prediction_shape)
        backward.difference_shape = tuple(backward.difference_shape)
    return backward
