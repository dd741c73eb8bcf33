"""Names parameters as their models do, and models where there are several."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.parameter import is_lazy

from harness.watch.members import list_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "_FabricModule": "_forward_module",
}
"""Classes that wrap a model, and the name of the model in each."""


@dataclass(slots=True)
class _NamedModel:
    """An outermost module with parameters of its own, also once it is gone: an optimizer may keep these."""

    label: str
    root: weakref.ref[nn.Module]
    names: dict[int, tuple[weakref.ref[torch.Tensor], str]] = field(default_factory=dict)

    def look(self) -> None:
        """Takes the names that there are now; of a module that is gone, they stay as they were last seen."""
        if (root := self.root()) is not None:
            self.names = {
                id(parameter): (weakref.ref(parameter), clean_name(root, name))
                for name, parameter in root.named_parameters()
            }


class ModelNames:
    """The names of all parameters that were seen, by identity.

    Args:
        find_roots: Gives the outermost modules seen so far that are still alive, in order of their first call.
    """

    def __init__(self, find_roots: Callable[[], list[nn.Module]]) -> None:
        self._find_roots = find_roots
        self._models: list[_NamedModel] = []
        self._named: list[tuple[int, list[int]]] = []

    def name_parameters(self) -> dict[int, str]:
        """The name of every parameter that is alive; that of its model goes before it where there were several."""
        self._look()
        found: dict[int, str] = {}
        for model in self._models:
            prefix = f"{model.label}." if len(self._models) > 1 else ""
            for identity, (reference, name) in model.names.items():
                # A parameter that is gone may have left its identity to another one.
                if reference() is not None:
                    found.setdefault(identity, f"{prefix}{name}")
        return found

    def name_models(self) -> dict[int, str]:
        """What stands before the names of each model's own parameters, by identity, in the order of `name_parameters`.

        Empty text for the only model there was. Outermost modules without a parameter that belongs to no earlier one
        are parts of others, and not among them.
        """
        self._look()
        is_one = len(self._models) == 1
        return {
            id(root): "" if is_one else model.label
            for model in self._models
            if (root := model.root()) is not None
        }

    def count_trainable(self, names: dict[int, str]) -> dict[str, int]:
        """Number of elements of every trainable parameter, by name; empty once a model is gone.

        Args:
            names: As `name_parameters` has just given them.
        """
        roots = [model.root() for model in self._models]
        if None in roots:
            return {}
        return {
            names[id(parameter)]: parameter.numel()
            for root in roots
            if root is not None
            for parameter in list_parameters(root)
            if parameter.requires_grad and not is_lazy(parameter)
        }

    def _look(self) -> None:
        roots = [(root, [*map(id, list_parameters(root))]) for root in self._find_roots()]
        named = [(id(root), members) for root, members in roots]
        if named == self._named:
            return
        self._named = named
        known = {id(root) for model in self._models if (root := model.root()) is not None}
        seen = {
            identity
            for model in self._models
            if model.root() is None
            for identity, (reference, _) in model.names.items()
            if reference() is not None
        }
        for root, identities in roots:
            members = set(identities)
            if members <= seen:
                continue
            seen |= members
            if id(root) not in known:
                self._models.append(_NamedModel(self._find_label(root), weakref.ref(root)))
        for model in self._models:
            model.look()

    def _find_label(self, root: nn.Module) -> str:
        """The class, with a number where an earlier model has that name."""
        kind = type(unwrap(root)).__name__
        taken = {model.label for model in self._models}
        # A class may have the name that a second one of another class would get.
        numbered = (f"{kind}{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([kind], numbered) if name not in taken)


def clean_name(root: nn.Module, name: str) -> str:
    """A parameter's or module's name without what DistributedDataParallel and its like put in."""
    clean = name.replace("_orig_mod.", "").replace("_fsdp_wrapped_module.", "")
    while (inner := WRAPPERS.get(type(root).__name__)) is not None:
        clean = clean.removeprefix(f"{inner}.")
        root = _unwrap_once(root)
    return clean


def find_prefix(module: nn.Module, names: dict[int, str]) -> str:
    """What stands before the names of a module's own parameters among those of all models: `Sequential2`, `actor`.

    Empty where nothing does, and where the module has no parameter of its own that is named.
    """
    for name, parameter in module.named_parameters():
        clean, whole = clean_name(module, name), names.get(id(parameter), "")
        if whole == clean:
            return ""
        if whole.endswith(f".{clean}"):
            return whole.removesuffix(f".{clean}")
    return ""


def _unwrap_once(root: nn.Module) -> nn.Module:
    inner = root._modules.get(WRAPPERS[type(root).__name__])  # noqa: SLF001  no public name
    return inner if inner is not None else nn.Module()


def unwrap(root: nn.Module) -> nn.Module:
    """The program's own model, without what DistributedDataParallel and its like put around it."""
    while type(root).__name__ in WRAPPERS:
        root = _unwrap_once(root)
    return root
