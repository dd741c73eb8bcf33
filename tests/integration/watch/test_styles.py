from __future__ import annotations

import pytest
import torch

from harness.watch.observer import Observer, observe_call
from harness.watch.options import Depth, ObserverOptions
from tests.integration.watch.programs import (
    NUM_STEPS,
    STYLES,
    train_amp,
    train_from_loader,
    train_gan,
    train_lbfgs,
    train_plain,
)
from tests.integration.watch.programs import train_two_optimizers_one_backward as train_two

DEEP_ALWAYS = ObserverOptions(depth=Depth.DEEP, deep_steps=tuple(range(100)))
NORMS = ObserverOptions(depth=Depth.NORMS)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "options", [ObserverOptions(depth=Depth.LIGHT), NORMS, DEEP_ALWAYS], ids=lambda o: o.depth
)
def test_losses_are_those_of_the_unwatched_program_bit_by_bit(style: str, options: ObserverOptions) -> None:
    unwatched = STYLES[style]()
    state = torch.get_rng_state()
    with Observer(options) as observer:
        watched = STYLES[style]()
    assert torch.equal(torch.get_rng_state(), state)
    assert watched == unwatched
    run = observer.observation
    assert [step.loss for step in run.steps] == pytest.approx(unwatched.losses, rel=1e-7)
    assert [step.learning_rates[0][0] for step in run.steps] == unwatched.learning_rates
    assert [step.step for step in run.steps] == list(range(len(run.steps)))
    assert not run.not_seen
    assert run.outcome == "completed"
    if options.depth is not Depth.LIGHT and unwatched.grad_norms:
        assert [step.grad_norm for step in run.steps] == pytest.approx(unwatched.grad_norms, rel=1e-5)


def test_light_watching_takes_norms_only_where_the_program_clips() -> None:
    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        plain = train_plain()
        clipped = STYLES["accumulating"]()
    steps = observer.observation.steps
    assert len(plain.losses) == NUM_STEPS
    assert {step.grad_norm for step in steps[:NUM_STEPS]} == {None}
    assert [step.grad_norm for step in steps[NUM_STEPS:]] == pytest.approx(clipped.grad_norms)
    assert all(step.clipped_grad_norm == pytest.approx(0.2, rel=1e-4) for step in steps[NUM_STEPS:])
    assert [step.num_micro_batches for step in steps[NUM_STEPS:]] == [3] * NUM_STEPS
    assert [step.num_samples for step in steps[NUM_STEPS:]] == [24] * NUM_STEPS


def test_gan_gives_one_row_per_optimizer_and_names_who_holds_what() -> None:
    with Observer() as observer:
        train_gan()
    run = observer.observation
    assert len(run.steps) == 2 * NUM_STEPS
    assert [step.optimizers for step in run.steps[:4]] == [[0], [1], [0], [1]]
    assert run.optimizers[0].groups[0].parameters == [
        "Sequential.0.weight", "Sequential.0.bias", "Sequential.2.weight", "Sequential.2.bias",
    ]  # fmt: skip
    assert run.optimizers[1].groups[0].parameters == ["Linear.weight", "Linear.bias"]
    assert [optimizer.num_steps for optimizer in run.optimizers] == [NUM_STEPS] * 2


def test_optimizers_that_share_a_backward_share_a_step() -> None:
    with Observer() as observer:
        train_two()
    steps = observer.observation.steps
    assert len(steps) == NUM_STEPS
    assert [step.optimizers for step in steps] == [[0, 1]] * NUM_STEPS
    assert [step.learning_rates for step in steps] == [[[0.1], [0.01]]] * NUM_STEPS


def test_lbfgs_counts_closure_calls_and_takes_the_loss_of_the_first() -> None:
    with Observer() as observer:
        facts = train_lbfgs()
    steps = observer.observation.steps
    assert [step.loss for step in steps] == facts.losses
    assert all(step.num_closure_calls > 1 for step in steps)
    assert {step.num_micro_batches for step in steps} == {1}


@pytest.mark.parametrize("is_named", [True, False])
def test_a_closure_behind_the_steps_of_another_optimizer_begins_a_step_of_its_own(*, is_named: bool) -> None:
    def train() -> None:
        model, inputs = torch.nn.Linear(4, 1), torch.randn(8, 4)
        first = torch.optim.Adam(model.parameters(), lr=0.01)
        second = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)

        def compute() -> torch.Tensor:
            second.zero_grad()
            loss: torch.Tensor = (model(inputs) - 1).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            compute()
            first.step()
        for _ in range(2):
            second.step(closure=compute) if is_named else second.step(compute)

    _, run = observe_call(train)
    assert [step.optimizers for step in run.steps] == [[0], [0], [0], [1], [1]]
    assert [step.learning_rates for step in run.steps] == [[[0.01]]] * 3 + [[[0.5]]] * 2
    assert [step.num_closure_calls > 1 for step in run.steps] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("fused", [False, True])
def test_step_skipped_by_grad_scaler_keeps_its_loss_to_itself(fused: bool) -> None:
    with Observer() as observer:
        facts = train_amp(fused=fused, overflow_at=2)
    run = observer.observation
    assert [step.was_skipped for step in run.steps] == [False, False, True, False, False, False]
    assert [step.loss for step in run.steps] == facts.losses
    assert run.losses == facts.losses[:2] + facts.losses[3:]
    assert run.autocast == {"cpu bfloat16": NUM_STEPS}
    assert run.scaler is not None
    assert (run.scaler.num_scaled, run.scaler.num_skipped) == (NUM_STEPS, 1)
    assert run.scaler.last_scale == 512.0


