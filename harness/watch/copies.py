"""Finds copies of a trained model at the end of a deep step, and whether they have moved since the last one."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import math
import sys
import types
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from harness.record.structure import CopyObservation, LoadObservation
from harness.watch.compilation import is_tracing
from harness.watch.members import list_parameters
from harness.watch.naming import clean_name, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.watch.modules import ModuleHooks
    from harness.watch.session import Session

MAX_FRAMES = 40
MAX_LOOKED_AT = 1000
MAX_ENTRIES = 20_000
MAX_ATTRIBUTES = 200
MAX_PARTS = 64
MAX_COPIES = 16
MAX_LOADS = 1000
MAX_ELEMENTS = 8 * 2**20
SAMPLE_ELEMENTS = 2048
CALLBACKS = "callbacks"
LIBRARIES = ("torch", "harness", "transformers", "accelerate", "_pytest", "pluggy", "runpy", "threading")
HOLDERS = (nn.Module, dict, list, tuple)
FUNCTIONS = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


@dataclass(slots=True)
class _Model:
    """A trained model: its parameters, a sample of their values, and all that is held by models that train."""

    kind: str
    module: nn.Module
    parameters: list[torch.Tensor]
    held: set[int]
    sample: list[torch.Tensor] = field(default_factory=list)
    has_moved: bool = False
    update: float = 0.0
    _names: list[str] = field(default_factory=list)

    def list_names(self) -> list[str]:
        """The names of the parameters: asked for by mappings only, as torch takes its time to list them."""
        if not self._names:
            self._names = [clean_name(self.module, name) for name, _ in self.module.named_parameters()]
        return self._names


class CopyWatch:
    """Keeps, from one deep step to the next, what copies there were and what they held."""

    def __init__(self, session: Session, modules: ModuleHooks) -> None:
        self._session = session
        self._modules = modules
        self._found: dict[tuple[str, str], tuple[CopyObservation, list[torch.Tensor]]] = {}
        self._of_module: list[tuple[weakref.ref[nn.Module], int, CopyObservation]] = []
        self._models: dict[str, list[torch.Tensor]] = {}
        self._num_updates: dict[int, int] = {}

    def install(self) -> None:
        """Counts the updates of torch's own averaged models, and listens to weights being loaded."""
        self._session.taps.on_method(AveragedModel, "update_parameters", self._around_update)
        self._session.taps.on_method(nn.Module, "load_state_dict", self._around_load)

    def look(
        self, step: int, trained: Sequence[nn.Module], measure_update: Callable[[list[int]], float]
    ) -> None:
        """Notes every copy that can be reached from the program's frames, or was called.

        Args:
            step: The deep step that has just ended.
            trained: The models that trained in it.
            measure_update: Norm of the step's update of parameters, by their identities.
        """
        held = {id(parameter) for module in trained for parameter in list_parameters(module)}
        for module in trained:
            model = _describe_model(module, held)
            if not model.parameters:
                continue
            model.sample = _sample(model.parameters)
            before = self._models.get(model.kind)
            model.has_moved = before is not None and _differ(before, model.sample)
            model.update = measure_update([id(parameter) for parameter in list_parameters(module)])
            for name, place, holder in self._list_candidates(model, trained):
                tensors = _read_tensors(holder, model)
                if tensors is not None:
                    self._note(step, model, name, place, holder, tensors)
            self._models[model.kind] = model.sample

    def finish(self) -> None:
        """Fills in how often the copies were called and updated, and drops what was kept."""
        for _, identity, found in self._of_module:
            found.num_evaluations, found.num_evaluated_steps = self._modules.count_evaluations(identity)
        self._found, self._of_module, self._models = {}, [], {}

    def _note(
        self,
        step: int,
        model: _Model,
        name: str,
        place: str,
        holder: object,
        tensors: list[torch.Tensor],
    ) -> None:
        known = self._found.get((name, place))
        is_same = holder is model.module or (
            isinstance(holder, nn.Module) and unwrap(holder) is unwrap(model.module)
        )
        shares = all(
            tensor.data_ptr() == parameter.data_ptr() and tensor.numel()
            for tensor, parameter in zip(tensors, model.parameters, strict=True)
        )
        if (
            isinstance(holder, nn.Module)
            and not is_same
            and any(id(p) in model.held for p in list_parameters(holder))
        ):
            return
        if known is None:
            # The model itself has many names in a framework; they must not crowd the copies out.
            others = [entry for entry in self._session.run.copies if entry.is_same_object == is_same]
            if len(others) >= MAX_COPIES:
                return
            found = CopyObservation(name, type(holder).__name__, place, model.kind, is_same_object=is_same)
            self._session.run.copies.append(found)
            if isinstance(holder, nn.Module) and not is_same:
                self._of_module.append((weakref.ref(holder), id(holder), found))
        else:
            found = known[0]
        if found.steps and found.steps[-1] == step:
            return
        sample = model.sample if shares else _sample(tensors)
        if known is not None and found.steps:
            found.has_moved.append(_differ(known[1], sample))
            found.model_has_moved.append(model.has_moved)
        found.is_same_object = is_same
        found.shares_storage = shares
        found.steps.append(step)
        found.distances.append(_measure_distance(tensors, model, shares=shares))
        if isinstance(holder, AveragedModel):
            found.num_updates = self._num_updates.setdefault(id(holder), 0)
        self._found[(name, place)] = (found, sample)

    def _around_update(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = call(*args, **kwargs)
        self._session.attempt("averaged model", self._count_update, args[0])
        return result

    def _count_update(self, averaged: nn.Module) -> None:
        num_updates = self._num_updates[id(averaged)] = self._num_updates.get(id(averaged), 0) + 1
        for reference, _, found in self._of_module:
            if reference() is averaged:
                found.num_updates = num_updates

    def _around_load(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = call(*args, **kwargs)
        if self._session.is_training_thread() and not is_tracing():
            self._session.attempt("loaded weights", self._note_load, args[0])
        return result

    def _note_load(self, module: nn.Module) -> None:
        """Notes which copies a model that trains equals, now that weights were loaded into it."""
        loads = self._session.run.loads
        if not self._modules.is_trained(module) or len(loads) >= MAX_LOADS:
            return
        model = _describe_model(module, set())
        sources = [
            name
            for name, place, holder in _list_reachable()
            if (name, place) in self._found
            and (tensors := _read_tensors(holder, model)) is not None
            and all(
                tensor.data_ptr() != parameter.data_ptr() and bool(torch.equal(tensor, parameter))
                for tensor, parameter in zip(tensors, model.parameters, strict=True)
            )
        ]
        loads.append(LoadObservation(self._session.num_steps, model.kind, list(dict.fromkeys(sources))))

    def _list_candidates(
        self, model: _Model, trained: Sequence[nn.Module]
    ) -> Iterator[tuple[str, str, object]]:
        """What may be a copy, with its name and the place of that name."""
        named: set[int] = set()
        for name, place, value in _list_reachable():
            if isinstance(value, nn.Module):
                named.add(id(value))
            yield name, place, value
        for name, part in model.module.named_modules():
            if name and name.count(".") <= 1:
                named.add(id(part))
        for root in self._modules.find_roots():
            if id(root) not in named and all(root is not module for module in trained):
                yield "", "", root


def _describe_model(module: nn.Module, held: set[int]) -> _Model:
    parameters = [_local(parameter.detach()) for parameter in list_parameters(module)]
    return _Model(type(unwrap(module)).__name__, module, parameters, held)


def _read_tensors(holder: object, model: _Model) -> list[torch.Tensor] | None:
    """The tensors of a copy in the order of the model's parameters; None when it is none."""
    if holder is model.module:
        return model.parameters
    if isinstance(holder, nn.Module):
        tensors = list_parameters(holder)
    elif len(holder) < len(model.parameters) or len(holder) > MAX_ENTRIES:  # type: ignore[arg-type]
        return None
    elif isinstance(holder, dict):
        # Some of those that frames hold are large.
        if not all(name in holder or f"module.{name}" in holder for name in model.list_names()):
            return None
        names = {str(name).removeprefix("module."): value for name, value in holder.items()}
        tensors = [names.get(name) for name in model.list_names()]  # type: ignore[misc]
    elif isinstance(holder, (list, tuple)):
        tensors = list(holder)
    else:
        return None
    if len(tensors) != len(model.parameters):
        return None
    is_model_itself = not isinstance(holder, nn.Module) and all(
        isinstance(tensor, nn.Parameter) for tensor in tensors
    )
    tensors = [_local(tensor) for tensor in tensors]
    fits = all(
        issubclass(type(tensor), torch.Tensor)
        and tensor.shape == parameter.shape
        and tensor.device == parameter.device
        and tensor.layout is torch.strided
        for tensor, parameter in zip(tensors, model.parameters, strict=True)
    )
    return [tensor.detach() for tensor in tensors] if fits and not is_model_itself else None


def _local(value: Any) -> Any:
    """This rank's part of a sharded tensor: to compare whole ones, all ranks would have to talk to each other."""
    is_sharded = issubclass(type(value), torch.Tensor) and hasattr(value, "_local_tensor")
    return value._local_tensor if is_sharded else value  # noqa: SLF001  no public name without a collective


def _list_reachable() -> Iterator[tuple[str, str, object]]:
    """Modules, mappings and lists that the program's frames hold, directly or as an attribute."""
    seen: set[int] = set()
    frame: types.FrameType | None = sys._getframe()  # noqa: SLF001  the only way to the callers
    for _ in range(MAX_FRAMES):
        frame = frame.f_back if frame is not None else None
        if frame is None:
            return
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in LIBRARIES:
            continue
        place = f"{frame.f_code.co_name}()" if frame.f_code.co_name != "<module>" else "the script"
        for name, value in _read_locals(frame):
            if name.startswith("__"):
                continue
            # The same object under another name counts: that is what a forgotten deepcopy looks like.
            if issubclass(type(value), HOLDERS):
                yield name, place, value
            if id(value) not in seen and len(seen) < MAX_LOOKED_AT:
                seen.add(id(value))
                yield from _list_attributes(value)


def _list_attributes(value: object) -> Iterator[tuple[str, str, object]]:
    """What may be a copy among the attributes of an object, or of the objects in a list."""
    parts = value[:MAX_PARTS] if issubclass(type(value), (list, tuple)) else [value]  # type: ignore[index]
    for part in parts:
        kind = type(part)
        # What has no attributes of its own, and what is no object of the program's.
        if not kind.__dictoffset__ or issubclass(kind, (torch.Tensor, dict, type, *FUNCTIONS)):
            continue
        found = [*vars(part).items()][:MAX_ATTRIBUTES]
        if issubclass(kind, nn.Module):
            found += [*cast("nn.Module", part).named_children()][:MAX_ATTRIBUTES]
        for name, attribute in found:
            if issubclass(type(attribute), HOLDERS) and not str(name).startswith("_"):
                yield str(name), kind.__name__, attribute
                if name == CALLBACKS and issubclass(type(attribute), list) and kind is not list:
                    for callback in attribute[:MAX_PARTS]:
                        yield from _list_own(callback)


def _list_own(callback: object) -> Iterator[tuple[str, str, object]]:
    """What may be a copy among the attributes of a framework's callback."""
    kind = type(callback)
    for name, attribute in [*vars(callback).items()][:MAX_ATTRIBUTES] if kind.__dictoffset__ else ():
        if issubclass(type(attribute), HOLDERS):
            yield name, kind.__name__, attribute


def _read_locals(frame: types.FrameType) -> list[tuple[str, object]]:
    """The variables of a frame, so that the frame keeps none of them alive longer than it would have."""
    code = frame.f_code
    if _may_keep_locals(code):
        return []
    values = frame.f_locals
    found = list(values.items())
    if code.co_flags & inspect.CO_OPTIMIZED and sys.version_info < (3, 13):
        values.clear()
    return found


@functools.lru_cache(maxsize=256)
def _may_keep_locals(code: types.CodeType) -> bool:
    """Whether a function asks for its variables itself: before Python 3.13 it is given what we are given."""
    if "locals" in code.co_names:
        return True
    if "vars" not in code.co_names:
        return False
    # `vars(args)` is fine; `vars()` is another name of `locals()`.
    names = [(entry.opname, entry.argval) for entry in dis.get_instructions(code)]
    return any(
        first == ("LOAD_GLOBAL", "vars") and operation.startswith(("PRECALL", "CALL")) and count == 0
        for first, (operation, count) in itertools.pairwise(names)
    )


def _sample(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The beginnings of all tensors: in one where their types are one, else in one each."""
    with torch.no_grad():
        parts = [tensor.reshape(-1)[:SAMPLE_ELEMENTS] for tensor in tensors]
        is_alike = len({(part.dtype, part.device) for part in parts}) == 1
        return [torch.cat(parts)] if is_alike else [part.clone() for part in parts]


def _differ(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> bool:
    return len(before) != len(after) or any(
        first.shape != second.shape or not bool(torch.equal(first, second))
        for first, second in zip(before, after, strict=False)
    )


def _measure_distance(tensors: Sequence[torch.Tensor], model: _Model, *, shares: bool) -> float | None:
    if not model.update or sum(tensor.numel() for tensor in tensors) > MAX_ELEMENTS:
        return None
    if shares:
        return 0.0
    with torch.no_grad():
        norms = [
            torch.linalg.vector_norm(tensor.float() - parameter.float())
            for tensor, parameter in zip(tensors, model.parameters, strict=True)
        ]
        return math.hypot(*torch.stack(norms).tolist()) / model.update
