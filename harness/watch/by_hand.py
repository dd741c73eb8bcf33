"""Counts the updates that a program makes to its parameters without an optimizer's step: to end it, or to miss them.

Looked for while no optimizer has stepped: from then on its steps are counted, and these hooks are gone. Backwards
alone tell nothing, as gradients may be accumulated over any number of them.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from harness.watch.fingerprints import fingerprint_tensor
from harness.watch.taps import TapSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.watch.limits import StepLimit
    from harness.watch.session import Session

MAX_LEAVES = 16
MAX_ELEMENTS = 2**20
"""Of larger tensors only so many numbers, evenly spread, are compared."""
MAX_NODES = 50_000
"""Of larger graphs only so much is searched for parameters."""
MIN_INPUTS = 2
"""An input of its own that changes from gradient to gradient is an attack or a latent, not a model."""


class UpdatesByHand:
    """Compares the parameters from one gradient to the next; counts how often most of them have changed.

    Parameters that come back to a state they have been in before are no simple training (the inner loops of
    meta-learning do so): counting then ends for good.
    """

    def __init__(self, session: Session, limit: StepLimit) -> None:
        self._session = session
        self._limit = limit
        self._taps = TapSet()
        self._leaves: list[weakref.ref[torch.Tensor]] = []
        self._before: tuple[str | None, ...] = ()
        self._seen: set[tuple[str | None, ...]] = set()
        self._num_gradients = 0
        self._is_inside = False
        self._is_blind = False

    def install(self) -> None:
        """Starts to listen to everything that computes gradients."""
        import torch._functorch.eager_transforms as transforms  # noqa: PLC0415  private, so only where it is used

        self._taps.on_function(torch.autograd.backward, self._around_backward)
        self._taps.on_function(torch.autograd.grad, self._around_grad)
        for name in ("grad_impl", "grad_and_value_impl"):
            if (function := getattr(transforms, name, None)) is not None:
                self._taps.on_function(function, self._around_functional)

    def remove(self) -> None:
        """Takes every hook off."""
        self._taps.remove_all()

    def _around_backward(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        tensors = args[0] if args else kwargs.get("tensors")
        return self._watch(call, args, kwargs, lambda: self._find_leaves(tensors))

    def _around_grad(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = args[1] if len(args) > 1 else kwargs.get("inputs")
        if kwargs.get("create_graph") or not isinstance(inputs, (list, tuple)):
            return call(*args, **kwargs)
        return self._watch(call, args, kwargs, lambda: _find_inputs(inputs))

    def _around_functional(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._watch(call, args, kwargs, lambda: _find_arguments(args[1], args[3]))

    def _watch(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        find: Callable[[], list[torch.Tensor]],
    ) -> Any:
        session = self._session
        if session.ledger.num_calls:
            self.remove()
            return call(*args, **kwargs)
        if self._is_inside or session.num_nested_backwards or not session.is_training_thread():
            return call(*args, **kwargs)
        self._num_gradients += 1
        # Where only their absence is of interest, ever more rarely: a long accumulation is not to pay for it.
        if self._limit.is_set or self._num_gradients & (self._num_gradients - 1) == 0:
            self._compare(find)
        self._limit.check_by_hand(session.run.num_updates_by_hand, self._num_gradients)
        self._is_inside = True
        try:
            return call(*args, **kwargs)
        finally:
            self._is_inside = False

    def _compare(self, find: Callable[[], list[torch.Tensor]]) -> None:
        if self._is_blind:
            return
        try:
            now = tuple(_fingerprint(leaf) for leaf in find()[:MAX_LEAVES])
        except Exception:  # noqa: BLE001  tensors inside transforms, or without storage: nothing can be told
            self._is_blind = True
            return
        if len(now) != len(self._before):
            self._before = now
            return
        self._session.run.num_compared_gradients += bool(now)
        num_changed = sum(one != other for one, other in zip(now, self._before, strict=True))
        if not num_changed:
            return
        self._seen.add(self._before)
        self._is_blind = now in self._seen
        if not self._is_blind and 2 * num_changed >= len(now):
            self._session.run.num_updates_by_hand += 1
        self._before = now

    def _find_leaves(self, tensors: Any) -> list[torch.Tensor]:
        """The parameters below what reached backward: searched for once, and again when they are gone."""
        leaves = [leaf for reference in self._leaves if (leaf := reference()) is not None]
        if not leaves or len(leaves) < len(self._leaves):
            leaves = _search([tensors] if isinstance(tensors, torch.Tensor) else tensors)
            self._leaves = [weakref.ref(leaf) for leaf in leaves]
        return leaves


def _search(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves of a graph that take a gradient, evenly spread where there are many."""
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    known = set(waiting)
    leaves: list[torch.Tensor] = []
    while waiting and len(known) < MAX_NODES:
        node = waiting.pop()
        if (leaf := getattr(node, "variable", None)) is not None:
            leaves.append(leaf)
        following = [node for node, _ in node.next_functions if node is not None and node not in known]
        known.update(following)
        waiting += following
    return leaves[:: max(1, -(-len(leaves) // MAX_LEAVES))]


def _find_inputs(inputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [leaf for leaf in inputs if leaf.is_leaf]
    return leaves if len(leaves) >= MIN_INPUTS else []


def _find_arguments(argnums: int | tuple[int, ...], args: tuple[Any, ...]) -> list[torch.Tensor]:
    """The tensors that torch.func differentiates by; none where they hang on others, as in meta-learning."""
    places = (argnums,) if isinstance(argnums, int) else argnums
    tensors = [
        leaf
        for place in places
        for leaf in torch.utils._pytree.tree_leaves(args[place])  # noqa: SLF001  no public name
        if isinstance(leaf, torch.Tensor)
    ]
    if len(tensors) < MIN_INPUTS or any(tensor.grad_fn is not None for tensor in tensors):
        return []
    return tensors


def _fingerprint(tensor: torch.Tensor) -> str | None:
    local = getattr(tensor, "_local_tensor", tensor).detach()
    if local.numel() > MAX_ELEMENTS:
        local = local.reshape(-1)[:: local.numel() // MAX_ELEMENTS]
    return fingerprint_tensor(local)
