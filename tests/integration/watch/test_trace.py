"""Traces of steps: they change nothing, cost no step time, and tell of every style of training."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.record.step_observation import StepObservation
from harness.watch import trace
from harness.watch.fingerprints import fingerprint_generators
from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions
from tests.integration.watch.programs import (
    NUM_STEPS,
    STYLES,
    build_batches,
    build_model,
    train_amp,
    train_from_loader,
    train_gan,
    train_lbfgs,
    train_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.trace import StepTrace

TRACED = ObserverOptions(traced_steps=64)


def watch(
    program: Callable[..., Any], options: ObserverOptions = TRACED, **given: Any
) -> list[StepObservation]:
    with Observer(options) as observer:
        program(**given)
    assert not any("failed" in text for text in observer.observation.not_seen)
    return observer.observation.steps


def list_traces(program: Callable[..., Any], **given: Any) -> list[StepTrace]:
    steps = watch(program, **given)
    found = [step.trace for step in steps if step.trace is not None]
    assert len(found) == len(steps)
    return found


@pytest.mark.parametrize(
    ("style", "depth"), [*((style, Depth.DEEP) for style in STYLES), ("accumulating", Depth.LIGHT)]
)
def test_tracing_changes_no_bit_of_a_training_and_moves_no_generator(style: str, depth: Depth) -> None:
    plain = STYLES[style]()
    states = random.getstate(), torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002  the global one
    with Observer(ObserverOptions(depth=depth, traced_steps=64)) as observer:
        traced = STYLES[style]()
    steps = observer.observation.steps
    assert traced == plain
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert repr(np.random.get_state()) == states[2]  # noqa: NPY002
    assert all(step.trace is not None for step in steps)


@pytest.mark.parametrize("style", STYLES)
def test_equal_trainings_leave_equal_traces(style: str) -> None:
    first, again = list_traces(STYLES[style]), list_traces(STYLES[style])
    assert [one.gradients for one in first] == [one.gradients for one in again]
    assert [one.updates for one in first] == [one.updates for one in again]
    assert [one.called_with for one in first] == [one.called_with for one in again]
    assert [one.generators["torch"] for one in first] == [one.generators["torch"] for one in again]
    assert all(any(row) for one in first for row in one.gradients)


def test_only_the_first_steps_are_traced_and_none_unless_asked() -> None:
    steps = watch(train_plain, ObserverOptions(traced_steps=2))
    assert [step.trace is not None for step in steps] == [True] * 2 + [False] * (NUM_STEPS - 2)
    assert {step.trace for step in watch(train_plain, ObserverOptions())} == {None}


def test_norms_are_those_of_the_gradients_and_changes_of_every_parameter() -> None:
    seen: list[tuple[list[float], list[float], list[float]]] = []

    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for inputs, targets in build_batches(3):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            before = [parameter.detach().clone() for parameter in model.parameters()]
            optimizer.step()
            gradients = [
                float(torch.linalg.vector_norm(p.grad)) for p in model.parameters() if p.grad is not None
            ]
            changes = [
                float(torch.linalg.vector_norm(p.detach() - old))
                for p, old in zip(model.parameters(), before, strict=True)
            ]
            weights = [float(torch.linalg.vector_norm(old)) for old in before]
            seen.append((gradients, changes, weights))

    for found, (gradients, changes, weights) in zip(list_traces(train), seen, strict=True):
        assert found.gradients == [pytest.approx(gradients)]
        assert found.updates == [pytest.approx(changes)]
        assert found.weights == [pytest.approx(weights)]


def step_once(parameter: nn.Parameter, gradient: torch.Tensor, *others: nn.Parameter) -> StepTrace:
    """The trace of one step of SGD, after another one, with a given gradient."""

    def train() -> None:
        optimizer = torch.optim.SGD([parameter, *others], lr=1.0)
        for _ in range(2):
            (parameter * gradient).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    return list_traces(train)[-1]


@pytest.mark.parametrize(
    ("dtype", "size", "relative"),
    [
        (torch.bfloat16, 1.0, 1e-6),
        (torch.float16, 1e4, 1e-6),
        (torch.float64, 1.0, 1e-15),
        (torch.complex64, 1.0, 1e-6),
    ],
)
def test_norms_have_the_digits_that_tell_equal_from_different(
    dtype: torch.dtype, size: float, relative: float
) -> None:
    gradient = (torch.linspace(0.1, 1.0, 99, dtype=torch.float64) * size).to(dtype)
    parameter = nn.Parameter(torch.zeros(99, dtype=dtype))
    if dtype.is_complex:
        gradient = gradient * 1j
        found = list_traces(lambda: step_complex(parameter, gradient))[-1]
    else:
        found = step_once(parameter, gradient)
    wide = gradient.to(torch.complex128 if dtype.is_complex else torch.float64)
    assert found.gradients == [[pytest.approx(float(torch.linalg.vector_norm(wide)), rel=relative, abs=0.0)]]


def step_complex(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    (parameter * gradient.conj()).real.sum().backward()
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_quantised_parameters_do_not_cost_the_trace(dtype: torch.dtype) -> None:
    numbers = nn.Parameter(torch.ones(3).to(dtype), requires_grad=False)
    found = step_once(nn.Parameter(torch.zeros(2)), torch.tensor([3.0, 4.0]), numbers)
    assert found.gradients == [[5.0, None]]
    assert found.weights == [[5.0, pytest.approx(3**0.5)]]
    assert found.updates == [[5.0, 0.0]]


def test_numpys_generator_may_be_of_another_kind() -> None:
    # Unknown to its types.
    generators: Any = np.random
    usual = generators.get_bit_generator()
    try:
        generators.set_bit_generator(np.random.PCG64(1))
        states = [fingerprint_generators()["numpy"] for _ in range(2)]
        np.random.rand()  # noqa: NPY002
        states.append(fingerprint_generators()["numpy"])
    finally:
        generators.set_bit_generator(usual)
    assert states[0] == states[1] != states[2]


def test_models_of_one_class_have_names_of_their_own() -> None:
    class Net2(nn.Linear):
        pass

    class Net(nn.Linear):
        pass

    with Observer(ObserverOptions(depth=Depth.DEEP, traced_steps=2)) as observer:
        models = [kind(8, 4) for kind in (Net2, Net2, Net, Net)]
        optimizer = torch.optim.SGD([p for model in models for p in model.parameters()], lr=0.1)
        for inputs, targets in build_batches(2):
            optimizer.zero_grad()
            cross_entropy(sum(model(inputs) for model in models), targets).backward()
            optimizer.step()
    owners = ("Net2", "Net22", "Net", "Net3")
    names = [f"{owner}.{part}" for owner in owners for part in ("weight", "bias")]
    assert observer.observation.optimizers[0].groups[0].parameters == names


def test_calls_in_eval_mode_count_where_their_graph_is_recorded() -> None:
    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for step, (inputs, targets) in enumerate(build_batches(3)):
            model.train(step != 1)
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            with torch.no_grad():
                model.eval()(inputs)

    assert [found.num_eval_calls for found in list_traces(train)] == [0, 1, 0]


def test_the_time_that_a_trace_takes_belongs_to_no_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("harness.clock.monotonic_s", lambda: now_s[0])

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            now_s[0] += 1000.0
            return function(*args)

        return call

    for name in ("fingerprint_batch", "fingerprint_generators", "measure_norms", "_sample"):
        monkeypatch.setattr(trace, name, slow(getattr(trace, name)))

    class Slow(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            now_s[0] += 2.0
            return super().forward(inputs)

    def train() -> None:
        model = Slow(8, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for inputs, targets in build_batches(4):
            now_s[0] += 3.0
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            now_s[0] += 1.0
            optimizer.step()

    steps = watch(train, ObserverOptions(depth=Depth.LIGHT, traced_steps=3))
    assert [step.time_s for step in steps[1:]] == [6.0] * 3
    assert steps[1].phase_times_s == steps[3].phase_times_s
    assert now_s[0] > 10_000


def test_a_closure_is_traced_at_its_first_call() -> None:
    (first, *_) = list_traces(train_lbfgs)
    assert len(first.gradients) == len(first.updates) == 1
    assert len(first.gradients[0]) == len(first.updates[0])
    assert all(first.updates[0])


def test_optimizers_that_take_turns_are_traced_each_in_its_own_step() -> None:
    found = list_traces(train_gan)
    assert [[len(row) for row in one.gradients] for one in found[:2]] == [[4], [2]]


def test_optimizers_of_one_step_are_traced_in_their_order() -> None:
    (first, *_) = list_traces(STYLES["two optimizers, one backward"])
    assert [len(row) for row in first.gradients] == [len(row) for row in first.updates] == [2, 2]


def test_every_micro_batch_is_in_the_trace() -> None:
    (first, *_) = list_traces(STYLES["accumulating"])
    assert len(set(first.called_with)) == 3


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skipped_has_no_update(fused: bool) -> None:
    steps = watch(train_amp, fused=fused, overflow_at=2)
    assert [step.was_skipped for step in steps] == [step.step == 2 for step in steps]
    skipped, other = steps[2].trace, steps[1].trace
    assert skipped is not None
    assert other is not None
    assert skipped.generators
    assert not any(norm for row in skipped.updates for norm in row)
    assert all(norm and norm < 10.0 for row in other.gradients for norm in row)


def test_a_parameter_without_a_gradient_has_none_and_one_added_later_is_traced() -> None:
    def train() -> None:
        model, late = build_model(), nn.Linear(4, 4)
        model[0].bias.requires_grad_(False)  # type: ignore[index]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, (inputs, targets) in enumerate(build_batches(4)):
            if step == 2:
                optimizer.add_param_group({"params": list(late.parameters())})
            cross_entropy(late(model(inputs)), targets).backward()
            optimizer.step()

    found = list_traces(train)
    assert [norm is None for norm in found[0].gradients[0]] == [False, True, False, False]
    assert found[0].updates[0][1] == 0.0
    assert [len(one.updates[0]) for one in found] == [4, 4, 6, 6]


def test_large_parameters_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list_traces(train_plain)
    monkeypatch.setattr(trace, "MAX_COPIED_BYTES", 256)
    sampled = list_traces(train_plain)
    assert [one.gradients for one in sampled] == [one.gradients for one in whole]
    for one, other in zip(whole, sampled, strict=True):
        pairs = list(zip(one.updates[0], other.updates[0], strict=True))
        assert all(0.0 < (part or 0.0) <= (all_of_it or 0.0) for all_of_it, part in pairs)
        assert one.updates != other.updates


def test_sharded_parameters_are_traced_by_their_local_part() -> None:
    class Sharded(nn.Parameter):
        @property
        def _local_tensor(self) -> torch.Tensor:
            return self.data[:2]

    def train() -> None:
        torch.manual_seed(0)
        weight = Sharded(torch.randn(4))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(2):
            (weight * torch.arange(4.0)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    assert list_traces(train)[0].updates == [[pytest.approx(0.1)]]


def test_a_model_called_with_keyword_arguments_has_them_in_its_trace() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
            return cross_entropy(self.layer(inputs), labels) if labels is not None else self.layer(inputs)

    def train(shift: int = 0) -> None:
        torch.manual_seed(0)
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for inputs, targets in build_batches(3):
            model(inputs, labels=(targets + shift) % 4).backward()
            optimizer.step()

    first, again, other = list_traces(train), list_traces(train), list_traces(train, shift=1)
    assert [one.called_with for one in first] == [one.called_with for one in again]
    assert all(len(one.called_with) == 1 for one in first)
    assert all(one.called_with != two.called_with for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_a_loader_are_in_the_trace_with_and_without_workers(num_workers: int) -> None:
    found = list_traces(train_from_loader, num_workers=num_workers)
    again = list_traces(train_from_loader)
    assert [one.given for one in found] == [one.given for one in again]
    assert len({one.given for one in found}) == len(found)


def test_a_compiled_model_is_traced_as_it_is() -> None:
    def train(is_compiled: bool = True) -> None:
        torch.manual_seed(0)
        model: Any = nn.Linear(8, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        called = torch.compile(model, backend="eager") if is_compiled else model
        for inputs, targets in build_batches(3):
            cross_entropy(called(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    compiled, plain = list_traces(train), list_traces(train, is_compiled=False)
    assert [one.gradients for one in compiled] == [one.gradients for one in plain]
    assert [one.called_with for one in compiled] == [one.called_with for one in plain]


def test_a_step_that_is_stopped_half_way_leaves_no_trace_and_no_copy() -> None:
    observer = Observer(TRACED)

    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, (inputs, targets) in enumerate(build_batches(4)):
            cross_entropy(model(inputs), targets).backward()
            if step == 2:
                raise RuntimeError("half way")
            optimizer.step()

    with pytest.raises(RuntimeError, match="half way"), observer:
        train()
    assert [step.trace is not None for step in observer.observation.steps] == [True, True]


def test_of_two_observers_only_the_one_that_was_asked_traces() -> None:
    with Observer(TRACED) as outer, Observer() as inner:
        train_plain()
    assert all(step.trace is not None for step in outer.observation.steps)
    assert all(step.trace is None for step in inner.observation.steps)
    assert not inner.observation.modules
    assert outer.observation.modules["0"] == "Linear(in_features=8, out_features=16, bias=True)"


def test_a_trace_comes_back_from_json_with_its_step() -> None:
    for step in watch(train_plain):
        assert StepObservation.from_json(step.to_json()) == step


def test_what_runs_are_compared_by_is_described_after_the_first_step() -> None:
    with Observer(TRACED) as observer:
        train_plain()
    run = observer.observation
    assert run.seed == 0
    assert run.numerics["machine"]["torch"] == torch.__version__
    assert run.numerics["machine"]["threads"] == "1"
    assert run.numerics["precision"]["float32 matmul"] == torch.get_float32_matmul_precision()
    assert "tests/integration/watch/programs.py" in run.project_files
    assert run.deep_steps[0].modules[0].output
    assert run.deep_steps[0].loss_functions[0].inputs
