"""Sees the losses: what reaches backward, with the value the program gave it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.record.optimizer_observation import ScalerObservation
from harness.watch.readings import number_of
from harness.watch.timing import BACKWARD, FORWARD, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.held_graphs import HeldGraphs, Mark
    from harness.watch.readings import Reading
    from harness.watch.session import Session


@dataclass(frozen=True, slots=True)
class _Losses:
    """What reached a backward, where it is not just one number; the mark on its graph, if one was made."""

    readings: tuple[Reading, ...]
    mark: Mark | None


NOTHING = _Losses((), None)


class LossHooks:
    """Listens to backward, to `GradScaler.scale`, and to the calls that hide a loss from backward."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # For handlers, and where events are handled at once: what waits is not in them yet.
        self._clock, self._steps, self._run = session.clock, session.ledger, session.run
        self._num_losses_before = 0
        self._unscaled: dict[int, tuple[weakref.ref[torch.Tensor], Reading]] = {}
        self._scaled_in = 0
        self._scale: Reading = None
        self._is_functional = False
        self.before_deep_backward: list[Callable[[object], None]] = []
        self.after_backward: list[Callable[[], None]] = []
        self.held_graphs: HeldGraphs | None = None
        self.on_non_finite: list[Callable[[torch.Tensor], None]] = []

    def install(self) -> None:
        """Starts to listen."""
        import torch._functorch.eager_transforms as transforms  # noqa: PLC0415  private, so only where it is used

        taps = self._session.taps
        taps.wrap_function(torch.autograd.backward, self._build_backward)
        taps.on_function(torch.autograd.grad, self._around_grad)
        for name in ("grad_impl", "grad_and_value_impl", "_vjp_with_argnums"):
            if (function := getattr(transforms, name, None)) is not None:
                taps.on_function(function, self._around_functional)
        for scaler in find_classes(torch.amp.GradScaler):
            if "scale" in scaler.__dict__:
                taps.on_method(scaler, "scale", self._around_scale)
            if "update" in scaler.__dict__:
                taps.on_method(scaler, "update", self._around_update)

    def note_scale(self) -> None:
        """Fills in the last scale of the GradScaler, once its number is known."""
        if self._session.run.scaler is not None:
            self._session.run.scaler.last_scale = number_of(self._scale)

    def _build_backward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        session, events, read_s = self._session, self._session.events, self._clock.read_s
        begin, end, fail = self._begin_backward, self._end_backward, self._fail_backward
        plain = torch.Tensor

        def watch_backward(*args: Any, **kwargs: Any) -> Any:
            # A backward inside a backward is the recomputation of activation checkpointing, not a loss.
            if session.num_nested_backwards:
                return call(*args, **kwargs)
            session.num_nested_backwards = 1
            if session.thread is None:
                session.claim_thread()
            try:
                number: float | None = None
                tensor = args[0] if args else None
                # As `_take_loss` would, without the call: it is one number, and all there is to tell.
                if (
                    type(tensor) is plain
                    and tensor.is_cpu
                    and tensor.numel() == 1
                    and self.held_graphs is None
                    and not self._unscaled
                ):
                    number = float(tensor.item())
                told: Reading | _Losses = number
                # Of a number that is not finite even the difference from itself is none.
                if number is None or number - number != 0.0:
                    told = self._take_loss(args, kwargs)
            except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                told = NOTHING
                session.note_failure("loss", error)
            events.note((begin, read_s(), told))
            if events.is_direct:
                session.attempt("loss", self._look, args, kwargs)
            try:
                result = call(*args, **kwargs)
            except BaseException:
                session.num_nested_backwards = 0
                events.note((fail, read_s(), None))
                raise
            session.num_nested_backwards = 0
            events.num_turns += 1
            events.note((end, read_s(), None))
            if events.is_direct:
                self._listen_after()
            return result

        return watch_backward

    def _listen_after(self) -> None:
        if self._session.waiting_optimizers or self._steps.open.deep is not None:
            for listener in self.after_backward:
                listener()

    def _take_loss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reading | _Losses:
        """What is told of the beginning of a backward: mostly one number."""
        tensors: Any = args[0] if args else kwargs.get("tensors")
        session = self._session
        mark = None
        if self.held_graphs is not None and self._steps.open.num_closure_calls <= 1:
            mark = self.held_graphs.mark(tensors, session.events.num_calls)
        is_plain = type(tensors) is torch.Tensor
        if not is_plain or not tensors.is_cpu or self._unscaled or tensors.numel() != 1:
            readings = self._read_all(args, kwargs, tensors)
        else:
            reading = float(tensors.item())
            if mark is None and reading - reading == 0.0:
                return reading
            readings = (reading,)
        if len(readings) == 1 and type(readings[0]) is float and readings[0] - readings[0] != 0.0:
            self._tell_non_finite(tensors)
        return _Losses(readings, mark)

    def _read_all(self, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Any) -> tuple[Reading, ...]:
        if self._steps.open.num_closure_calls > 1:
            return ()
        if isinstance(tensors, torch.Tensor) and tensors.numel() == 1:
            return (self._read(tensors, None),)
        given = args[1] if len(args) > 1 else kwargs.get("grad_tensors")
        tensors = _as_tuple(tensors)
        weights = _as_tuple(given) if given is not None else (None,) * len(tensors)
        return tuple(self._read(tensor, weight) for tensor, weight in zip(tensors, weights, strict=False))

    def _begin_backward(self, at_s: float, told: Reading | _Losses) -> None:
        clock, ledger = self._clock, self._steps
        if ledger.last is not None:
            ledger.begin()
        row = ledger.open
        if not clock.is_running:
            row.is_partly_timed = True
        elif clock.current == OTHER and not self._session.sees_forward:
            clock.rename(FORWARD)
        self._num_losses_before = len(row.losses)
        if row.num_closure_calls > 1:
            pass
        elif isinstance(told, _Losses):
            row.losses.extend(told.readings)
            if told.mark is not None:
                told.mark.step = row.number
        else:
            row.losses.append(told)
        clock.switch(BACKWARD, at_s)

    def _end_backward(self, at_s: float, told: object) -> None:
        del told
        self._clock.switch(OTHER, at_s)
        self._run.num_backwards += 1
        row = self._steps.open
        if row.num_closure_calls <= 1:
            row.num_micro_batches += 1

    def _fail_backward(self, at_s: float, told: object) -> None:
        """Forgets the losses of a backward that raised."""
        del told
        del self._steps.open.losses[self._num_losses_before :]
        self._clock.switch(OTHER, at_s)

    def _look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What is taken of a step that is watched in depth, or traced, before its backward."""
        row = self._steps.open
        if row.deep is not None:
            for listener in self.before_deep_backward:
                listener(args[0] if args else kwargs.get("tensors"))
        if row.trace is not None:
            row.trace.note_first_event()

    def _tell_non_finite(self, tensors: Any) -> None:
        is_number = isinstance(tensors, torch.Tensor) and tensors.numel() == 1
        if not is_number or self._steps.open.num_closure_calls > 1:
            return
        for listener in self.on_non_finite:
            self._session.attempt("loss that is not finite", listener, tensors)

    def _read(self, tensor: object, weight: Any) -> Reading:
        if not isinstance(tensor, torch.Tensor):
            return None
        if self._unscaled:
            found = self._unscaled.get(id(tensor))
            if found is not None and found[0]() is tensor:
                if self._session.run.scaler is not None:
                    self._session.run.scaler.num_backwards += 1
                return found[1]
        if tensor.numel() != 1:
            tensor = tensor.detach() if weight is None else tensor.detach() * weight
            tensor = tensor.sum()
        return self._session.ledger.readings.read(tensor)

    def _around_scale(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scaled = call(*args, **kwargs)
        self._session.attempt("loss scale", self._note_scaled, args, kwargs, scaled)
        return scaled

    def _note_scaled(self, args: tuple[Any, ...], kwargs: dict[str, Any], scaled: object) -> None:
        given = args[1] if len(args) > 1 else kwargs["outputs"]
        if scaled is given:
            return
        session = self._session
        session.has_scaled_gradients = True
        if session.run.scaler is None:
            session.run.scaler = ScalerObservation()
        session.run.scaler.num_scaled += 1
        if (deep := session.ledger.open.deep) is not None:
            deep.record.loss_scale = float(args[0].get_scale())
        if self._scaled_in != session.num_steps:
            self._unscaled.clear()
            self._scaled_in = session.num_steps
        for before, after in zip(_as_tuple(given), _as_tuple(scaled), strict=True):
            self._unscaled[id(after)] = (weakref.ref(after), session.ledger.readings.read(before))

    def _around_update(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = call(*args, **kwargs)
        self._session.attempt("loss scale", self._keep_scale, args[0])
        return result

    def _keep_scale(self, scaler: object) -> None:
        # A scaler that is switched off has no scale.
        scale = getattr(scaler, "_scale", None)
        if scale is not None:
            self._scale = self._session.ledger.readings.read(scale)

    def _around_grad(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._session.num_nested_backwards and not self._is_functional:
            self._session.add_blind_spot(
                "torch.autograd.grad was called: where its gradients are a step's only ones, the step has no loss, "
                "because nothing tells a loss from another output"
            )
        return call(*args, **kwargs)

    def _around_functional(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._session.add_blind_spot(
            "torch.func computed gradients: losses and gradients inside its transforms can't be read, and steps "
            "are seen only where a torch.optim optimizer makes them"
        )
        before, self._is_functional = self._is_functional, True
        try:
            return call(*args, **kwargs)
        finally:
            self._is_functional = before


def find_classes(base: type) -> list[type]:
    """A class and everything derived from it so far."""
    children: list[type] = base.__subclasses__()
    return [base, *(found for child in children for found in find_classes(child))]


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None or isinstance(value, torch.Tensor):
        return (value,)
    return tuple(value)
