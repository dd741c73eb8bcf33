"""Traces a step: generators, batch, and per parameter the norm of its gradient and of its change."""

from __future__ import annotations

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
        self._generators = ""
        self._is_in_order = False
        self._num_calls: Counter[tuple[int, bool, bool]] = Counter()
        self._copies: dict[int, list[torch.Tensor]] = {}
        self._gradients: list[tuple[list[int], int, torch.Tensor | None]] = []
        self._held: list[list[int]] = []
        self._unclipped: dict[int, tuple[torch.Tensor, int]] = {}
        self._seen: dict[int, tuple[frozenset[int], str]] = {}
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

    def begin_call(self, module: nn.Module) -> None:
        """Takes the state of torch's generators when a model is called."""
        self._is_in_order = self._num_calls[_find_kind(module)] < MAX_CALLS_IN_ORDER
        if self._is_in_order:
            with self._session.clock.leave_out():
                self._generators = fingerprint_torch_generators()

    def note_call(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], given: object
    ) -> None:
        """Takes what a model was called with and what it gave."""
        kind = _find_kind(module)
        _, is_training, has_gradient = kind
        is_kept = has_gradient and len(self._trace.outputs) < MAX_CALLS
        is_beside = not (has_gradient and is_training) and self._num_calls[kind] < MAX_CALLS
        self._num_calls[kind] += 1
        if not (is_kept or is_beside or self._is_in_order):
            return
        with self._session.clock.leave_out():
            given_before, gave = _fingerprint_input(args, kwargs), fingerprint_outputs(given) or ""
            if is_kept:
                self._trace.outputs.append(gave)
            if self._is_in_order:
                position = self._session.called.setdefault(module, len(self._session.called))
                is_made = has_gradient and any(map(_is_made, list_tensors((args, kwargs))))
                self._trace.calls.append(
                    ModelCall(
                        position, is_training, has_gradient, is_made, self._generators, given_before, gave
                    )
                )
            if is_beside:
                members, values = self._look_at(module)
                mode = "training" if is_training else "eval"
                self._side_calls.append((members, (type(module).__name__, mode, given_before, gave, values)))

    def note_eval_call(self) -> None:
        """Counts a call of a model in eval mode whose graph is recorded, as if it were to train."""
        self._trace.num_eval_calls = (self._trace.num_eval_calls or 0) + 1

    def _look_at(self, module: nn.Module) -> tuple[frozenset[int], str]:
        """The identities of its parameters, and a fingerprint of them all; empty where they are too large for it.

        At its first call of the step.
        """
        if id(module) not in self._seen:
            parameters = list_members(module)
            num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
            prints = [fingerprint_tensor(p) for p in parameters] if num_bytes <= MAX_COPIED_BYTES else []
            values = f"{zlib.crc32(repr(prints).encode()):08x}" if prints else ""
            self._seen[id(module)] = frozenset(map(id, parameters)), values
        return self._seen[id(module)]

    def note_before_clipping(self, parameters: Iterable[torch.Tensor]) -> None:
        """Takes gradients that are about to be clipped, each before it is clipped for the first time."""
        with self._session.clock.leave_out(), torch.no_grad():
            having = [p for p in parameters if p.grad is not None and id(p) not in self._unclipped]
            norms = _stack_norms([p.grad for p in having if p.grad is not None])
            if norms is not None:
                self._unclipped.update((id(p), (norms, place)) for place, p in enumerate(having))

    def read_gradients(self, optimizer: Optimizer) -> None:
        """Before an optimizer steps: its gradients, its parameters, and a copy of these."""
        with self._session.clock.leave_out(), torch.no_grad():
            held = list_parameters([optimizer])
            self._held.append([*map(id, held)])
            self._session.stepped_parameters.update(self._held[-1])
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
        self._trace.side_calls = self._list_side_calls()
        self._gradients, self._updates, self._weights, self._held = [], [], [], []
        self._unclipped, self._seen, self._side_calls = {}, {}, []
        return self._trace

    def _read_unclipped(self) -> list[list[float | None]]:
        if not self._unclipped:
            return []
        norms = {id(tensor): tensor.tolist() for tensor, _ in self._unclipped.values()}
        found = {identity: norms[id(tensor)][place] for identity, (tensor, place) in self._unclipped.items()}
        return [[found.get(identity) for identity in row] for row in self._held]

    def _list_side_calls(self) -> list[tuple[str, str, str, str, str]]:
        """The calls of models of which no optimizer has moved a parameter until now."""
        trained = self._session.stepped_parameters
        return [call for members, call in self._side_calls if trained.isdisjoint(members)]


def _find_kind(module: nn.Module) -> tuple[int, bool, bool]:
    """What of a call decides with which others it is counted: the model, its mode, whether gradients are recorded."""
    return id(module), module.training, torch.is_grad_enabled()


def _fingerprint_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A fingerprint of what a model is called with: of one tensor, the one that it had as the output of another."""
    is_one = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
    return (fingerprint_outputs(args) if is_one else fingerprint_batch((args, kwargs))) or ""


def _is_made(tensor: torch.Tensor) -> bool:
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
