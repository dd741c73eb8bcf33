"""What the trace of a step holds of several models: their calls, values that no optimizer holds, clipping, names."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from harness.baselines.parameter_names import list_group_names
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.observation import RunObservation

    Clip = Callable[[nn.Module], object]

TRACED = ObserverOptions(traced_steps=64)
INPUTS = torch.linspace(-1, 1, 32).reshape(4, 8)


class Teacher(nn.Sequential):
    """A model with a name of its own."""


def watch(program: Callable[[], object]) -> RunObservation:
    torch.manual_seed(0)
    with Observer(TRACED) as observer:
        program()
    assert not any("failed" in text for text in observer.observation.not_seen)
    return observer.observation


def fit(model: nn.Module, *, num_steps: int = 3, clip: Clip | None = None, rate: float = 0.1) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(INPUTS).square().sum().backward()
        if clip is not None:
            clip(model)
        optimizer.step()


@pytest.mark.parametrize(
    "clip",
    [
        lambda model: clip_grad_norm_(model.parameters(), 0.1),
        lambda model: clip_grad_norm_(list(model.parameters()), 0.1),
        lambda model: clip_grad_value_(model.parameters(), 0.01),
        lambda model: nn.utils.clip_grads_with_norm_(model.parameters(), 0.1, torch.tensor(20.0)),
    ],
    ids=["norm of a generator", "norm of a list", "value", "with norm"],
)
def test_gradients_are_known_as_they_were_before_clipping(clip: Clip) -> None:
    plain = watch(lambda: fit(nn.Linear(8, 1))).steps[0].trace
    clipped = watch(lambda: fit(nn.Linear(8, 1), clip=clip)).steps[0].trace
    assert plain is not None
    assert clipped is not None
    assert plain.unclipped == []
    assert clipped.unclipped == plain.gradients
    assert clipped.gradients[0][0] != plain.gradients[0][0]


def test_of_what_is_clipped_in_part_the_rest_has_no_norm_before_it() -> None:
    def clip(model: nn.Module) -> None:
        clip_grad_norm_([model.weight], 0.1)  # type: ignore[list-item]

    trace = watch(lambda: fit(nn.Linear(8, 1), clip=clip)).steps[0].trace
    assert trace is not None
    [[weight, bias]] = trace.unclipped
    assert bias is None
    assert weight is not None
    assert weight > 0.1


def test_clipping_before_any_backward_is_of_no_step() -> None:
    def train() -> None:
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.zero_grad()
            model(INPUTS).sum().backward()
            optimizer.step()

    assert [step.trace.unclipped for step in watch(train).steps if step.trace] == [[], [], []]


def train_with_teacher() -> None:
    """The teacher is called first in every step; an evaluation of the student follows the second step."""
    student, teacher = nn.Sequential(nn.Linear(8, 1)), Teacher(nn.Linear(8, 1)).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for step in range(3):
        with torch.no_grad():
            wanted = teacher(INPUTS)
        optimizer.zero_grad()
        mse_loss(student(INPUTS), wanted).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.5)
            if step == 1:
                student(INPUTS)


def test_calls_of_models_that_nobody_trains_are_in_every_steps_trace() -> None:
    traces = [step.trace for step in watch(train_with_teacher).steps]
    calls = [trace.side_calls for trace in traces if trace is not None]
    # The evaluation is one of the model that trains.
    assert [[call[:2] for call in step] for step in calls] == [[("Teacher", "eval")]] * 3
    (_, _, given, *first), *later = [call for step in calls for call in step]
    assert all(call[2] == given for call in later)
    assert all(one != other for one, other in zip(first, later[0][3:], strict=True))


def test_calls_are_told_in_order_with_their_model_and_mode() -> None:
    traces = [step.trace for step in watch(train_with_teacher).steps]
    orders = [
        [(call.model, call.is_training, call.has_gradient) for call in trace.calls]
        for trace in traces
        if trace is not None
    ]
    usual = [(0, False, False), (1, True, True)]
    assert orders == [usual, usual, [(1, True, False), *usual]]


def test_of_many_calls_of_one_model_the_first_ones_are_told() -> None:
    def train() -> None:
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            with torch.no_grad():
                for _ in range(10):
                    model(INPUTS)
            optimizer.zero_grad()
            model(INPUTS).sum().backward()
            optimizer.step()

    traces = [step.trace for step in watch(train).steps]
    modes = [[call.has_gradient for call in trace.calls] for trace in traces if trace is not None]
    assert modes == [[False] * 8 + [True]] * 2


def test_input_that_comes_from_an_earlier_call_is_told_apart() -> None:
    def train() -> None:
        first, second = nn.Linear(8, 8), nn.Linear(8, 1)
        optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
        made = first(INPUTS)
        second(made.detach())
        second(made).sum().backward()
        optimizer.step()

    trace = watch(train).steps[0].trace
    assert trace is not None
    assert [call.is_made for call in trace.calls] == [False, False, True]
    assert trace.calls[1].given == trace.calls[2].given


def test_values_that_no_optimizer_holds_are_known_before_each_deep_step() -> None:
    first, second = watch(train_with_teacher).deep_steps[:2]
    assert [parameter.name for parameter in first.still] == ["Teacher.0.weight", "Teacher.0.bias"]
    assert all(parameter.fingerprint for parameter in first.still)
    assert [parameter.fingerprint for parameter in first.still] != [
        parameter.fingerprint for parameter in second.still
    ]


def train_one_after_another() -> None:
    for size in (8, 4, 2):
        model = nn.Sequential(nn.Linear(8, size), nn.Linear(size, 1))
        fit(model, num_steps=20, rate=1e-3)


def test_a_model_that_is_gone_leaves_its_name_and_no_other_gets_it() -> None:
    names = [group for groups in list_group_names(watch(train_one_after_another)) for group in groups]
    own = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert names == [own, [f"Sequential2.{name}" for name in own], [f"Sequential3.{name}" for name in own]]


def test_the_first_step_of_a_later_optimizer_is_watched_in_depth() -> None:
    observed = watch(train_one_after_another)
    assert {0, 20, 40} <= {deep.step for deep in observed.deep_steps}
    [deep] = [deep for deep in observed.deep_steps if deep.step == 20]
    assert [module.path for module in deep.modules][-1] == "Sequential2"
    assert math.prod(deep.parameters[0].shape) == 32


def test_optimizers_that_are_built_anew_all_the_time_do_not_make_every_step_a_deep_one() -> None:
    def train() -> None:
        model = nn.Linear(8, 1)
        for _ in range(30):
            fit(model, num_steps=1)

    deep = [deep.step for deep in watch(train).deep_steps]
    assert len(deep) < 12
    assert all(one < other for one, other in pairwise(deep))


def test_a_parameter_without_numbers_costs_the_trace_nothing() -> None:
    def train() -> None:
        teacher, student = nn.Linear(8, 1, device="meta"), nn.Linear(8, 1)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        for _ in range(2):
            with torch.no_grad():
                teacher(INPUTS.to("meta"))
            optimizer.zero_grad()
            student(INPUTS).sum().backward()
            optimizer.step()

    observed = watch(train)
    assert all(step.trace is not None and step.trace.gradients for step in observed.steps)
    assert [len(deep.parameters) for deep in observed.deep_steps] == [2, 2]


def test_models_that_come_and_go_have_values_and_positions_of_their_own() -> None:
    def train() -> None:
        student = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        for _ in range(3):
            with torch.no_grad():
                for _ in range(3):
                    Teacher(nn.Linear(8, 1))(INPUTS)
            optimizer.zero_grad()
            student(INPUTS).sum().backward()
            optimizer.step()

    traces = [step.trace for step in watch(train).steps if step.trace is not None]
    values = [call[4] for trace in traces for call in trace.side_calls]
    positions = [call.model for trace in traces for call in trace.calls if not call.has_gradient]
    assert len(set(values)) == len(values) == 9
    assert len(set(positions)) == len(positions) == 9


def test_a_model_whose_optimizer_has_not_stepped_yet_is_held_all_the_same() -> None:
    def train() -> None:
        made, judge = Teacher(nn.Linear(8, 8)), nn.Linear(8, 1)
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (made, judge)]
        for _ in range(2):
            with torch.no_grad():
                fake = made(INPUTS)
            judge(fake).sum().backward()
            optimizers[1].step()
            judge(made(INPUTS)).sum().backward()
            optimizers[0].step()

    assert not any(step.trace.side_calls for step in watch(train).steps if step.trace)


def test_clipping_between_two_optimizers_that_share_a_backward_is_of_their_step() -> None:
    def train() -> None:
        models = nn.Linear(8, 4), nn.Linear(4, 1)
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
        models[1](models[0](INPUTS)).square().sum().backward()
        for model, optimizer in zip(models, optimizers, strict=True):
            clip_grad_norm_(filter(lambda parameter: parameter.requires_grad, model.parameters()), 1e-3)
            optimizer.step()

    [step] = watch(train).steps
    assert step.trace is not None
    assert all(norm is not None and norm > 1e-3 for row in step.trace.unclipped for norm in row)


def test_gradients_that_are_clipped_in_every_micro_batch_are_not_known_without_it() -> None:
    def train() -> None:
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            model(INPUTS).square().sum().backward()
            clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()

    [step] = watch(train).steps
    assert step.trace is not None
    assert step.trace.unclipped == []


def test_input_is_taken_before_a_model_writes_into_it() -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor, self.inner = factor, nn.Linear(8, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            inner: torch.Tensor = self.inner(inputs.mul_(self.factor))
            return inner

    def train(factor: float) -> None:
        model, other = Scaled(factor), Teacher(nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            with torch.no_grad():
                other(INPUTS)
            model(INPUTS.clone()).sum().backward()
            optimizer.step()

    first, second = (
        [step.trace.calls[1] for step in watch(lambda factor=factor: train(factor)).steps if step.trace]  # type: ignore[misc]
        for factor in (1.0, 2.0)
    )
    assert [call.given for call in first] == [call.given for call in second]
    assert first[0].gave != second[0].gave


class WithSpare(nn.Module):
    """A model with a part that is never used, and has no sizes yet."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(8, 1), nn.LazyLinear(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = self.used(inputs)
        return given


def test_a_lazy_parameter_that_is_never_used_does_not_reach_the_program() -> None:
    def train() -> None:
        model = WithSpare()
        optimizer = torch.optim.SGD(model.used.parameters(), lr=0.1)
        for _ in range(2):
            model(INPUTS).sum().backward()
            optimizer.step()

    with Observer(TRACED) as observer:
        train()
    assert len(observer.observation.steps) == 2
    assert observer.observation.trainable_parameters == {"used.weight": 8, "used.bias": 1}
