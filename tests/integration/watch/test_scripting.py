"""TorchScript compiles a function's source, and traces its calls: neither may meet the watcher."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions
from tests.integration.watch.programs import NUM_STEPS, build_batches, build_model

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

# Names of types and files of frames differ from trace to trace.
WITHOUT_NUMBERS = re.compile(r"___torch_mangle_\d+\.| # .*")
EVERY = ObserverOptions(deep_steps=tuple(range(NUM_STEPS)))


class Criterion(nn.Module):
    def forward(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, targets, label_smoothing=0.1) + functional.mse_loss(
            scores, torch.zeros_like(scores)
        )


class Judged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = build_model()
        self.targets = nn.Buffer(torch.tensor([0, 3]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.net(inputs), self.targets)


def forget_scripts() -> None:
    """Has what was scripted before compiled anew."""
    torch.jit._state._jit_caching_layer.clear()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()


def train(*, is_traced: bool) -> list[float]:
    script: Any = torch.jit.script
    model: Any = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    criterion = script(Criterion())
    losses = []
    for step, (inputs, targets) in enumerate(build_batches(NUM_STEPS)):
        if step == 2:
            criterion = script(nn.CrossEntropyLoss())
        if step == 3 and is_traced:
            model = torch.jit.trace(model, inputs, check_trace=False)
        loss = criterion(model(inputs), targets) + functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("is_traced", [False, True])
def test_programs_are_scripted_and_traced_under_watch(is_traced: bool) -> None:
    unwatched = train(is_traced=is_traced)
    forget_scripts()
    with Observer(EVERY) as observer:
        watched = train(is_traced=is_traced)
    assert watched == unwatched == observer.observation.losses
    assert not observer.observation.not_seen
    # Python's own call is seen, the compiled one is not.
    seen = [[found.name for found in deep.loss_functions] for deep in observer.observation.deep_steps]
    assert seen == [["cross_entropy"]] * NUM_STEPS


@pytest.mark.parametrize(
    "function", [functional.cross_entropy, torch.autograd.backward, torch.nn.utils.clip_grad_value_]
)
def test_redirected_functions_show_their_own_source_and_signature(function: Any) -> None:
    source, signature = inspect.getsource(function), inspect.signature(function)
    with Observer(EVERY), Observer(EVERY):
        assert inspect.getsource(function) == source
        assert inspect.signature(function) == signature
    assert "__signature__" not in vars(inspect.unwrap(function))


def test_traced_graph_holds_nothing_of_the_watcher() -> None:
    def trace() -> str:
        model: Any = torch.jit.trace(Judged(), torch.ones(2, 8), check_trace=False)
        return str(model.inlined_graph)

    unwatched = trace()
    with Observer(EVERY) as observer:
        watched = trace()
    assert WITHOUT_NUMBERS.sub("", watched) == WITHOUT_NUMBERS.sub("", unwatched)
    assert not observer.observation.num_forwards
