"""One small causal language model with an average of its weights, and faults in what depends on what."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from harness.record.observation import RunObservation
from harness.record.watched import build_watched_steps
from harness.rules import copies, structure
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*structure.RULES, *copies.RULES)
OPTIONS = ObserverOptions(deep_steps=(0, 1, 10, 25))
WORDS, LENGTH, WIDTH = 17, 8, 16


class Model(nn.Module):
    """One layer of attention; each flag is a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.tokens, self.positions = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        places = torch.arange(inputs.shape[1])
        x = self.tokens(inputs) + self.positions(0 * places if self.fault == "positions" else places)
        query, key, value = self.qkv(x).chunk(3, -1)
        x = x + functional.scaled_dot_product_attention(query, key, value, is_causal=self.fault != "future")
        if self.fault == "samples":
            x = x - x.mean(0)
        if self.fault == "constant":
            x = 0 * x
        logits: torch.Tensor = self.head(x)
        return logits


@dataclass
class Average:
    """An average kept in an object, as many projects do."""

    shadow: dict[str, torch.Tensor]
    decay: float

    def update(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            self.shadow[name].lerp_(parameter.detach(), 1 - self.decay)


def train(fault: str = "", *, is_masked: bool = False) -> list[float]:
    """Thirty steps of next-token prediction, or of filling in the tokens themselves."""
    torch.manual_seed(0)
    text = (torch.randint(WORDS, (64, 1)) + 3 * torch.arange(LENGTH + 1)) % WORDS
    loader = DataLoader(TensorDataset(text), batch_size=16, shuffle=True)
    model = Model(fault)
    average = Average({name: p.detach().clone() for name, p in model.named_parameters()}, 0.8)
    if fault == "inverted":
        average.decay = 0.02
    ema = model if fault == "forgotten copy" else copy.deepcopy(model)
    averaged = AveragedModel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for step in range(30):
        (batch,) = next(iter(loader))
        targets = batch[:, :-1] if is_masked else batch[:, 1:]
        loss = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if fault != "average":
            average.update(model)
        if fault not in ("never averaged", "forgotten copy"):
            with torch.no_grad():
                for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
                    slow.lerp_(fast, 0.25)
        if step % 10 == 9:
            own = copy.deepcopy(model.state_dict())
            model.load_state_dict(ema.state_dict())
            if fault != "not restored":
                model.load_state_dict(own)
        if step >= 27 and fault != "swa":
            averaged.update_parameters(model)
    return losses


def watch(program: Callable[[], object]) -> RunObservation:
    with Observer(OPTIONS) as observer:
        program()
    observed = RunObservation.from_json(json.loads(json.dumps(observer.observation.to_json())))
    assert observed.not_seen == []
    return observed


def judge(make_run: MakeRun, program: Callable[[], object]) -> list[tuple[str, str, str]]:
    observed = watch(program)
    run = make_run(steps=build_watched_steps(observed), observed=observed, source="watched optimizer steps")
    return [(f.code, str(f.severity), f.subject) for f in diagnose(run, RULES).findings]


def test_a_causal_model_with_its_averages_is_clean(make_run: MakeRun) -> None:
    assert judge(make_run, train) == []


def test_a_model_that_fills_in_tokens_may_see_all_of_them(make_run: MakeRun) -> None:
    assert judge(make_run, lambda: train("future", is_masked=True)) == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("future", ("T901", "error", "Model")),
        ("samples", ("T902", "warning", "Model")),
        ("constant", ("T903", "warning", "Model")),
        ("positions", ("T904", "warning", "Model")),
        ("average", ("T911", "warning", "shadow")),
        ("never averaged", ("T911", "warning", "ema")),
        ("swa", ("T911", "warning", "averaged")),
        ("inverted", ("T912", "warning", "shadow")),
        ("not restored", ("T914", "warning", "ema")),
        ("forgotten copy", ("T912", "warning", "ema")),
    ],
)
def test_a_fault_of_structure_is_named(make_run: MakeRun, fault: str, expected: tuple[str, str, str]) -> None:
    assert expected in judge(make_run, lambda: train(fault))


