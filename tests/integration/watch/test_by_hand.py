"""A program without an optimizer is ended by its own updates; one with an optimizer never by anything but steps."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.record.observation import Outcome
from harness.watch.observer import observe_call
from harness.watch.options import ObserverOptions
from tests.integration.watch.programs import build_batches, build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATE = 0.05
ENDLESS = 100


def take_losses(model: nn.Module) -> Iterator[torch.Tensor]:
    for inputs, targets in build_batches(ENDLESS):
        yield cross_entropy(model(inputs), targets)


def subtract_without_gradients() -> None:
    model = build_model()
    for loss in take_losses(model):
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(RATE * parameter.grad)
                parameter.grad = None


def subtract_from_data() -> None:
    model = build_model()
    for loss in take_losses(model):
        model.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            parameter.data -= RATE * parameter.grad  # type: ignore[operator]


def replace_tensors() -> None:
    weights = [torch.randn(8, 4, requires_grad=True), torch.zeros(4, requires_grad=True)]
    for inputs, targets in build_batches(ENDLESS):
        cross_entropy(inputs @ weights[0] + weights[1], targets).backward()
        weights = [
            (weight.detach() - RATE * weight.grad).requires_grad_()
            for weight in weights
            if weight.grad is not None
        ]


def take_gradients_in_place() -> None:
    model = build_model()
    parameters = tuple(model.parameters())
    for loss in take_losses(model):
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(RATE * gradient)


def transform_functions() -> None:
    model = build_model().eval()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def compute_loss(
        parameters: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropy(torch.func.functional_call(model, parameters, (inputs,)), targets)

    compute = torch.func.grad_and_value(compute_loss)
    for inputs, targets in build_batches(ENDLESS):
        gradients, _ = compute(parameters, inputs, targets)
        parameters = {name: parameter - RATE * gradients[name] for name, parameter in parameters.items()}


@pytest.mark.parametrize(
    "train",
    [
        subtract_without_gradients,
        subtract_from_data,
        replace_tensors,
        take_gradients_in_place,
        transform_functions,
    ],
)
def test_max_steps_counts_updates_by_hand(train: Callable[[], None]) -> None:
    _, run = observe_call(train, options=ObserverOptions(max_steps=20))
    assert run.outcome is Outcome.STOPPED
    assert run.num_updates_by_hand == 20
    assert run.notes == [
        "ended from outside after 20 updates of the parameters by hand (max_steps=20; no optimizer stepped)"
    ]
    assert run.steps == []


def test_what_counts_updates_changes_none_of_them() -> None:
    model = build_model()
    subtracted = []
    for options in (None, ObserverOptions(max_steps=1000)):
        model = build_model()

        def train(model: nn.Module = model) -> None:
            for loss in itertools.islice(take_losses(model), 9):
                loss.backward()
                for parameter in model.parameters():
                    parameter.data -= RATE * parameter.grad  # type: ignore[operator]

        observe_call(train, options=options)
        subtracted.append([parameter.detach().clone() for parameter in model.parameters()])
    for one, other in zip(*subtracted, strict=True):
        assert torch.equal(one, other)


def test_max_seconds_ends_a_program_whose_updates_are_made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("harness.clock.monotonic_s", lambda: 0.1 * next(ticks))
    _, run = observe_call(subtract_from_data, options=ObserverOptions(max_seconds=1.0))
    assert run.outcome is Outcome.STOPPED
    assert "updates of the parameters by hand (max_seconds=1)" in run.notes[0]


def step_after(prepare: Callable[[nn.Module, torch.Tensor, torch.Tensor], Any]) -> Callable[[], None]:
    """A training whose every optimizer step comes after something that looks like updates."""

    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for inputs, targets in build_batches(ENDLESS):
            prepare(model, inputs, targets)
            optimizer.step()
            optimizer.zero_grad()

    return train


def accumulate(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    for _ in range(40):
        cross_entropy(model(inputs), targets).backward()


def accumulate_with_renormed_embedding(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    embedding = nn.Embedding(4, 8, max_norm=0.1)
    for _ in range(20):
        with torch.no_grad():
            embedding.weight *= 3
        cross_entropy(model(inputs + embedding(targets)), targets).backward()


def attack(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    for _ in range(20):
        inputs = inputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(inputs), targets), [inputs])
        inputs = inputs + 0.01 * gradient.sign()
    cross_entropy(model(inputs), targets).backward()


def attack_through_backward(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    change = torch.zeros_like(inputs, requires_grad=True)
    for _ in range(20):
        cross_entropy(model(inputs + change), targets).backward()
        change.data += 0.01 * change.grad.sign()  # type: ignore[union-attr]


def adapt_to_tasks(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Meta-learning of first order: a few steps of its own from the same start, for every task."""
    for _ in range(8):
        fast = {name: parameter.detach() for name, parameter in model.named_parameters()}
        for _ in range(3):
            gradients = torch.func.grad(
                lambda fast: cross_entropy(torch.func.functional_call(model, fast, (inputs,)), targets)
            )(fast)
            fast = {name: value - RATE * gradients[name] for name, value in fast.items()}
    cross_entropy(model(inputs), targets).backward()


@pytest.mark.parametrize(
    "prepare",
    [accumulate, accumulate_with_renormed_embedding, attack, attack_through_backward, adapt_to_tasks],
)
def test_what_comes_before_the_first_step_ends_no_program(prepare: Callable[..., None]) -> None:
    _, run = observe_call(step_after(prepare), options=ObserverOptions(max_steps=2))
    assert len(run.steps) == 2
    assert run.notes == ["ended from outside after 2 steps (max_steps=2)"]
