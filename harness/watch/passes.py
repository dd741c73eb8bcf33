"""Sees the outermost module calls of a deep step: mode, gradients, and a batch to probe the model with later."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.record.structure import PassObservation
from harness.watch.members import list_parameters
from harness.watch.next_tokens import TargetNote, find_token_input

if TYPE_CHECKING:
    from harness.watch.session import Session

MAX_PASSES = 16
MAX_NAMES = 8
MAX_BATCH_BYTES = 8 * 2**20
MAX_HOOKED = 4
MAX_TARGETS = 4
MAX_TARGET_ELEMENTS = 2**20
BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  the base class of all of them
DROPOUTS = nn.modules.dropout._DropoutNd  # noqa: SLF001  the base class of all of them


class CannotCopy(Exception):  # noqa: N818  it tells what can't be done, and is no failure
    """A batch holds something that is no tensor and no plain value."""


class Captured:
    """A trained model with the batch that it was called with on a deep step."""

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module = weakref.ref(module)
        self.args = args
        self.kwargs = kwargs
        self.next_tokens: TargetNote | None = None


class PassHooks:
    """Is told all module calls of one deep step, and keeps those of outermost modules."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inside: list[int] = []
        self._passes: dict[tuple[int, bool, bool], tuple[weakref.ref[nn.Module], PassObservation]] = {}
        self._captured: dict[int, Captured] = {}
        self._targets: list[tuple[torch.Tensor, int]] = []

    def note_backward(self) -> None:
        """Forgets calls that never returned: a backward is not inside one."""
        self._inside.clear()

    def note_targets(self, targets: torch.Tensor, ignore_index: int) -> None:
        """Takes the labels of a loss, to tell whether they are the tokens that follow."""
        if len(self._targets) < MAX_TARGETS and targets.numel() <= MAX_TARGET_ELEMENTS:
            self._targets.append((targets.detach().clone(), ignore_index))

    def finish(self, held: set[int]) -> tuple[list[PassObservation], list[nn.Module], Captured | None]:
        """What was seen, the models that trained, and the largest of these with its batch.

        Args:
            held: Identities of the parameters that optimizers hold.
        """
        trained: dict[int, tuple[int, nn.Module]] = {}
        for reference, found in self._passes.values():
            module = reference()
            if module is None:
                continue
            found.num_trained = sum(id(parameter) in held for parameter in list_parameters(module))
            if found.got_gradient and found.num_trained:
                trained[id(module)] = (found.num_trained, module)
        passes = [found for _, found in self._passes.values()]
        captured = max(
            (entry for identity, entry in self._captured.items() if identity in trained),
            key=lambda entry: trained[id(entry.module())][0],
            default=None,
        )
        if captured is not None:
            captured.next_tokens = find_token_input((captured.args, captured.kwargs), self._targets)
        self._passes, self._captured, self._targets = {}, {}, []
        return passes, [module for _, module in trained.values()], captured

    def enter(self, module: nn.Module) -> None:
        """Before a module's forward."""
        self._inside.append(id(module))

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """After a module's forward that has returned."""
        while self._inside and self._inside.pop() != id(module):
            # What is above it never returned.
            continue
        if not self._inside:
            self._session.attempt("pass", self._note, module, args, kwargs, output)

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, torch.jit.ScriptModule) or next(module.parameters(), None) is None:
            return
        with_gradient = torch.is_grad_enabled()
        key = (id(module), module.training, with_gradient)
        if key not in self._passes:
            if len(self._passes) >= MAX_PASSES:
                return
            self._passes[key] = (weakref.ref(module), _describe(module, with_gradient=with_gradient))
        found = self._passes[key][1]
        found.num_calls += 1
        if not with_gradient:
            return
        for tensor in list_tensors(output)[:MAX_HOOKED]:
            if tensor.requires_grad and tensor.grad_fn is not None:
                tensor.register_hook(_build_hook(found))  # type: ignore[no-untyped-call]
        if id(module) not in self._captured and count_bytes((args, kwargs)) <= MAX_BATCH_BYTES:
            try:
                copied = copy_batch((args, kwargs))
            except CannotCopy:
                return
            self._captured[id(module)] = Captured(module, *copied)


def _build_hook(found: PassObservation) -> Any:
    def note_gradient(gradient: torch.Tensor) -> None:
        del gradient
        found.got_gradient = True

    return note_gradient


def _describe(module: nn.Module, *, with_gradient: bool) -> PassObservation:
    found = PassObservation(type(module).__name__, module.training, with_gradient)
    momenta: set[float] = set()
    for name, part in module.named_modules():
        is_dropout = _drops(part)
        is_batch_norm = isinstance(part, BATCH_NORMS) and part.track_running_stats
        if not is_dropout and not is_batch_norm:
            if len(found.asking) < MAX_NAMES and _asks_for_mode(type(part)):  # type: ignore[arg-type]
                found.asking.append(f"{name or 'the model'} ({type(part).__name__})")
            continue
        found.num_dropouts += is_dropout
        names = found.active if part.training else found.inactive
        if len(names) < MAX_NAMES:
            names.append(f"{name or 'itself'} ({type(part).__name__})")
        if is_batch_norm and isinstance(part, BATCH_NORMS):
            if part.training and part.momentum is not None:
                momenta.add(float(part.momentum))
                if not part.momentum:
                    found.still_batch_norms.append(name or "itself")
            counter = part.num_batches_tracked
            found.num_untouched_batch_norms += counter is not None and not int(counter)
    found.batch_norm_momenta = sorted(momenta)
    return found


def _drops(module: nn.Module) -> bool:
    if isinstance(module, DROPOUTS):
        return bool(module.p)
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout)
    return isinstance(module, nn.RNNBase) and bool(module.dropout) and module.num_layers > 1


@functools.lru_cache(maxsize=512)
def _asks_for_mode(kind: type[nn.Module]) -> bool:
    """Whether the `forward` of a class of the program's own looks at `self.training`."""
    code = getattr(kind.forward, "__code__", None)
    is_own = kind.__module__.partition(".")[0] not in {"torch", "transformers", "lightning"}
    return is_own and code is not None and "training" in code.co_names


def list_tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in nested lists, tuples, mappings and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in list_tensors(part)]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in list_tensors(part)]
    if dataclasses.is_dataclass(value) and hasattr(value, "__dict__"):
        return [tensor for part in vars(value).values() for tensor in list_tensors(part)]
    return []


def count_bytes(value: Any) -> int:
    """Bytes of the tensors in a batch."""
    return sum(tensor.numel() * tensor.element_size() for tensor in list_tensors(value))


def copy_batch(value: Any) -> Any:
    """A batch with copies of its tensors.

    Raises:
        CannotCopy: It holds something else than tensors, plain values, and lists, tuples and mappings of them.
    """
    if type(value) in {torch.Tensor, nn.Parameter}:
        return value.detach().clone()
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
        return value
    if type(value) in {list, tuple}:
        return type(value)(copy_batch(part) for part in value)
    if isinstance(value, Mapping):
        return {name: copy_batch(part) for name, part in value.items()}
    raise CannotCopy(type(value).__name__)