def test_clipping_before_unscaling_is_told_from_clipping_after_it() -> None:
    def train(*, unscale: bool) -> None:
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(model(torch.ones(2, 4)).sum()).backward()
        if unscale:
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)

    with Observer() as observer:
        train(unscale=False)
        train(unscale=True)
    assert [step.clipping[0].is_before_unscale for step in observer.observation.steps] == [True, False]


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loaders_epochs_order_and_evaluations_are_seen(num_workers: int) -> None:
    unwatched = train_from_loader(num_workers)
    with Observer() as observer:
        watched = train_from_loader(num_workers)
    assert watched == unwatched
    run = observer.observation
    (loader,) = run.loaders
    assert (loader.num_samples, loader.batch_size, loader.num_workers, loader.sampler) == (
        24, 8, num_workers, "RandomSampler",
    )  # fmt: skip
    assert [epoch.num_batches for epoch in loader.epochs] == [3, 3]
    assert [epoch.num_distinct for epoch in loader.epochs] == [24, 24]
    assert loader.epochs[0].order != loader.epochs[1].order
    assert len(set(loader.fingerprints)) == len(loader.fingerprints) == 6
    assert [(seen.after_step, seen.num_forwards, seen.num_in_training_mode) for seen in run.evaluations] == [
        (3, 2, 0), (6, 2, 0),
    ]  # fmt: skip
    timed = [step for step in run.steps if step.time_s is not None]
    assert timed
    assert all(sum(step.phase_times_s.values()) == pytest.approx(step.time_s) for step in timed)
    assert all(step.phase_times_s[phase] > 0 for step in timed for phase in step.phase_times_s)


def test_functional_gradients_are_said_to_be_out_of_sight() -> None:
    def train() -> None:
        parameters = {"weight": torch.ones(4, 1)}
        for _ in range(2):
            gradient = torch.func.grad(lambda p: (torch.ones(2, 4) @ p["weight"]).sum())(parameters)
            parameters = {name: value - 0.1 * gradient[name] for name, value in parameters.items()}

    with Observer() as observer:
        train()
    assert observer.observation.steps == []
    assert [text.split()[0] for text in observer.observation.not_seen] == ["torch.func"]


def test_steps_without_backward_have_no_loss_and_say_why() -> None:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer(NORMS) as observer:
        for _ in range(3):
            loss = model(torch.ones(2, 4)).sum()
            for parameter, gradient in zip(
                model.parameters(),
                torch.autograd.grad(loss, list(model.parameters())),
                strict=True,
            ):
                parameter.grad = gradient
            optimizer.step()
    run = observer.observation
    assert [step.loss for step in run.steps] == [None] * 3
    assert all(step.grad_norm == pytest.approx(20**0.5) for step in run.steps)
    assert "torch.autograd.grad" in run.not_seen[0]


def test_token_batches_tell_tokens_and_sequence_length() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer() as observer:
        for _ in range(2):
            model(torch.zeros(3, 7, dtype=torch.long)).sum().backward()
            optimizer.step()
    step = observer.observation.steps[1]
    assert (step.num_samples, step.num_tokens, step.sequence_length) == (3, 21, 7)
    assert step.batch_shapes == [[(3, 7)]]


def test_batch_given_by_keyword_is_seen_from_the_first_step_on() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 1)

        def forward(self, *, features: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.net(features)
            return outputs.sum()

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer() as observer:
        for _ in range(3):
            model(features=torch.ones(5, 4)).backward()
            optimizer.step()
    assert [step.batch_shapes for step in observer.observation.steps] == [[[(5, 4)]]] * 3


def test_batch_given_by_position_and_keyword_is_seen_whole_from_the_first_step_on() -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.layer(inputs).squeeze(1) * mask
            return outputs.sum()

    model = Masked()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer(ObserverOptions(deep_steps=(0, 1))) as observer:
        for _ in range(2):
            model(torch.ones(3, 4), mask=torch.ones(3)).backward()
            optimizer.step()
    first, second = observer.observation.steps
    assert first.batch_shapes == second.batch_shapes == [[(3, 4), (3,)]]
    assert (first.num_samples, second.num_samples) == (3, 3)
    one, two = observer.observation.deep_steps
    assert one.batch_fingerprints == two.batch_fingerprints


def test_sampler_of_a_batch_sampler_is_named() -> None:
    data = torch.utils.data.TensorDataset(torch.ones(8, 4))
    batches = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(data), 4, drop_last=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Observer() as observer:
        for (inputs,) in torch.utils.data.DataLoader(data, batch_sampler=batches):
            model(inputs).sum().backward()
            optimizer.step()
    (loader,) = observer.observation.loaders
    assert (loader.sampler, loader.batch_size, loader.drop_last) == ("RandomSampler", 4, True)


def test_scheduler_steps_are_counted_apart_from_its_constructor() -> None:
    with Observer() as observer:
        train_plain()
    (scheduler,) = observer.observation.schedulers
    assert (scheduler.name, scheduler.num_steps, scheduler.num_before_first_optimizer_step) == (
        "ExponentialLR", NUM_STEPS, 0,
    )  # fmt: skip


def test_a_grad_scaler_that_is_switched_off_is_let_be() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with Observer() as observer:
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(4, 2)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert len(observer.observation.losses) == 2
    assert observer.observation.scaler is None
