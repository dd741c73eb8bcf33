"""Sees the models: outermost modules, their forward and evaluation passes, and the names of parameters.

Outermost modules are found by a global hook, which is there until the first step has ended and on deep steps
only, because it slows every module call; afterwards their class is listened to.
"""

from __future__ import annotations

import sys
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from harness.record.observation import EvaluationObservation
from harness.watch.compilation import (
    count_frames,
    count_graphs,
    find_tracing,
    is_capturing,
    is_capturing_graph,
)
from harness.watch.data import BatchSize
from harness.watch.members import list_parameters
from harness.watch.naming import ModelNames
from harness.watch.timing import FORWARD, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.hooks import RemovableHandle

    from harness.watch.session import Session
    from harness.watch.steps import OpenStep
    from harness.watch.trace import TracedStep

    OneTensor = tuple[torch.Size, torch.dtype]
    """What is noted of a batch that is one tensor."""

MAX_EVALUATIONS = 10_000


class ModuleHooks:
    """Listens to the classes of outermost modules once it has found them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # For handlers, and where events are handled at once: what waits is not in them yet.
        self._clock, self._steps, self._run = session.clock, session.ledger, session.run
        self._roots: list[weakref.ref[nn.Module]] = []
        self._handles: list[RemovableHandle] = []
        self._outermost: nn.Module | None = None
        self._is_inside = False
        self._num_frames_before = 0
        self.on_give_way: list[Callable[[str], None]] = []
        self.names = ModelNames(self.find_roots)
        self._trained: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._num_evaluations: dict[int, list[int]] = {}
        self._batch_of: int | None = None
        self._is_batch_partial = False
        self._latest: tuple[OneTensor, BatchSize] | None = None

    def install(self) -> None:
        """Starts to look for outermost modules."""
        self._num_frames_before = count_frames()
        self._session.taps.on_function(torch.compile, self._around_compile)
        self._session.taps.on_function(torch.export.export, self._around_export)
        self._listen_to_compiled()
        self.search()

    def remove(self) -> None:
        """Stops to look; the taps go with the session's."""
        for handle in self._handles:
            handle.remove()
            # The handle of a global hook forgets this table.
            getattr(torch.nn.modules.module, "_global_forward_hooks_with_kwargs", {}).pop(handle.id, None)
        self._handles = []
        self._outermost = None

    def search(self) -> None:
        """Watches every module call for outermost modules that are not known yet."""
        # Hooks on all modules would be compiled into graphs, and OptimizedModule warns of them.
        if not self._handles and not self._session.run.compilation.is_used:
            self._handles = [
                register_module_forward_pre_hook(self._before_any),
                register_module_forward_hook(self._after_any, with_kwargs=True, always_call=True),
            ]

    def find_roots(self) -> list[nn.Module]:
        """The outermost modules seen so far that are still alive, in order of their first call."""
        return [root for reference in self._roots if (root := reference()) is not None]

    def list_parameters(self) -> list[torch.Tensor]:
        """Every parameter of the outermost modules, each once."""
        found = {id(p): p for root in self.find_roots() for p in list_parameters(root)}
        return list(found.values())

    def note_closed(self, row: OpenStep) -> None:
        """Ends the search once the first step has shown which modules are outermost."""
        del row
        self.remove()
        if self._session.run.compilation.is_used or count_frames() > self._num_frames_before:
            self._give_way_to_compiler()

    def _before_any(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if is_capturing() or self._outermost is not None or self._is_inside:
            return
        session = self._session
        if session.num_nested_backwards or not session.is_training_thread():
            return
        self._outermost = module
        if next(module.parameters(), None) is not None:
            session.attempt("model", self._adopt, module)
            before = self._batch_of
            session.attempt("forward", self._begin, module, args, {})
            self._is_batch_partial = self._batch_of != before

    def _after_any(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        # The rest is keyword arguments and output; after an exception, the output alone.
        kwargs = rest[0] if len(rest) > 1 else {}
        if self._outermost is module:
            self._outermost = None
            if is_capturing() or len(rest) < 2:  # noqa: PLR2004  it raised
                return
            # The hook before the call is not told keyword arguments, and some models get nothing else.
            if kwargs and module.training and torch.is_grad_enabled():
                self._session.attempt("batch", self._complete_batch, module, args, kwargs)
            if kwargs and (trace := self._session.ledger.open.trace) is not None:
                self._session.attempt("call", trace.take_input, args, kwargs)
            self._note_call(module, rest[-1])

    def _adopt(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule) or any(
            reference() is module for reference in self._roots
        ):
            return
        self._roots.append(weakref.ref(module))
        self._session.sees_forward = True
        self._session.run.num_forwards = self._session.run.num_forwards or 0
        taps = self._session.taps
        if not self._session.run.compilation.is_used and not taps.is_on((type(module), "__call__")):
            taps.wrap_method(type(module), "__call__", self._build_call)

    def _build_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        session, events, steps = self._session, self._session.events, self._steps
        read_s, begin = self._clock.read_s, self._begin_forward
        plain, is_grad_enabled = torch.Tensor, torch.is_grad_enabled

        def watch_call(*args: Any, **kwargs: Any) -> Any:
            if (
                self._is_inside
                or session.num_nested_backwards
                or (session.thread != get_ident() and session.thread is not None)
                or find_tracing() is not None
            ):
                return call(*args, **kwargs)
            if self._outermost is not None:
                return self._call_inside(call, args, kwargs)
            module = args[0]
            self._is_inside = True
            try:
                # Its class is known; the module itself may be another one.
                if self._handles:
                    session.attempt("model", self._adopt, module)
                try:
                    if events.is_direct or kwargs or not (module.training and is_grad_enabled()):
                        self._begin(module, args[1:], kwargs)
                    elif len(args) == 2 and type(batch := args[1]) is plain:  # noqa: PLR2004  and the model
                        # As `_begin` would, without its calls.
                        at_s, size = read_s(), None
                        if events.num_turns != self._batch_of and steps.open.num_closure_calls <= 1:
                            size = (batch.shape, batch.dtype)
                            self._batch_of = events.num_turns
                        events.note((begin, at_s, size))
                    else:
                        self._begin_training(module, args[1:], kwargs)
                except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                    session.note_failure("forward", error)
                given = call(*args, **kwargs)
                if events.is_direct:
                    self._note_call(module, given)
                return given
            finally:
                self._is_inside = False

        return watch_call

    def _call_inside(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a module that is a part of the one being called."""
        self._is_inside = True
        try:
            return call(*args, **kwargs)
        finally:
            self._is_inside = False

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            self._begin_training(module, args, kwargs)
        else:
            self._begin_evaluation(module, args, kwargs)

    def _begin_evaluation(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._note_evaluation(module)
        trace = self._session.ledger.open.trace
        if trace is not None:
            self._begin_call(trace, module, args, kwargs)
            if not module.training and torch.is_grad_enabled():
                trace.note_eval_call()

    def _begin_training(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        events = self._session.events
        at_s = self._clock.read_s()
        size = self._take_batch(args, kwargs)
        events.note((self._begin_forward, at_s, size))
        if events.is_direct:
            self._look_at(module, args, kwargs, has_batch=size is not None)

    def _look_at(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, has_batch: bool
    ) -> None:
        """At a call in a step that is watched in depth, or traced."""
        row = self._steps.open
        if row.deep is not None:
            row.deep.note_first_event()
            if has_batch:
                row.deep.note_batch(module, args, kwargs)
        if row.trace is not None:
            row.trace.note_first_event()
            if has_batch:
                row.trace.note_batch(args, kwargs)
            self._begin_call(row.trace, module, args, kwargs)

    def _begin_forward(self, at_s: float, told: BatchSize | OneTensor | None) -> None:
        clock, ledger, run = self._clock, self._steps, self._run
        if ledger.last is not None:
            ledger.begin()
        if clock.current == OTHER:
            clock.switch(FORWARD, at_s)
        run.num_forwards = (run.num_forwards or 0) + 1
        if isinstance(told, BatchSize):
            ledger.open.batches.append(told)
        elif told is not None:
            # One tensor of the shape and type of the one before has its size.
            if self._latest is None or told != self._latest[0]:
                self._latest = told, BatchSize.of_tensor(*told)
            ledger.open.batches.append(self._latest[1])

    def _begin_call(
        self, trace: TracedStep, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._is_to_be_told(module):
            self._session.attempt("call", trace.begin_call, module, args, kwargs)

    def _note_call(self, module: nn.Module, given: object) -> None:
        """Hands what a model gave to the trace of the step, where there is one."""
        trace = self._session.ledger.open.trace
        if trace is not None and self._is_to_be_told(module):
            self._session.attempt("call", trace.note_call, module, given)

    def _is_to_be_told(self, module: nn.Module) -> bool:
        """Whether a call counts: as with the loss, of a closure's the first belongs to the step's own parameters."""
        is_first = self._session.ledger.open.num_closure_calls <= 1
        return is_first and not is_capturing_graph() and next(module.parameters(), None) is not None

    def _complete_batch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Takes the batch again, with the keyword arguments."""
        row = self._session.ledger.open
        is_again = self._is_batch_partial and self._batch_of == self._session.events.num_turns
        if is_again:
            self._is_batch_partial = False
            row.batches[-1] = row.batches[-1].with_shapes(BatchSize((args, kwargs)).shapes)
            if row.deep is not None:
                del row.deep.record.batch_fingerprints[-1:]
        else:
            size = self._take_batch(args, kwargs)
            if size is None:
                return
            row.batches.append(size)
        if row.deep is not None:
            row.deep.note_batch(module, args, kwargs)
        if row.trace is not None:
            row.trace.note_batch(args, kwargs, is_again=is_again)

    def _take_batch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BatchSize | None:
        """The size of the batch, of the first call before a backward: later calls get losses or features."""
        session = self._session
        if session.events.num_turns == self._batch_of or self._steps.open.num_closure_calls > 1:
            return None
        size = BatchSize((args, kwargs) if kwargs else args)
        if not size.shapes:
            return None
        self._batch_of = session.events.num_turns
        return size

    def _note_evaluation(self, module: nn.Module) -> None:
        evaluations = self._session.run.evaluations
        after_step = self._session.num_steps
        if not evaluations or evaluations[-1].after_step != after_step:
            if len(evaluations) >= MAX_EVALUATIONS:
                return
            evaluations.append(EvaluationObservation(after_step))
        found = evaluations[-1]
        found.num_forwards += 1
        found.num_in_training_mode += module.training
        found.num_with_gradient += torch.is_grad_enabled()
        if (kind := type(module).__name__) not in found.modules:
            found.modules.append(kind)
        if module in self._trained:
            found.num_trained += 1
            found.num_trained_in_training_mode += module.training
            found.num_trained_with_gradient += torch.is_grad_enabled()
        counted = self._num_evaluations.setdefault(id(module), [0, 0, -1])
        counted[0] += 1
        counted[1] += counted[2] != after_step
        counted[2] = after_step
        if self._session.evaluated is not None:
            self._session.note_evaluated(module)

    def note_trained(self, modules: list[nn.Module]) -> None:
        """Says which models train, as a deep step has shown."""
        self._trained.update(modules)

    def is_trained(self, module: nn.Module) -> bool:
        """Whether a deep step has shown that a model trains."""
        return module in self._trained

    def count_evaluations(self, identity: int) -> tuple[int, int]:
        """Calls of a module in eval mode or without gradients, and in how many steps or gaps these were."""
        num_calls, num_steps, _ = self._num_evaluations.get(identity, (0, 0, 0))
        return num_calls, num_steps

    def _around_compile(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        compiled = call(*args, **kwargs)
        self._session.attempt("torch.compile", self._give_way_to_compiler)
        return compiled

    def _around_export(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Leaves module calls alone while a model is exported: hooks are nothing that a strict export can follow."""
        session, was_searching = self._session, bool(self._handles)
        paused = session.attempt("torch.export", self._leave_calls_alone, "torch.export") or []
        graphs_before, frames_before = count_graphs(), count_frames()
        try:
            return call(*args, **kwargs)
        finally:
            session.leave_out_graphs(graphs_before)
            self._num_frames_before += count_frames() - frames_before
            for owner in paused:
                session.taps.wrap_method(owner, "__call__", self._build_call)
            if was_searching:
                self.search()

    def _give_way_to_compiler(self) -> None:
        """Leaves module calls alone from here on, so that no hook ends up in a graph; keeps compiled models."""
        session = self._session
        session.run.compilation.is_used = True
        self._leave_calls_alone("torch.compile")
        self._listen_to_compiled()
        session.sees_forward = any(_is_compiled(root) for root in self.find_roots())

    def _leave_calls_alone(self, compiler: str) -> list[type[nn.Module]]:
        """Takes the hooks off all module calls but those of compiled models; gives the classes that were heard."""
        self.remove()
        for listener in self.on_give_way:
            listener(compiler)
        taps = self._session.taps
        kinds = {type(root) for root in self.find_roots() if not _is_compiled(root)}
        heard = [kind for kind in kinds if taps.is_on((kind, "__call__"))]
        for kind in heard:
            taps.remove((kind, "__call__"))
        return heard

    def _listen_to_compiled(self) -> None:
        frame = sys.modules.get("torch._dynamo.eval_frame")
        kind = getattr(frame, "OptimizedModule", None)
        if kind is not None and not self._session.taps.is_on((kind, "__call__")):
            self._session.taps.wrap_method(kind, "__call__", self._build_compiled_call)

    def _build_compiled_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        session = self._session
        watch_call = self._build_call(call)

        def watch_compiled_call(*args: Any, **kwargs: Any) -> Any:
            if not session.run.compilation.is_used:
                session.attempt("torch.compile", self._give_way_to_compiler)
            if not self._is_inside and session.is_training_thread():
                session.attempt("model", self._adopt, args[0])
            return watch_call(*args, **kwargs)

        return watch_compiled_call


def _is_compiled(root: nn.Module) -> bool:
    return type(root).__name__ == "OptimizedModule"