@pytest.mark.parametrize("batch_size", [2, 3, 16])
@pytest.mark.parametrize(
    "leak",
    [
        lambda x: x + x[:1],
        lambda x: x + x[-1:],
        lambda x: x + x.mean(0),
        lambda x: x.cumsum(0),
        lambda x: x.flip(0).cumsum(0).flip(0),
        lambda x: x + x.roll(1, 0),
    ],
    ids=["first", "last", "mean", "earlier", "later", "neighbour"],
)
def test_a_leak_between_samples_is_seen_in_whatever_direction(
    leak: Callable[[torch.Tensor], torch.Tensor], batch_size: int
) -> None:
    class Leaking(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  as the class above it
            return super().forward(leak(input))

    (probe,) = watch(lambda: fit(Leaking(7, 5), batch_size)).probes
    (clean,) = watch(lambda: fit(nn.Linear(7, 5), batch_size)).probes

    assert (probe.sample_change or 0.0) > 1e-2
    assert clean.sample_change == pytest.approx(0.0, abs=1e-6)
    assert (probe.is_constant, clean.is_constant) == (False, False)


def fit(model: nn.Module, batch_size: int) -> None:
    """A regression of a few steps."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for (inputs,) in DataLoader(TensorDataset(torch.randn(6 * batch_size, 7)), batch_size=batch_size):
        optimizer.zero_grad()
        functional.mse_loss(model(inputs), inputs[:, :5]).backward()
        optimizer.step()


class Queueing(nn.Linear):
    """Counts its calls in eval mode, and puts what it was given into a queue, as contrastive learners do."""

    num_calls = 0
    queue: torch.Tensor

    def __init__(self, *, queues: bool) -> None:
        super().__init__(7, 5)
        self.queues = queues
        self.register_buffer("queue", torch.zeros(4, 7))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  as the class above it
        Queueing.num_calls += not self.training
        outputs = super().forward(input + self.queue.mean())
        if self.queues:
            self.queue.copy_(input[:4].detach())
        return outputs


@pytest.mark.parametrize("queues", [False, True])
def test_a_sound_model_is_called_twice_from_the_same_state(queues: bool) -> None:
    Queueing.num_calls = 0

    (probe,) = watch(lambda: fit(Queueing(queues=queues), 4)).probes

    assert Queueing.num_calls == 2
    assert (probe.repeat_change, probe.is_constant) == (0.0, False)
    assert probe.sample_change == pytest.approx(0.0, abs=1e-6)


def test_an_output_beside_the_scores_that_is_random_is_seen() -> None:
    class TwoOutputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(7, 5)

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores = self.linear(inputs)
            return scores, scores.sum(1) + random.random()

    def train_two() -> None:
        torch.manual_seed(0)
        model = TwoOutputs()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for (inputs,) in DataLoader(TensorDataset(torch.randn(24, 7)), batch_size=4):
            optimizer.zero_grad()
            functional.mse_loss(model(inputs)[0], inputs[:, :5]).backward()
            optimizer.step()

    (probe,) = watch(train_two).probes

    assert (probe.repeat_change or 0.0) > 1e-3


def test_a_model_that_counts_its_tokens_is_probed_from_its_start() -> None:
    class Counting(nn.Linear):
        """Has places for so many calls in eval mode only."""

        num_calls = 0

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  as the class above it
            if not self.training:
                self.num_calls += 1
                assert self.num_calls == 1
            return super().forward(input)

    (probe,) = watch(lambda: fit(Counting(7, 5), 4)).probes

    assert (probe.obstacle, probe.repeat_change) == (None, 0.0)


def test_probing_leaves_program_and_generators_as_they_are() -> None:
    unwatched = train()
    states: list[Any] = []
    with Observer(OPTIONS) as observer:
        assert train() == unwatched
        states.append((torch.get_rng_state(), random.getstate()))
    assert torch.equal(states[0][0], torch.get_rng_state())
    assert states[0][1] == random.getstate()
    (probe,) = observer.observation.probes
    assert (probe.obstacle, probe.repeat_change, probe.predicts_next) == (None, 0.0, True)


def test_models_that_cannot_be_called_again_say_why() -> None:
    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.linear.register_forward_hook(lambda *_: None)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.linear(inputs)
            return outputs

    def train_hooked() -> None:
        model = Hooked()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()

    (probe,) = watch(train_hooked).probes
    assert probe.obstacle == "it has hooks of its own"


def test_what_a_function_deletes_does_not_outlive_a_deep_step() -> None:
    import weakref

    def train_and_drop() -> None:
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = model(torch.ones(2, 4)).sum()
        loss.backward()
        optimizer.step()
        gone = weakref.ref(loss)
        del loss
        assert gone() is None

    watch(train_and_drop)


def test_a_function_that_keeps_its_variables_keeps_what_it_had() -> None:
    def train_and_keep(lr: float = 0.1) -> None:
        kept = locals()
        before = dict(kept)
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        assert kept == before

    watch(train_and_keep)


class ByLambda(nn.Module):
    """Holds a function that was made with its own parts, as some published models do."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"linear": nn.Linear(8, 8), "dropout": nn.Dropout(0.5)})
        parts = self.parts
        self.run = lambda inputs: parts["dropout"](parts["linear"](inputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.run(inputs)
        return scores


def test_a_model_whose_copy_calls_the_original_is_not_probed() -> None:
    torch.manual_seed(0)
    with Observer() as observer:
        model = ByLambda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).pow(2).mean().backward()
            optimizer.step()
    (probe,) = observer.observation.probes
    assert probe.obstacle == "its forward calls parts of the model that it was copied from"


def test_a_model_that_is_gone_before_the_end_is_probed_all_the_same() -> None:
    def train() -> None:
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(20)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).pow(2).mean().backward()
            optimizer.step()

    for _ in range(5):  # what is made afterwards often takes the place, and so the identity, of what is gone
        with Observer() as observer:
            train()
        (probe,) = observer.observation.probes
        assert probe.obstacle is None
