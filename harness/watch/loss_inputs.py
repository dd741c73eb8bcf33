"""Sees what reaches the loss functions of `torch.nn.functional`, and with which scale their result is used."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from harness.record.deep import LossFunctionObservation
from harness.watch.compilation import is_capturing
from harness.watch.fingerprints import fingerprint_whole
from harness.watch.graph import find_maker
from harness.watch.taps import TapSet
from harness.watch.targets import note_padding, note_reach, note_shift

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.deep import DeepStep
    from harness.watch.session import Session

CLASSIFICATION = ("cross_entropy", "nll_loss")
LOSS_FUNCTIONS = (
    *CLASSIFICATION,
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "ctc_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
)
CLASS_DIMENSIONS = {"cross_entropy": 1, "nll_loss": 1, "kl_div": -1, "ctc_loss": -1}
"""Where the classes are; of kl_div by custom."""
SIGNS = ("cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss")
"""What expects targets that are 1 or -1."""
WEIGHTS = ("weight", "pos_weight")
MAX_ELEMENTS = 2**24
MAX_EXPONENT = 60.0
MAX_CALLS = 64
MAX_ROWS = 256
TOLERANCE = 1e-3


@functools.cache
def _read_signature(name: str) -> inspect.Signature:
    return inspect.signature(getattr(functional, name))


class LossFunctionHooks:
    """Listens to the loss functions for the length of one deep step."""

    def __init__(self, session: Session, step: DeepStep) -> None:
        self._session = session
        self._step = step
        self._taps = TapSet()
        self._calls: list[LossFunctionObservation] = []
        self._num_inside = 0

    def install(self) -> None:
        """Starts to listen."""
        for name in LOSS_FUNCTIONS:
            self._taps.on_function(getattr(functional, name), self._build_listener(name))

    def remove(self) -> None:
        """Stops to listen."""
        self._taps.remove_all()

    def finish(self) -> list[LossFunctionObservation]:
        """The calls seen, in order."""
        return self._calls

    def _build_listener(self, name: str) -> Callable[..., Any]:
        signature = _read_signature(name)

        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._num_inside or is_capturing():
                return call(*args, **kwargs)
            # A loss function that calls another one is one loss.
            self._num_inside += 1
            try:
                result = call(*args, **kwargs)
            finally:
                self._num_inside -= 1
            # As with the model, later calls of a closure see parameters that the step did not begin with.
            is_first = self._session.ledger.open.num_closure_calls <= 1
            if is_first and len(self._calls) < MAX_CALLS and self._session.is_training_thread():
                self._session.attempt("loss function", self._note, name, signature, args, kwargs, result)
            return result

        return around

    def _note(
        self,
        name: str,
        signature: inspect.Signature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: object,
    ) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = list(bound.arguments.values())
        inputs, targets = values[0], bound.arguments.get("target", values[1])
        if not (isinstance(inputs, torch.Tensor) and isinstance(targets, torch.Tensor)):
            return
        found = LossFunctionObservation(
            name=name,
            input_shape=tuple(inputs.shape),
            target_shape=tuple(targets.shape),
            input_dtype=str(inputs.dtype).removeprefix("torch."),
            target_dtype=str(targets.dtype).removeprefix("torch."),
            reduction=str(bound.arguments.get("reduction", "mean")),
            made_by=find_maker(inputs),
            has_weight=any(bound.arguments.get(weight) is not None for weight in WEIGHTS),
            label_smoothing=float(bound.arguments.get("label_smoothing", 0.0)),
            is_log_target=bool(bound.arguments.get("log_target", False)),
        )
        with torch.no_grad():
            if self._step.is_compared:
                found.inputs, found.targets = fingerprint_whole(inputs), fingerprint_whole(targets)
            _judge_numbers(found, inputs.detach(), targets.detach())
            if name in CLASSIFICATION:
                _judge_inputs(found, inputs.detach())
                if not targets.is_floating_point():
                    self._judge_labels(found, targets.detach(), int(bound.arguments["ignore_index"]))
            elif name == "binary_cross_entropy_with_logits":
                low, high = inputs.detach().aminmax()
                found.is_probability = bool(low >= 0) and bool(high <= 1)
        if isinstance(result, torch.Tensor):
            found.is_training = result.requires_grad
            if result.numel() == 1:
                found.value = float(result.detach())
            if result.requires_grad:
                result.register_hook(_build_scale_hook(found))  # type: ignore[no-untyped-call]
        self._calls.append(found)

    def _judge_labels(self, found: LossFunctionObservation, targets: torch.Tensor, ignore_index: int) -> None:
        found.ignore_index = ignore_index
        self._step.passes.note_targets(targets, ignore_index)
        counted = targets[targets != ignore_index]
        found.share_ignored = 1.0 - counted.numel() / max(targets.numel(), 1)
        if counted.numel():
            low, high = counted.aminmax()
            found.label_range = (int(low), int(high))
        found.target_equals_input = self._step.is_model_input(targets)
        found.are_labels_positions = targets.dim() == 1 and bool(
            torch.equal(targets, torch.arange(targets.numel(), device=targets.device, dtype=targets.dtype))
        )
        note_shift(found, targets, self._step.inputs)
        note_padding(found, targets, self._step.inputs)


def _judge_numbers(found: LossFunctionObservation, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Ranges and sums of what was given, and what does not go together."""
    if not inputs.numel() or not inputs.is_floating_point():
        return
    low, high = inputs.aminmax()
    found.input_range = (float(low), float(high))
    if found.name in CLASS_DIMENSIONS and inputs.numel() <= MAX_ELEMENTS:
        dimension = CLASS_DIMENSIONS[found.name] if inputs.dim() > 1 else 0
        numbers = inputs.float()
        if found.name != "cross_entropy":
            numbers = numbers.clamp_max(MAX_EXPONENT).exp()
        low, high = numbers.sum(dimension).aminmax()
        found.class_sums = (float(low), float(high))
    if found.name in SIGNS and targets.numel():
        found.share_odd_signs = float((targets.abs() != 1).float().mean())
    if targets.is_floating_point():
        note_reach(found, targets)
        if found.name == "cross_entropy" and targets.shape == inputs.shape and targets.numel():
            low, high = targets.sum(1 if targets.dim() > 1 else 0).aminmax()
            found.target_sums = (float(low), float(high))


def _judge_inputs(found: LossFunctionObservation, inputs: torch.Tensor) -> None:
    """Whether scores of classes look like they have been through a softmax already."""
    num_dimensions_of_one_sample = 1
    classes = inputs.unsqueeze(0) if inputs.dim() == num_dimensions_of_one_sample else inputs
    rows = classes.movedim(1, -1).reshape(-1, classes.shape[1])[:MAX_ROWS].float()
    if not rows.numel():
        return
    low, high = rows.aminmax()
    found.is_probability = bool(low >= 0) and bool((rows.sum(-1) - 1).abs().max() < TOLERANCE)
    found.is_log_probability = bool(high <= 0) and bool((rows.exp().sum(-1) - 1).abs().max() < TOLERANCE)


def _build_scale_hook(found: LossFunctionObservation) -> Callable[[torch.Tensor], None]:
    def note_scale(gradient: torch.Tensor) -> None:
        found.scale = (found.scale or 0.0) + float(gradient.detach().sum())

    return note_scale
