"""Notes which functions that draw random numbers, or drop some, a call of a model leads to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

DROPOUT_FUNCTIONS = frozenset(
    {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "dropout_"}
)
RANDOM_FUNCTIONS = frozenset(
    {
        "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_",
        "multinomial", "normal", "normal_", "uniform_", "exponential_", "random_", "poisson", "rrelu",
        "gumbel_softmax", "fractional_max_pool2d", "cauchy_", "geometric_", "log_normal_",
    }
)  # fmt: skip


class Draws(TorchFunctionMode):
    """Notes which functions that draw random numbers a call of a model leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.dropouts: list[str] = []
        self.random_functions: list[str] = []
        self._names: list[str] = []

    @contextlib.contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Notes what is called inside, and in which module."""
        handles = []
        for name, part in module.named_modules():
            shown = f"{name or 'the model'} ({type(part).__name__})"
            handles += [
                part.register_forward_pre_hook(lambda *_, shown=shown: self._names.append(shown)),
                part.register_forward_hook(lambda *_: self._names.pop() and None),
            ]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, function: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del kinds
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if _drops(name, args, kwargs):
            where = f"{name} in {self._names[-1] if self._names else 'the model'}"
            if where not in self.dropouts:
                self.dropouts.append(where)
        elif name in RANDOM_FUNCTIONS and name not in self.random_functions:
            self.random_functions.append(name)
        return function(*args, **kwargs)


def _drops(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of a function drops something, in whatever mode the model is."""
    if name == "scaled_dot_product_attention":
        share = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)  # noqa: PLR2004  fifth position
        return bool(share)
    if name not in DROPOUT_FUNCTIONS:
        return False
    share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    default = True
    # torch.nn.functional.dropout(input, p, training); torch.dropout(input, p, train).
    training = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", default))  # noqa: PLR2004
    return bool(share) and bool(training)
