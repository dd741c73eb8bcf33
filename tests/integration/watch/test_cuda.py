"""What only a GPU shows; skipped without one."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
import torch

from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions
from tests.integration.watch.programs import build_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

pytestmark = pytest.mark.gpu

NUM_STEPS = 40


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    """Any synchronisation of the host is an error while the program's own loop runs."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def train(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], mode: str = "default") -> None:
    """A loop that never waits for its device."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    torch.cuda.set_sync_debug_mode(mode)
    for inputs, targets in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    torch.cuda.set_sync_debug_mode("default")


def build_data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    inputs = torch.randn(NUM_STEPS, 4, 8, device="cuda")
    targets = torch.randint(0, 3, (NUM_STEPS, 4), device="cuda")
    return list(zip(inputs, targets, strict=True))


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("depth", [Depth.LIGHT, Depth.NORMS])
def test_watching_adds_no_synchronisation(depth: Depth) -> None:
    model, batches = build_model().cuda(), build_data()
    train(model, batches, "error")
    with Observer(ObserverOptions(depth=depth)) as observer:
        train(model, batches, "error")
    run = observer.observation
    assert not run.not_seen
    assert len(run.losses) == NUM_STEPS
    assert all(step.grad_norm is not None for step in run.steps)


def test_losses_are_those_of_the_unwatched_program() -> None:
    parameters = []
    for depth in (None, Depth.LIGHT, Depth.DEEP):
        torch.manual_seed(0)
        model, batches = build_model().cuda(), build_data()
        if depth is None:
            train(model, batches)
        else:
            with Observer(ObserverOptions(depth=depth)):
                train(model, batches)
        parameters.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach())
    assert torch.equal(parameters[0], parameters[1])
    assert torch.equal(parameters[0], parameters[2])


def test_phases_are_timed_by_the_device() -> None:
    model, batches = build_model().cuda(), build_data()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        train(model, batches[:2])
        start.record()
        train(model, batches)
        end.record()
    steps = observer.observation.steps
    assert not steps[0].has_device_times
    assert all(step.has_device_times for step in steps[2:])
    torch.cuda.synchronize()
    timed_s = sum(step.time_s or 0.0 for step in steps[3:])
    assert 0.5 * start.elapsed_time(end) < 1e3 * timed_s <= 1.05 * start.elapsed_time(end)


def test_work_that_the_host_only_hands_on_is_in_the_phase_it_belongs_to() -> None:
    model = torch.nn.Linear(4096, 4096, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(4096, 4096, device="cuda")
    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        for _ in range(20):
            optimizer.zero_grad()
            outputs = model(inputs)
            for _ in range(20):
                outputs = model(outputs)
            outputs.mean().backward()
            optimizer.step()
    phases = observer.observation.steps[-2].phase_times_s
    assert phases["forward"] + phases["backward"] > 0.8 * sum(phases.values())


def test_synchronisations_of_the_program_are_counted_after_a_deep_step() -> None:
    model, batches = build_model().cuda(), build_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with (
        warnings.catch_warnings(record=True) as shown,
        Observer(ObserverOptions(deep_steps=(0, 4))) as observer,
    ):
        for inputs, targets in batches[:8]:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            assert loss.item() == loss.item()
            optimizer.step()
    steps = observer.observation.steps
    counted = {step.step: step.num_host_syncs for step in steps if step.num_host_syncs is not None}
    assert counted == {1: 2, 5: 2}
    assert steps[1].first_host_sync is not None
    assert steps[1].first_host_sync.startswith(f"{__file__}:")
    assert torch.cuda.get_sync_debug_mode() == 0
    assert not shown


def test_a_graph_that_is_captured_holds_no_event() -> None:
    model = build_model().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    inputs = torch.randn(4, 8, device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        model(inputs).mean().backward()
        optimizer.step()

    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        for _ in range(3):
            step()
    assert not observer.observation.not_seen
    assert len(observer.observation.steps) == 7


def test_the_kernels_that_a_step_launches_are_counted() -> None:
    model = torch.nn.Linear(8, 8, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, foreach=False)
    inputs = torch.randn(4, 8, device="cuda")

    def count(num_more: int) -> list[int | None]:
        options = ObserverOptions(depth=Depth.LIGHT, counted_steps=(2, 3, 4), counts_kernels=True)
        with Observer(options) as observer:
            for _ in range(8):
                optimizer.zero_grad()
                model(inputs).square().mean().backward()
                for _ in range(num_more):
                    inputs.clone()
                optimizer.step()
        assert not observer.observation.not_seen
        return [step.num_kernels for step in observer.observation.counted_steps]

    plain, more = count(0), count(5)
    assert plain == [plain[0]] * 3
    assert plain[0] is not None
    assert plain[0] > 5
    assert more == [plain[0] + 5] * 3
