"""Follows the gradients through one deep step: before and after each backward, and past the optimizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import is_lazy

from harness.record.deep import StillParameter, UnheldParameter
from harness.watch.fingerprints import fingerprint_tensor
from harness.watch.gradients import read_norms
from harness.watch.members import list_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from harness.record.deep import DeepObservation

MAX_MICRO_BATCHES = 16


class GradientFlow:
    """What became of the gradients in one deep step.

    Args:
        find_models: Gives the outermost models seen so far.
    """

    def __init__(self, find_models: Callable[[], list[nn.Module]]) -> None:
        self._find_models = find_models
        self._before: list[dict[int, float]] = []
        self._after: list[dict[int, float]] = []
        self._at_step: dict[int, tuple[torch.Tensor, float | None, bool]] = {}
        self._still: dict[int, StillParameter] = {}
        self._models: list[nn.Module] = []
        self._without_gradient: dict[int, nn.Module] = {}
        self._outermost: nn.Module | None = None
        self._has_outermost_gradient = False
        self._listed: tuple[list[int], list[torch.Tensor]] | None = None

    def list_model_parameters(self) -> list[torch.Tensor]:
        """Every parameter of the models seen so far, in their order; without lazy ones, which have no sizes yet."""
        found = {id(p): p for model in self._find_models() for p in list_parameters(model) if not is_lazy(p)}
        return list(found.values())

    def list_known_parameters(self) -> list[torch.Tensor]:
        """The same, gone through once for all backwards of the step, unless models were seen since."""
        models = self._find_models()
        if self._listed is None or [id(model) for model in models] != self._listed[0]:
            self._listed = ([id(model) for model in models], self.list_model_parameters())
        return self._listed[1]

    def note_before_backward(self, held: Iterable[torch.Tensor]) -> None:
        """Takes the gradients that are there when a backward begins."""
        if len(self._before) < MAX_MICRO_BATCHES:
            self._before.append(self._read(held))

    def note_after_backward(self, held: Iterable[torch.Tensor]) -> None:
        """Takes the gradients that are there when a backward has ended."""
        if len(self._after) < MAX_MICRO_BATCHES:
            self._after.append(self._read(held))

    def note_step(
        self, is_called: Callable[[nn.Module], bool], is_stale: Callable[[torch.Tensor], bool]
    ) -> dict[int, float]:
        """Right before the first optimizer steps: takes the gradients of the models that were called.

        Returns:
            The norms just read, by identity of the parameter; empty for optimizers that step after the first.
        """
        if self._models:
            return {}
        self._models = [model for model in self._find_models() if is_called(model)]
        parameters = {id(p): p for model in self._models for p in list_parameters(model) if not is_lazy(p)}
        norms = self._read(parameters.values())
        self._at_step = {
            identity: (parameter, norms.get(identity), is_stale(parameter))
            for identity, parameter in parameters.items()
        }
        return norms

    def note_values(self, held: Iterable[torch.Tensor], max_bytes: int) -> None:
        """Right before the first optimizer steps: takes the values of parameters that it does not hold.

        Nothing is taken where they are larger than so many bytes.
        """
        own = set(map(id, held))
        others = {
            id(p): p.detach() for p in self.list_model_parameters() if id(p) not in own and not p.is_meta
        }
        if (
            self._still
            or sum(tensor.numel() * tensor.element_size() for tensor in others.values()) > max_bytes
        ):
            return
        norms = read_norms([*others.values()])
        self._still = {
            identity: StillParameter("", norm, fingerprint_tensor(tensor))
            for (identity, tensor), norm in zip(others.items(), norms, strict=True)
        }

    def list_leftovers(self) -> dict[int, float]:
        """Norms of the gradients there were when the step's first backward began, by identity of the parameter."""
        return self._before[0] if self._before else {}

    def enter(self, module: nn.Module) -> None:
        """Before a module's forward: notes whether the outermost one is called with gradients."""
        if self._outermost is None:
            self._outermost = module
            self._has_outermost_gradient = torch.is_grad_enabled()

    def leave(self, module: nn.Module) -> None:
        """After a module's forward, also when it raised."""
        if self._outermost is module:
            self._outermost = None
        elif self._has_outermost_gradient and not torch.is_grad_enabled():
            self._without_gradient[id(module)] = module

    def list_cut_off(self) -> set[int]:
        """Parameters of modules that ran without gradients inside a model that was called with them."""
        return {id(p) for module in self._without_gradient.values() for p in module.parameters(recurse=False)}

    def list_positions(self) -> dict[int, int]:
        """The place of every parameter of the models called, by identity, in their own order."""
        return {identity: position for position, identity in enumerate(self._at_step)}

    def describe(
        self, record: DeepObservation, stepped: set[int], held: set[int], names: dict[int, str]
    ) -> None:
        """Completes the record of the step, and lets go of all modules and tensors.

        Args:
            record: Of the step.
            stepped: Parameters, by identity, of the optimizers that stepped.
            held: Those of all optimizers seen so far.
            names: Of parameters.
        """
        record.grad_norms_before_backward = [_join(norms, stepped) for norms in self._before]
        record.grad_norms_after_backward = [_join(norms, stepped) for norms in self._after]
        is_held, is_training = {}, {}
        for model in self._models:
            members = [id(parameter) for parameter in list_parameters(model)]
            is_held.update(dict.fromkeys(members, not held.isdisjoint(members)))
            is_training.update(dict.fromkeys(members, model.training))
        record.unheld = [
            UnheldParameter(
                name=names.get(identity, "?"),
                shape=tuple(parameter.shape),
                grad_norm=None if is_stale else norm,
                is_trainable=parameter.requires_grad,
                is_model_held=is_held.get(identity, False),
                is_model_training=is_training.get(identity, False),
                model_position=position,
            )
            for position, (identity, (parameter, norm, is_stale)) in enumerate(self._at_step.items())
            if identity not in held
        ]
        for identity, parameter in self._still.items():
            if identity not in held and (name := names.get(identity)) is not None:
                parameter.name = name
                record.still.append(parameter)
        self._still = {}
        self._at_step, self._models, self._without_gradient, self._outermost = {}, [], {}, None
        self._listed = None

    def _read(self, parameters: Iterable[torch.Tensor]) -> dict[int, float]:
        """The norm of each gradient there is, by identity of the parameter."""
        having = {id(p): gradient for p in parameters if (gradient := p.grad) is not None}
        return dict(zip(having, read_norms(list(having.values())), strict=True))


def _join(norms: dict[int, float], wanted: set[int]) -> float | None:
    """The norm over the gradients of some parameters; None where none of them has one."""
    found = [norm for identity, norm in norms.items() if identity in wanted]
    return math.sqrt(sum(norm * norm for norm in found)) if found else None
