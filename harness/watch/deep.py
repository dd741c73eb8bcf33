"""Watches one step in depth: modules, gradients per tensor, what the optimizer changed, fingerprints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.weak import TensorWeakRef

from harness.record.deep import (
    BackwardObservation,
    DeepObservation,
    ModuleObservation,
    ParameterObservation,
)
from harness.watch.autocast import find_autocast
from harness.watch.compilation import count_graphs, is_capturing
from harness.watch.dead_units import count_dead_units
from harness.watch.fingerprints import (
    fingerprint_batch,
    fingerprint_generators,
    fingerprint_tensor,
    fingerprint_whole,
)
from harness.watch.flow import GradientFlow
from harness.watch.gradients import as_floats, list_parameters, read_norms
from harness.watch.graph import find_grown_shape
from harness.watch.inputs import list_inputs, measure_inputs
from harness.watch.loss_inputs import LossFunctionHooks
from harness.watch.naming import clean_name, find_prefix
from harness.watch.origin import find_steep_operations
from harness.watch.passes import PassHooks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from harness.watch.held_graphs import HeldGraphs
    from harness.watch.session import Session

MAX_BACKWARDS = 16
MAX_COPIED_BYTES = 8 * 2**20
MAX_FINGERPRINT_BYTES = 256 * 2**20
SAMPLE_ELEMENTS = 4096
HALF_PRECISION = (torch.bfloat16, torch.float16)


class DeepStep:
    """The hooks and the record of one deep step; open from the end of the step before to its own end."""

    def __init__(
        self, session: Session, number: int, find_models: Callable[[], list[torch.nn.Module]] = list
    ) -> None:
        self.record = DeepObservation(step=number)
        self.flow = GradientFlow(find_models)
        self._session = session
        self._modules: dict[int, tuple[torch.nn.Module, ModuleObservation]] = {}
        self._parameters: dict[int, ParameterObservation] = {}
        self._before: dict[int, tuple[TensorWeakRef, int]] = {}
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor, int]] = {}
        self._num_copied_bytes = 0
        self._inputs: list[torch.Tensor] = []
        self._latest_output: tuple[torch.Tensor, int] | None = None
        self._is_latest_finite = True
        self._handles: list[RemovableHandle] = []
        self.loss_functions = LossFunctionHooks(session, self)
        self.passes = PassHooks(session)
        self.is_compared = number < session.options.traced_steps

    def open(self, optimizers: list[Optimizer]) -> None:
        """Puts the hooks in, and remembers the gradients there are, to tell stale ones from fresh ones."""
        for parameter in (*self.flow.list_model_parameters(), *list_parameters(optimizers)):
            if (gradient := parameter.grad) is not None:
                # Not held: a program that sets its gradients to None is to have their memory back.
                self._before[id(parameter)] = (TensorWeakRef(gradient), gradient._version)  # noqa: SLF001
        if self._session.run.compilation.is_used:
            self.give_way("torch.compile")
            return
        self._handles += [
            register_module_forward_pre_hook(self._before_module),
            register_module_forward_hook(self._after_module, with_kwargs=True, always_call=True),
        ]
        self.loss_functions.install()

    def close(self) -> None:
        """Takes the hooks off; the record stays open for the numbers of the optimizers."""
        for handle in self._handles:
            handle.remove()
            # The handle of a global hook forgets this table.
            getattr(torch.nn.modules.module, "_global_forward_hooks_with_kwargs", {}).pop(handle.id, None)
        self._handles = []
        self.loss_functions.remove()

    def give_way(self, compiler: str) -> None:
        """Takes the hooks off modules and loss functions: a compiler would build them in, and recompile later."""
        self.close()
        self._session.add_blind_spot(
            f"modules and loss functions on deep steps: {compiler} is used, and hooks would end up in its graphs"
        )

    def note_first_event(self) -> None:
        """Takes the state of the generators, when the first forward or backward of the step begins."""
        if not self.record.rng_fingerprints:
            self.record.rng_fingerprints = fingerprint_generators()
            self.record.autocast = find_autocast()

    def note_batch(self, module: torch.nn.Module, args: object, kwargs: dict[str, Any]) -> None:
        """Takes the fingerprint of what the model is called with."""
        fingerprint = fingerprint_batch((args, kwargs))
        self.record.batch_fingerprints.append(fingerprint or "")
        self._inputs = list_inputs(module, args, kwargs)
        if not self.record.inputs:
            self.record.inputs = measure_inputs(self._inputs)

    @property
    def inputs(self) -> list[torch.Tensor]:
        """The tensors the model was last called with, its labels aside."""
        return self._inputs

    def is_model_input(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor holds exactly what the model was called with, its labels aside."""
        return any(
            value is tensor
            or (
                value.numel() == tensor.numel()
                and value.dtype == tensor.dtype
                and bool(torch.equal(value.detach().reshape(-1), tensor.detach().reshape(-1)))
            )
            for value in self._inputs
        )

    def note_backward(self, optimizers: list[Optimizer], tensors: object = None) -> None:
        """Before a backward: what it begins at; before the first, what gradients have not been cleared."""
        self.note_first_event()
        self.passes.note_backward()
        self._latest_output = None
        for tensor in tensors if isinstance(tensors, (list, tuple)) else (tensors,):
            if isinstance(tensor, torch.Tensor) and len(self.record.backwards) < MAX_BACKWARDS:
                self.record.backwards.append(_describe_backward(tensor))
        self.flow.note_before_backward((*self.flow.list_known_parameters(), *list_parameters(optimizers)))

    def note_backward_end(self, optimizers: list[Optimizer]) -> None:
        """After a backward: what gradients there are."""
        self.flow.note_after_backward((*self.flow.list_known_parameters(), *list_parameters(optimizers)))

    def read_gradients(self, optimizer: Optimizer) -> None:
        """Before the optimizer steps: gradients, weights and fingerprints of its parameters."""
        norms = self.flow.note_step(self._was_called, self._is_stale)
        held = list_parameters([optimizer])
        if self.is_compared:
            self._session.attempt("values", self.flow.note_values, held, MAX_FINGERPRINT_BYTES)
        scale = getattr(optimizer, "grad_scale", None)
        divisor = 1.0 if scale is None else float(scale)
        gradients = {
            identity: gradient
            for parameter in held
            if (gradient := parameter.grad) is not None and (identity := id(parameter)) not in norms
        }
        norms.update(zip(gradients, read_norms(list(gradients.values())), strict=True))
        # Once for each: a view without gradient takes as long as many a look at it.
        locals_ = [_local(parameter) for parameter in held]
        weights = read_norms(locals_)
        num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in held)
        can_fingerprint = num_bytes <= MAX_FINGERPRINT_BYTES
        leftovers = self.flow.list_leftovers()
        is_first_step = self.record.step == 0
        for parameter, local, weight in zip(held, locals_, weights, strict=True):
            identity = id(parameter)
            norm = norms.get(identity)
            fingerprint = fingerprint_tensor(local) if can_fingerprint else None
            self._parameters[identity] = ParameterObservation(
                name="",
                num_elements=parameter.numel(),
                dtype=str(parameter.dtype).removeprefix("torch."),
                grad_norm=None if norm is None else norm / divisor,
                is_stale=self._is_stale(parameter),
                leftover_norm=leftovers.get(identity),
                weight_norm=weight,
                fingerprint=fingerprint,
                is_trainable=parameter.requires_grad,
                shape=tuple(local.shape),
                are_rows_equal=is_first_step and _are_rows_equal(local),
            )
            self._copy(parameter, local)
            if fingerprint is not None:
                self._session.first_fingerprints.setdefault(identity, fingerprint)
        self.record.rng_fingerprints_after = fingerprint_generators()

    def read_updates(self, optimizer: Optimizer) -> None:
        """After the optimizer has stepped: by how much it changed each parameter."""
        held = [parameter for parameter in list_parameters([optimizer]) if id(parameter) in self._copies]
        if not held:
            return
        copies = [self._copies.pop(id(parameter)) for parameter in held]
        changes = [before for _, before, _ in copies]
        with torch.no_grad():
            locals_ = [_local(parameter) for parameter in held]
            nows = [
                as_floats(local if stride == 1 else local.reshape(-1)[::stride])
                for local, (_, _, stride) in zip(locals_, copies, strict=True)
            ]
            # In place: the sign does not matter, and new memory takes as long as the difference.
            torch._foreach_sub_(changes, nows)
        for parameter, local, change, norm in zip(held, locals_, changes, read_norms(changes), strict=True):
            # A sampled norm stands for the whole tensor.
            share = change.numel() / max(local.numel(), 1)
            self._parameters[id(parameter)].update_norm = norm / math.sqrt(share) if share else norm
        for parameter, (_, _, stride), change in zip(held, copies, changes, strict=True):
            if parameter.dtype in HALF_PRECISION:
                self._parameters[id(parameter)].share_changed = _measure_share(parameter, change, stride)

    def list_updates(self) -> dict[int, float | None]:
        """By how much the step changed each parameter of its optimizers, by identity."""
        return {identity: found.update_norm for identity, found in self._parameters.items()}

    def note_resources(self, num_foreign_graphs: int, graphs: HeldGraphs) -> None:
        """At the end of the step: what is still held, and what has been compiled."""
        record = self.record
        record.num_held_graphs, record.num_marked_graphs = graphs.count(record.step)
        self.record.num_compiled_graphs = count_graphs()[0] - num_foreign_graphs

    def finish(
        self, names: dict[int, str], models: dict[int, str], optimizers: Sequence[Optimizer]
    ) -> DeepObservation:
        """The record, with names of parameters and models by identity; the step can take no more."""
        self.close()
        record = self.record
        took_part: dict[int, int] = {}
        for position, (module, _) in enumerate(self._modules.values()):
            for tensor in module._parameters.values():  # noqa: SLF001  in a third of the time
                took_part.setdefault(id(tensor), position)
        cut_off, positions = self.flow.list_cut_off(), self.flow.list_positions()
        for position, (identity, parameter) in enumerate(self._parameters.items()):
            parameter.name = names.get(identity, f"?{position}")
            # Some are used without a call of their module, as those of an attention's output projection.
            has_gradient = bool(parameter.grad_norm) and not parameter.is_stale
            parameter.took_part = (identity in took_part or has_gradient) if self._modules else None
            parameter.call_position = took_part.get(identity)
            parameter.ran_without_gradient = identity in cut_off
            parameter.model_position = positions.get(identity)
            record.parameters.append(parameter)
        self._name_modules(names, models)
        record.modules_in_eval_mode = [module.name for module in record.modules if not module.is_training]
        record.first_non_finite_module = next(
            (found.name for _, found in self._modules.values() if found.is_finite is False), None
        )
        norms = [parameter.grad_norm for parameter in record.parameters if parameter.grad_norm is not None]
        record.grad_norm = math.sqrt(sum(norm * norm for norm in norms)) if norms else None
        record.loss_functions = self.loss_functions.finish()
        stepped = set(self._parameters)
        held = stepped | {id(parameter) for parameter in list_parameters(optimizers)}
        self.flow.describe(record, stepped, held, names)
        self._modules, self._copies, self._before, self._inputs = {}, {}, {}, []
        self._latest_output = None
        return record

    def _name_modules(self, names: dict[int, str], models: dict[int, str]) -> None:
        """Names the modules as their outermost module does; those that completed first come first."""
        found_names: dict[int, str] = {}
        paths: dict[int, str] = {}
        for module, _ in self._modules.values():
            prefix = find_prefix(module, names)
            for name, inner in module.named_modules():
                if id(inner) in self._modules and len(name) >= len(found_names.get(id(inner), "")):
                    found_names[id(inner)] = clean_name(module, name) if name else ""
                    paths[id(inner)] = _join_names(prefix, found_names[id(inner)])
        if len(models) > 1:
            paths |= self._name_as_parameters(models)
        for identity, (module, found) in self._modules.items():
            found.name = found_names.get(identity, "") or type(module).__name__
            found.path = paths.get(identity, "") or found.name
            self.record.modules.append(found)

    def _name_as_parameters(self, models: dict[int, str]) -> dict[int, str]:
        """The modules' names by identity, with that of their model, for those shared by several the first of them."""
        paths: dict[int, str] = {}
        for identity, model in models.items():
            if identity not in self._modules:
                continue
            module, _ = self._modules[identity]
            for name, inner in module.named_modules():
                paths.setdefault(id(inner), _join_names(model, clean_name(module, name)))
        return paths

    def _is_deaf(self) -> bool:
        session = self._session
        return is_capturing() or bool(session.num_nested_backwards) or not session.is_training_thread()

    def _before_module(self, module: torch.nn.Module, args: object) -> None:
        del args
        if not self._is_deaf():
            self.flow.enter(module)
            self.passes.enter(module)

    def _after_module(self, module: torch.nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if self._is_deaf():
            return
        self.flow.leave(module)
        # Keyword arguments and output; where the call raised, the output alone.
        if len(rest) > 1:
            kwargs, output = rest
            if torch.is_grad_enabled():
                self._session.attempt("module", self._note_module, module, args, output)
            self.passes.leave(module, args, kwargs, output)

    def _was_called(self, model: torch.nn.Module) -> bool:
        """Whether a model was called with gradients in the step; where modules are not hooked, whether it trains."""
        return id(model) in self._modules if self._modules else model.training

    def _note_module(self, module: torch.nn.Module, args: object, output: Any) -> None:
        entry = self._modules.get(id(module))
        if entry is None:
            entry = self._modules[id(module)] = (module, ModuleObservation("", type(module).__name__))
        found = entry[1]
        found.num_calls += 1
        found.is_training = module.training
        if (units := count_dead_units(module, args)) is not None:
            found.num_units, found.num_dead_units = units
        if self.is_compared and found.output is None and not _is_loss_function(module, output):
            found.output = fingerprint_whole(output)
        first = output[0] if isinstance(output, (list, tuple)) and output else output
        if found.is_finite is False or not isinstance(first, torch.Tensor):
            return
        # What a module hands on from the last one inside it has just been looked at.
        version = -1 if first.is_inference() else first._version  # noqa: SLF001  counts its changes
        latest, version_then = self._latest_output or (None, 0)
        if first is latest and version == version_then:
            found.is_finite = self._is_latest_finite
        elif first.is_floating_point():
            found.is_finite = self._is_latest_finite = _is_finite(first)
            self._latest_output = (first, version)

    def _is_stale(self, parameter: torch.Tensor) -> bool:
        before, now = self._before.get(id(parameter)), parameter.grad
        if before is None or now is None:
            return False
        gradient, version = before
        return now is gradient() and now._version == version  # noqa: SLF001  counts its changes

    def _copy(self, parameter: torch.Tensor, local: torch.Tensor) -> None:
        num_bytes = local.numel() * local.element_size()
        stride = 1
        if self._num_copied_bytes + num_bytes > MAX_COPIED_BYTES:
            stride = max(1, local.numel() // SAMPLE_ELEMENTS)
            self.record.num_sampled_updates += stride > 1
        else:
            self._num_copied_bytes += num_bytes
        copied = local.clone() if stride == 1 else local.reshape(-1)[::stride].clone()
        self._copies[id(parameter)] = (parameter, as_floats(copied), stride)


def _is_loss_function(module: torch.nn.Module, output: object) -> bool:
    """Whether a module makes a number of what others gave: it belongs to the loss, and not to the forward pass."""
    return isinstance(output, torch.Tensor) and not output.dim() and next(module.parameters(), None) is None


def _join_names(*names: str) -> str:
    return ".".join(name for name in names if name)


def _describe_backward(loss: torch.Tensor) -> BackwardObservation:
    given, grown = find_grown_shape(loss) or (None, None)
    return BackwardObservation(loss.grad_fn is None, given, grown, find_steep_operations(loss))


def _are_rows_equal(tensor: torch.Tensor) -> bool:
    """Whether all rows of a matrix are one and the same, and hold something else than zeros."""
    is_matrix = tensor.dim() > 1 and tensor.shape[0] > 1 and tensor.layout is torch.strided
    # Two rows tell nearly always, at no cost for a large table.
    is_likely = is_matrix and bool((tensor[0] == tensor[1]).all()) and bool(tensor[0].any())
    return is_likely and bool((tensor == tensor[:1]).all())


def _measure_share(parameter: torch.Tensor, change: torch.Tensor, stride: int) -> float | None:
    """Share of a parameter's numbers with a gradient that changed; None where none has one."""
    if parameter.grad is None or parameter.grad.layout is not torch.strided:
        return None
    has_gradient = _local(parameter.grad).reshape(-1)[::stride] != 0
    num = int(has_gradient.sum())
    return int(((change.reshape(-1) != 0) & has_gradient).sum()) / num if num else None


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return getattr(tensor, "_local_tensor", tensor).detach()


def _is_finite(tensor: torch.Tensor) -> bool:
    local = _local(tensor)
    # A sum is finite only if all are; one that is not may only have overflowed.
    return math.isfinite(float(local.sum())) or bool(torch.isfinite(local).all())
