from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from harness.watch.compilation import count_graphs
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions
from tests.integration.watch.programs import NUM_STEPS, build_batches, build_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


class Program(torch.nn.Module):
    """A class outside torch: dynamo leaves torch's own alone where they are compiled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_model()

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.net(inputs)


def train(compiled: str, backend: str) -> list[float]:
    torch._dynamo.reset()
    model: Any = Program()
    run = model
    if compiled == "model":
        run = torch.compile(model, backend=backend)
    elif compiled == "in place":
        model.compile(backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def compute(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(run(inputs), targets)

    if compiled == "function":
        compute = torch.compile(compute, backend=backend)
    losses = []
    for inputs, targets in build_batches(NUM_STEPS):
        loss = compute(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("compiled", ["model", "in place", "function"])
def test_compiled_programs_give_the_same_losses_and_no_graph_more(compiled: str, backend: str) -> None:
    before, _ = count_graphs()
    unwatched = train(compiled, backend)
    num_graphs = count_graphs()[0] - before
    with Observer(ObserverOptions(deep_steps=(0, 2))) as observer:
        watched = train(compiled, backend)
    run = observer.observation
    assert watched == unwatched == run.losses
    assert run.compilation.is_used
    assert run.compilation.num_graphs == num_graphs > 0
    assert any("torch.compile is used" in text for text in run.not_seen)
    timed = [step for step in run.steps if step.time_s is not None]
    assert all(step.phase_times_s["forward"] > 0 for step in timed)
    if compiled == "model":
        assert run.optimizers[0].groups[0].parameters == [
            "net.0.weight",
            "net.0.bias",
            "net.3.weight",
            "net.3.bias",
        ]
        assert [step.num_samples for step in run.steps] == [8] * NUM_STEPS


def test_graphs_compiled_under_watch_work_afterwards() -> None:
    torch._dynamo.reset()
    model: Any = build_model().eval()
    inputs = torch.ones(2, 8)
    with Observer():
        compiled = torch.compile(model, backend="eager")
        during = compiled(inputs)
    assert torch.equal(compiled(inputs), during)


def test_program_compiled_before_it_is_watched() -> None:
    torch._dynamo.reset()
    model: Any = build_model()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Observer() as observer:
        for inputs, targets in build_batches(3):
            cross_entropy(compiled(inputs), targets).backward()
            optimizer.step()
    assert len(observer.observation.losses) == 3
    assert observer.observation.compilation.is_used


def export(model: torch.nn.Module) -> str:
    return str(torch.export.export(model, (torch.ones(2, 8),), strict=True).graph)


@pytest.mark.parametrize("after_step", [0, 4])
def test_a_model_is_exported_between_steps_as_it_is_unwatched_and_seen_again_behind_it(
    after_step: int,
) -> None:
    torch._dynamo.reset()
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    exported = []
    with Observer(ObserverOptions(deep_steps=(0, 8))) as observer:
        for step, (inputs, targets) in enumerate(build_batches(10)):
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == after_step:
                exported.append(export(model))
    assert exported == [export(model)]
    run = observer.observation
    assert not run.compilation.is_used
    assert [step.num_samples for step in run.steps] == [8] * 10
    assert run.num_forwards == 10
    assert [bool(deep.modules) for deep in run.deep_steps] == [True, True]
    assert run.not_seen == []


def test_an_export_within_a_deep_step_is_told() -> None:
    torch._dynamo.reset()
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Observer(ObserverOptions(deep_steps=(0,))) as observer:
        export(model)
        for inputs, targets in build_batches(3):
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    run = observer.observation
    assert len(run.losses) == 3
    (told,) = run.not_seen
    assert "torch.export is used" in told


def test_behind_an_export_a_compiled_model_is_seen_as_before() -> None:
    torch._dynamo.reset()
    models = [build_model(), build_model()]
    compiled: list[Any] = [torch.compile(model, backend="eager") for model in models]
    optimizer = torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.05)
    with Observer() as observer:
        for step, (inputs, targets) in enumerate(build_batches(6)):
            # The second one is first called behind the export.
            cross_entropy(compiled[step > 2](inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 2:
                export(build_model())
    run = observer.observation
    assert run.compilation.is_used
    assert [step.num_samples for step in run.steps] == [8] * 6
    assert len(run.trainable_parameters) == 2 * len(list(models[0].parameters()))
