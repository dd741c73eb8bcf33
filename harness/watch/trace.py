"""Traces a step: generators, batch, and per parameter the norm of its gradient and of its change."""

from __future__ import annotations

import weakref
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from harness.record.trace import ModelCall, StepTrace
from harness.watch.fingerprints import (
    fingerprint_batch,
    fingerprint_generators,
    fingerprint_outputs,
    fingerprint_tensor,
    fingerprint_torch_generators,
)
from harness.watch.gradients import as_floats, list_parameters, measure_norms
from harness.watch.members import list_parameters as list_members
from harness.watch.naming import unwrap
from harness.watch.passes import list_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer

    from harness.watch.session import Session

MAX_COPIED_BYTES = 64 * 2**20
MAX_CALLS, MAX_CALLS_IN_ORDER = 64, 8
"""Calls of one model in one mode that are taken of a step; of these, in order."""


class TracedStep:
    """The trace of the step that is open; none of the time it takes counts as the program's.

    Norms stay on their device until the step is finished; reading them there waits for a GPU.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._trace = StepTrace(num_eval_calls=0)
        self._has_begun = False
        self._held_by_any: set[int] | None = None
        self._num_calls: weakref.WeakKeyDictionary[nn.Module, Counter[tuple[bool, bool]]] = (
            weakref.WeakKeyDictionary()
        )
        self._seen: weakref.WeakKeyDictionary[nn.Module, tuple[frozenset[int], str]] = (
            weakref.WeakKeyDictionary()
        )
        self._kind = (True, True)
        self._is_in_order = self._is_beside = self._is_made = False
        self._generators = self._called_with = ""
        self._copies: dict[int, list[torch.Tensor]] = {}
        self._gradients: list[tuple[list[int], int, torch.Tensor | None]] = []
        self._held: list[list[int]] = []
        self._unclipped: dict[int, tuple[torch.Tensor, int]] = {}
        self._clipped_after: dict[int, int] = {}
        self._is_clipped_again = False
        self._side_calls: list[tuple[frozenset[int], tuple[str, str, str, str, str]]] = []
        self._updates: list[torch.Tensor | None] = []
        self._weights: list[torch.Tensor | None] = []

    def note_first_event(self) -> None:
        """Takes the state of the generators, when the first forward or backward of the step begins."""
        if self._has_begun:
            return
        self._has_begun = True
        with self._session.clock.leave_out():
            self._trace.generators = fingerprint_generators()
            given = [
                (len(loader.fingerprints), loader.fingerprints[-1])
                for loader in self._session.run.loaders
                if loader.fingerprints
            ]
            if given:
                self._trace.given = f"{zlib.crc32(repr(given).encode()):08x}"

    def note_batch(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_again: bool = False) -> None:
        """Takes what the model is called with; again, where keyword arguments came later."""
        if is_again:
            del self._trace.called_with[-1:]
        if len(self._trace.called_with) < MAX_CALLS:
            with self._session.clock.leave_out():
                self._trace.called_with.append(fingerprint_batch((args, kwargs)) or "")

    def begin_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Takes what a model is about to be called with, and the state of torch's generators."""
        counts = self._num_calls.setdefault(module, Counter())
        kind = self._kind = module.training, torch.is_grad_enabled()
        self._is_in_order = counts[kind] < MAX_CALLS_IN_ORDER
        self._is_beside = kind != (True, True) and counts[kind] < MAX_CALLS and self._is_still(module)
        counts[kind] += 1
        if self._is_in_order or self._is_beside:
            with self._session.clock.leave_out():
                self._generators = fingerprint_torch_generators() if self._is_in_order else ""
            self.take_input(args, kwargs)

    def take_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Takes what a model is called with; again, where keyword arguments are only known after the call."""
        if self._is_in_order or self._is_beside:
            _, has_gradient = self._kind
            with self._session.clock.leave_out():
                self._called_with = _fingerprint_input(args, kwargs)
                self._is_made = has_gradient and any(map(_has_graph, list_tensors((args, kwargs))))

    def note_call(self, module: nn.Module, given: object) -> None:
        """Takes what the model gave."""
        is_training, has_gradient = self._kind
        is_kept = has_gradient and len(self._trace.outputs) < MAX_CALLS
        if not (is_kept or self._is_in_order or self._is_beside):
            return
        with self._session.clock.leave_out():
            gave = fingerprint_outputs(given) or ""
            if is_kept:
                self._trace.outputs.append(gave)
            if self._is_in_order:
                position, prints = self._session.find_position(module), (self._generators, self._called_with)
                call = ModelCall(position, is_training, has_gradient, self._is_made, *prints, gave)
                self._trace.calls.append(call)
            if self._is_beside:
                members, values = self._look_at(module)
                mode = "training" if is_training else "eval"
                name = type(unwrap(module)).__name__
                self._side_calls.append((members, (name, mode, self._called_with, gave, values)))

    def _is_still(self, module: nn.Module) -> bool:
        """Whether no optimizer that is there holds a parameter of a model."""
        if self._held_by_any is None:
            self._held_by_any = self._session.list_held()
        return self._held_by_any.isdisjoint(map(id, list_members(module)))

    def note_eval_call(self) -> None:
        """Counts a call of a model in eval mode whose graph is recorded, as if it were to train."""
        self._trace.num_eval_calls = (self._trace.num_eval_calls or 0) + 1

    def _look_at(self, module: nn.Module) -> tuple[frozenset[int], str]:
        """The identities of its parameters, and a fingerprint of them all; empty where they are too large for it.

        At its first call of the step.
        """
        found = self._seen.get(module)
        if found is None:
            parameters = list_members(module)
            is_small = (
                sum(parameter.numel() * parameter.element_size() for parameter in parameters)
                <= MAX_COPIED_BYTES
            )
            prints = [fingerprint_tensor(p) for p in parameters] if is_small else []
            values = f"{zlib.crc32(repr(prints).encode()):08x}" if prints else ""
            found = self._seen[module] = frozenset(map(id, parameters)), values
        return found

    def note_before_clipping(self, parameters: Iterable[torch.Tensor], num_backwards: int) -> None:
        """Takes gradients that are about to be clipped, after so many backwards of the run.

        Where they are clipped again after another backward, what they would be without is not known.
        """
        with self._session.clock.leave_out(), torch.no_grad():
            stepped = {identity for row in self._held for identity in row}
            fresh = [p for p in parameters if p.grad is not None and id(p) not in stepped]
            if any(self._clipped_after.get(id(p), num_backwards) != num_backwards for p in fresh):
                self._is_clipped_again = True
            having = [p for p in fresh if id(p) not in self._unclipped]
            norms = _stack_norms([p.grad for p in having if p.grad is not None])
            if norms is not None:
                self._unclipped.update((id(p), (norms, place)) for place, p in enumerate(having))
                self._clipped_after.update((id(p), num_backwards) for p in having)

    def read_gradients(self, optimizer: Optimizer) -> None:
        """Before an optimizer steps: its gradients, its parameters, and a copy of these."""
        with self._session.clock.leave_out(), torch.no_grad():
            held = list_parameters([optimizer])
            self._held.append([*map(id, held)])
            by_any = self._session.list_held()
            self._trace.side_calls = [
                call for members, call in self._side_calls if by_any.isdisjoint(members)
            ]
            having = [(place, p.grad) for place, p in enumerate(held) if p.grad is not None]
            norms = _stack_norms([gradient for _, gradient in having])
            if norms is not None and (scale := getattr(optimizer, "grad_scale", None)) is not None:
                norms = norms / scale
            self._gradients.append(([place for place, _ in having], len(held), norms))
            sample = _sample(held)
            self._weights.append(_stack_norms(sample))
            self._copies[id(optimizer)] = [part.clone() for part in sample]

    def read_updates(self, optimizer: Optimizer) -> None:
        """After the optimizer has stepped: by how much it changed its parameters."""
        before = self._copies.pop(id(optimizer), None)
        if before is None:
            return
        with self._session.clock.leave_out(), torch.no_grad():
            now = _sample(list_parameters([optimizer]))
            are_same = len(now) == len(before)
            changes = (
                [after - earlier for after, earlier in zip(now, before, strict=True)] if are_same else []
            )
            self._updates.append(_stack_norms(changes))

    def finish(self) -> StepTrace:
        """The trace, with its numbers read."""
        self._copies = {}
        for places, num_parameters, norms in self._gradients:
            row: list[float | None] = [None] * num_parameters
            if norms is not None:
                for place, norm in zip(places, norms.tolist(), strict=True):
                    row[place] = norm
            self._trace.gradients.append(row)
        self._trace.updates = [[] if norms is None else norms.tolist() for norms in self._updates]
        self._trace.weights = [[] if norms is None else norms.tolist() for norms in self._weights]
        self._trace.unclipped = self._read_unclipped()
        self._gradients, self._updates, self._weights, self._held = [], [], [], []
        self._unclipped, self._clipped_after, self._side_calls = {}, {}, []
        self._seen.clear()
        self._num_calls.clear()
        return self._trace

    def _read_unclipped(self) -> list[list[float | None]]:
        if not self._unclipped or self._is_clipped_again:
            return []
        norms = {id(tensor): tensor.tolist() for tensor, _ in self._unclipped.values()}
        found = {identity: norms[id(tensor)][place] for identity, (tensor, place) in self._unclipped.items()}
        return [[found.get(identity) for identity in row] for row in self._held]


def _fingerprint_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A fingerprint of what a model is called with: of one tensor, the one that it had as the output of another."""
    is_one = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
    return (fingerprint_outputs(args) if is_one else fingerprint_batch((args, kwargs))) or ""


def _has_graph(tensor: torch.Tensor) -> bool:
    return tensor.grad_fn is not None


def _stack_norms(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """The norm of each tensor, on their device; None without any."""
    return torch.stack(list(measure_norms(tensors))) if tensors else None


def _sample(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """The numbers of each parameter; every so manieth of them where all together are too many to copy."""
    local = [getattr(parameter, "_local_tensor", parameter).detach() for parameter in parameters]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in local)
    stride = -(-num_bytes // MAX_COPIED_BYTES)
    return [as_floats(tensor if stride <= 1 else tensor.reshape(-1)[::stride]) for tensor in local]
