"""Counted steps: operations by phase, FLOPs and bytes of tensors, equal from run to run and changed by what changed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.budgets.counters import tell_counters
from harness.record.counters import CountedStep, summarize_counts
from harness.record.observation import RunObservation
from harness.watch.counters import StepCounter
from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions
from harness.watch.timing import PhaseClock

OPTIONS = ObserverOptions(depth=Depth.LIGHT, counted_steps=(2, 4))


class Extra(torch.autograd.Function):
    """Copies in its backward, and keeps what it needs."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: torch.Tensor, _num: int) -> torch.Tensor:
        ctx.num = _num  # type: ignore[attr-defined]
        return value.view_as(value)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        for _ in range(ctx.num):  # type: ignore[attr-defined]
            torch.empty_like(gradients[0]).copy_(gradients[0])
        return gradients[0], None


def train(
    *,
    num_copies: int = 0,
    extra_bytes: int = 0,
    width: int = 32,
    num_steps: int = 6,
    options: ObserverOptions = OPTIONS,
) -> RunObservation:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    with Observer(options) as observer:
        for _ in range(num_steps):
            kept = torch.empty(extra_bytes, dtype=torch.uint8) if extra_bytes else None
            loss = Extra.apply(model(torch.ones(4, 8)), num_copies).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            del kept
    return observer.observation


def summarize(**changes: Any) -> CountedStep:
    counted = summarize_counts(train(**changes).counted_steps)
    assert counted is not None
    return counted


def test_counts_repeat_and_counted_steps_are_not_timed() -> None:
    run = train()
    assert [step.step for step in run.counted_steps] == [2, 4]
    assert run.counted_steps[0].ops == run.counted_steps[1].ops
    assert [step.step for step in run.steps if step.time_s is None] == [2, 4]
    assert {"forward", "backward", "optimizer"} <= set(run.counted_steps[0].ops)
    assert tell_counters(summarize(), summarize()) == []


@pytest.mark.parametrize("depth", [Depth.NORMS, Depth.DEEP])
@pytest.mark.parametrize("traced_steps", [0, 64])
def test_what_the_watcher_does_is_not_counted(depth: Depth, traced_steps: int) -> None:
    closely = dataclasses.replace(OPTIONS, depth=depth, traced_steps=traced_steps)
    counted = summarize_counts(train(options=closely).counted_steps)
    assert counted is not None
    assert tell_counters(summarize(), counted) == []


def test_flops_are_those_of_torchs_own_counter() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.TransformerEncoderLayer(32, 4, batch_first=True))

    def step() -> None:
        model(torch.ones(2, 5, 8)).square().mean().backward()

    step()
    counter = StepCounter(0, PhaseClock())
    counter.open()
    step()
    assert counter.close()
    with FlopCounterMode(display=False) as theirs:
        step()
    assert counter.counted.num_flops == theirs.get_total_flops() > 0


def test_copies_in_a_backward_are_told_with_their_phase() -> None:
    assert tell_counters(summarize(), summarize(num_copies=17))[0] in (
        "17 more aten::copy_ a step, in backward, none before",
        "17 more aten::empty_like a step, in backward, none before",
    )


def test_a_tensor_more_is_told_to_the_byte() -> None:
    base, head = summarize(), summarize(extra_bytes=2**20)
    assert head.tensor_bytes - base.tensor_bytes == 2**20
    assert "1,048,576 bytes more of tensors" in tell_counters(base, head)[-1]


def test_a_wider_model_has_more_flops() -> None:
    assert any("FLOPs a step (+" in line for line in tell_counters(summarize(), summarize(width=64)))


def test_a_mode_that_is_left_open_is_said_and_the_program_goes_on() -> None:
    mode = StepCounter(0, PhaseClock())
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer(OPTIONS) as observer:
        for step in range(6):
            if step == 2:
                mode.open()
            model(torch.ones(4, 8)).mean().backward()
            optimizer.step()
            if step == 3:
                assert mode.close()
    run = observer.observation
    assert len(run.steps) == 6
    assert any("mode of its own open" in text for text in run.not_seen)


def test_a_step_that_never_ends_leaves_no_mode_behind() -> None:
    train(num_steps=4)  # the counter of step 4 is opened at the end of step 3
    counter = StepCounter(0, PhaseClock())
    counter.open()
    assert counter.close()
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_counts_survive_the_record() -> None:
    run = train()
    assert RunObservation.from_json(run.to_json()).counted_steps == run.counted_steps
    assert ObserverOptions.from_json(OPTIONS.to_json()) == OPTIONS


def test_the_median_of_counts_stays_whole() -> None:
    steps = [CountedStep(1, {"forward": {"aten::mm": num}}, {"forward": num}, num) for num in (2, 3, 5, 4)]
    assert summarize_counts(steps) == CountedStep(1, {"forward": {"aten::mm": 3}}, {"forward": 3}, 3)


def test_kernels_are_summarized_where_they_were_counted_and_told_where_they_differ() -> None:
    steps = [CountedStep(1), *(CountedStep(number, num_kernels=number) for number in (40, 41, 60))]
    head = summarize_counts(steps)
    assert head is not None
    assert head.num_kernels == 41
    assert tell_counters(CountedStep(1, num_kernels=38), head) == ["38 -> 41 kernels launched a step"]
    assert tell_counters(CountedStep(1), head) == []
    assert CountedStep.from_json(dataclasses.asdict(head)) == head
    with pytest.raises(TypeError, match="num_kernels is counted as 'many'"):
        CountedStep.from_json({"step": 1, "num_kernels": "many"})


def test_without_a_gpu_no_kernels_are_counted_and_nothing_is_said() -> None:
    options = ObserverOptions(depth=Depth.LIGHT, counted_steps=(2, 3), counts_kernels=True)
    observed = train(options=options)
    assert [step.num_kernels for step in observed.counted_steps] == [None, None]
    assert observed.not_seen == []
    assert summarize_counts([]) is None


@pytest.mark.parametrize("num", [1, -1])
def test_more_and_fewer_are_told_apart(num: int) -> None:
    base = CountedStep(1, {"optimizer": {"aten::add_": 4}})
    head = CountedStep(1, {"optimizer": {"aten::add_": 4 + num}})
    word = "more" if num > 0 else "fewer"
    assert tell_counters(base, head) == [f"1 {word} aten::add_ a step, in optimizer, 4 before"]
