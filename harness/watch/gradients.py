"""Sees gradient norms: free of charge where the program clips, measured where asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.record.step_observation import ClippingCall
from harness.watch.loss import find_classes

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.readings import Reading
    from harness.watch.session import Session

    Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]

PLAIN = frozenset((torch.Tensor, nn.Parameter))


class GradientHooks:
    """Listens to the clipping functions and to `GradScaler.unscale_`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # For handlers: what waits is not in it yet.
        self._steps = session.ledger
        self._is_clipping = False
        self._num_calls = 0

    def install(self) -> None:
        """Starts to listen."""
        taps = self._session.taps
        taps.on_function(nn.utils.clip_grad_norm_, self._around_clip_norm)
        taps.on_function(nn.utils.clip_grad_value_, self._around_clip_value)
        if (clip_with_norm := getattr(nn.utils, "clip_grads_with_norm_", None)) is not None:
            taps.on_function(clip_with_norm, self._around_clip_with_norm)
        for scaler in find_classes(torch.amp.GradScaler):
            if "unscale_" in scaler.__dict__:
                taps.on_method(scaler, "unscale_", self._around_unscale)

    def measure(self, optimizer: torch.optim.Optimizer) -> Reading:
        """The norm of all gradients an optimizer holds, without its loss scale; None without gradients."""
        gradients = list_gradients(optimizer)
        if not gradients:
            return None
        scale = getattr(optimizer, "grad_scale", None)
        try:
            # Those of a gradient with a graph of its own get one too, which goes with them.
            norms = measure_norms(gradients)
            if scale is None and norms[0].is_cpu:
                return math.hypot(*[norm.item() for norm in norms])
            with torch.no_grad():
                norm = torch.linalg.vector_norm(torch.stack(norms))
                if scale is not None:
                    norm = norm / scale
        except (RuntimeError, NotImplementedError) as error:
            self._session.add_blind_spot(f"gradient norm: could not be computed ({error})")
            return None
        return self._session.ledger.readings.read(norm)

    def is_covered(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the program's own clipping in this step tells the norm of this optimizer's gradients."""
        if not self._num_calls:
            return False
        clipping = self._session.ledger.open.clipping
        if len(clipping) != 1 or clipping[0][0].kind != "norm":
            return False
        return clipping[0][0].num_gradients == len(list_gradients(optimizer))

    def _around_clip_norm(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._is_clipping:
            return call(*args, **kwargs)
        args, kwargs = self._look_before(args, kwargs)
        self._is_clipping = True
        try:
            norm = call(*args, **kwargs)
        finally:
            self._is_clipping = False
        max_norm = args[1] if len(args) > 1 else kwargs.get("max_norm")
        norm_type = args[2] if len(args) > 2 else kwargs.get("norm_type", 2.0)  # noqa: PLR2004  third position
        self._session.attempt("clipping", self._note, args, kwargs, max_norm, norm, norm_type)
        return norm

    def _around_clip_with_norm(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._is_clipping:
            return call(*args, **kwargs)
        args, kwargs = self._look_before(args, kwargs)
        result = call(*args, **kwargs)
        max_norm = args[1] if len(args) > 1 else kwargs.get("max_norm")
        norm = args[2] if len(args) > 2 else kwargs.get("total_norm")  # noqa: PLR2004  third position
        self._session.attempt("clipping", self._note, args, kwargs, max_norm, norm, 2.0)
        return result

    def _around_clip_value(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        args, kwargs = self._look_before(args, kwargs)
        result = call(*args, **kwargs)
        bound = args[1] if len(args) > 1 else kwargs.get("clip_value")
        self._session.attempt("clipping", self._note, args, kwargs, bound, None, None)
        return result

    def _look_before(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a clipping function is called with; of a step that is looked at closely, parameters as a list."""
        if not self._session.events.is_direct:
            return args, kwargs
        ledger = self._session.ledger
        row = ledger.open
        if not row.is_looked_at:
            return args, kwargs
        args, kwargs = _list_iterator(args, kwargs)
        if not row.num_micro_batches and ledger.last is not None:
            # Of a backward that several optimizers share: one of them has stepped.
            row = ledger.last
        # Gradients that are clipped before any backward of the step are those of the step before.
        if row.trace is not None and row.num_micro_batches:
            given = args[0] if args else kwargs.get("parameters")
            covered = [given] if isinstance(given, torch.Tensor) else given
            if isinstance(covered, Iterable):
                num_backwards = self._session.run.num_backwards
                self._session.attempt(
                    "clipping", row.trace.note_before_clipping, list(covered), num_backwards
                )
        return args, kwargs

    def _note(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], bound: object, norm: object, norm_type: Any
    ) -> None:
        session = self._session
        covered = args[0] if args else kwargs.get("parameters")
        num_gradients = None
        if isinstance(covered, torch.Tensor):
            num_gradients = int(covered.grad is not None)
        elif isinstance(covered, Iterator) and session.events.is_direct and session.ledger.open.is_looked_at:
            num_gradients = 0
        elif isinstance(covered, (list, tuple)):
            num_gradients = sum(parameter.grad is not None for parameter in covered)
        call = ClippingCall(
            kind="value" if norm_type is None else "norm",
            max_norm=float(bound) if isinstance(bound, (int, float)) else None,
            norm_type=float(norm_type or 0.0),
            num_gradients=num_gradients,
            is_before_unscale=session.has_scaled_gradients,
        )
        if getattr(norm, "_local_tensor", None) is not None:
            session.add_blind_spot(
                "gradient norm: gradients are sharded; the norm is that of this rank's shard"
            )
        self._num_calls += 1
        session.events.note((self._add_call, 0.0, (call, self._steps.readings.read(norm))))

    def _add_call(self, at_s: float, told: tuple[ClippingCall, Reading]) -> None:
        del at_s
        row = self._steps.open
        told[0].num_micro_batches = row.num_micro_batches
        row.clipping = [*row.clipping, told]

    def _around_unscale(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = call(*args, **kwargs)
        self._session.has_scaled_gradients = False
        return result


def _list_iterator(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the parameters of an iterator as a list, to count them.

    An empty one is handed on as it is: torch warns of one.
    """
    given = args[0] if args else kwargs.get("parameters")
    if not isinstance(given, Iterator) or not (listed := list(given)):
        return args, kwargs
    return ((listed, *args[1:]), kwargs) if args else (args, {**kwargs, "parameters": listed})


def list_parameters(optimizers: Iterable[torch.optim.Optimizer]) -> list[torch.Tensor]:
    """The parameters of optimizers, in the order of their groups."""
    return [
        parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def list_gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The gradients an optimizer holds, in its order."""
    return [
        gradient
        for group in optimizer.param_groups
        for parameter in group["params"]
        if (gradient := parameter.grad) is not None
    ]


def read_norms(tensors: Tensors) -> list[float]:
    """The Euclidean norm of each tensor as a number, in one read."""
    if not tensors:
        return []
    with torch.no_grad():
        return torch.stack(list(measure_norms(tensors))).tolist()


def measure_norms(tensors: Tensors) -> Tensors:
    """The Euclidean norm of each tensor, of this rank's shard where it is sharded.

    In single precision also where the tensors have half of it, or no fractions at all: 8 bits tell little, and squares
    overflow. All in double precision where one has that.
    """
    if PLAIN.issuperset(map(type, tensors)) and len({tensor.get_device() for tensor in tensors}) == 1:
        try:
            return torch._foreach_norm(tensors, 2, torch.float32)  # noqa: SLF001  no public name; half a loop's time
        except RuntimeError:
            # Some are sparse, double or whole numbers, which is not looked for: in every step that takes as long as
            # two of the norms.
            pass
    dense = [_list_numbers(getattr(tensor, "_local_tensor", tensor)) for tensor in tensors]
    precision = torch.float64 if any(tensor.dtype is torch.float64 for tensor in dense) else torch.float32
    if (
        all(tensor.layout is torch.strided for tensor in dense)
        and len({tensor.device for tensor in dense}) == 1
    ):
        return torch._foreach_norm(dense, 2, precision)  # noqa: SLF001  no public name
    return [torch.linalg.vector_norm(tensor, dtype=precision).to(dense[0].device) for tensor in dense]


def _list_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor as real ones that a norm can be taken of."""
    numbers = as_floats(tensor.coalesce().values() if tensor.is_sparse else tensor)
    return torch.view_as_real(numbers.resolve_conj()) if numbers.is_complex() else numbers


def as_floats(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, as floats where it has whole numbers or 8 bits, such as quantised weights: these do not subtract."""
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.element_size() > 1):
        return tensor
    return tensor.float()
