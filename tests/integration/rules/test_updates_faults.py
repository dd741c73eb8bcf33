"""One small training, and what goes wrong with its optimizer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.record.observation import RunObservation
from harness.record.watched import build_watched_steps
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]
    Build = Callable[["Net"], torch.optim.Optimizer]

OWN = ("T40", "T41", "T42", "T5")
OTHERS = ("T408",)


class Net(nn.Module):
    """Blocks between a first layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16)) for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scores of four classes."""
        x = self.first(inputs)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        scores: torch.Tensor = self.head(x)
        return scores


def train(
    build: Build,
    *,
    dtype: torch.dtype = torch.float32,
    change: Callable[[Net, int], None] | None = None,
    rebuild_every: int = 0,
) -> None:
    torch.manual_seed(0)
    model = Net().to(dtype)
    if change is not None:
        change(model, -1)
    optimizer = build(model)
    for step in range(14):
        if rebuild_every and step and step % rebuild_every == 0:
            optimizer = build(model)
        if change is not None:
            change(model, step)
        inputs = torch.randn(16, 8, dtype=dtype)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), inputs[:, :4].argmax(1)).backward()
        optimizer.step()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def of_a_copy(model: nn.Module) -> torch.optim.Optimizer:
    return adam(copy.deepcopy(model))


def before_the_head_was_replaced(model: Net) -> torch.optim.Optimizer:
    optimizer = adam(model)
    model.head = nn.Linear(16, 4)
    return optimizer


def of_matrices(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.dim() > 1], lr=1e-3)


def of_the_head(model: Net) -> torch.optim.Optimizer:
    return adam(model.head)


def of_what_trains(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def of_two_groups(model: nn.Module, decay: float) -> torch.optim.Optimizer:
    matrices = {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1}
    vectors = {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": decay}
    return torch.optim.AdamW([matrices, vectors], lr=1e-3)


def with_an_idle_group(model: Net) -> torch.optim.Optimizer:
    others = [p for part in (model.first, model.blocks) for p in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": model.head.parameters(), "lr": 0.0}]
    return torch.optim.SGD(groups, lr=0.01)


def freeze_one_block(model: Net, step: int) -> None:
    del step
    model.blocks[1].requires_grad_(False)


def freeze_first_half(model: Net, step: int) -> None:
    del step
    model.first.requires_grad_(False)
    model.blocks[:2].requires_grad_(False)


def freeze_later(model: Net, step: int) -> None:
    if step == 5:
        model.blocks.requires_grad_(False)


def thaw_later(model: Net, step: int) -> None:
    if step in (-1, 5):
        model.blocks.requires_grad_(step == 5)


def train_both_over_one_net() -> None:
    """The critic's optimizer was given the generator, like the generator's own."""
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 8), nn.Linear(8, 1)
    optimizers = [torch.optim.Adam(generator.parameters(), lr=0.01) for _ in range(2)]
    for _ in range(6):
        for optimizer in optimizers:
            optimizer.zero_grad()
            critic(generator(torch.randn(8, 4))).mean().backward()
            optimizer.step()


def train_actor_and_critic() -> None:
    torch.manual_seed(0)
    nets = [nn.Linear(8, 1), nn.Linear(8, 2)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.01) for net in nets]
    for _ in range(6):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(torch.randn(8, 8)).pow(2).mean().backward()
            optimizer.step()


def train_without_the_critics_step() -> None:
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 8), nn.Linear(8, 1)
    for_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    for_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(6):
        for_critic.zero_grad()
        for_generator.zero_grad()
        critic(generator(torch.randn(8, 4))).mean().backward()
        for_generator.step()


def train_an_input() -> None:
    """The optimizer holds an image alone; the model, which could train, only judges it."""
    torch.manual_seed(0)
    model = Net().eval()
    image = torch.randn(4, 8, requires_grad=True)
    optimizer = torch.optim.Adam([image], lr=0.05)
    for _ in range(12):
        optimizer.zero_grad()
        functional.cross_entropy(model(image), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()


FAULTS: dict[str, tuple[Callable[[], None], str]] = {
    "an optimizer of a copy": (lambda: train(of_a_copy), "T501"),
    "a head replaced": (lambda: train(before_the_head_was_replaced), "T501"),
    "vectors left out": (lambda: train(of_matrices), "T501"),
    "two optimizers over one net": (train_both_over_one_net, "T503"),
    "an optimizer that never steps": (train_without_the_critics_step, "T501"),
    "rebuilt at every step": (lambda: train(adam, rebuild_every=1), "T504"),
    "rebuilt now and then": (lambda: train(adam, rebuild_every=4), "T504"),
    "betas swapped": (
        lambda: train(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.999, 0.9))),
        "T505",
    ),
    "a wild decay": (
        lambda: train(lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=100.0)),
        "T505",
    ),
    "a wild eps": (
        lambda: train(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, eps=1.0)),
        "T505",
    ),
    "maximized": (
        lambda: train(lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, maximize=True)),
        "T508",
    ),
    "one block frozen": (lambda: train(adam, change=freeze_one_block), "T507"),
    "blocks frozen on the way": (lambda: train(adam, change=freeze_later), "T507"),
    "updates rounded away": (
        lambda: train(lambda model: torch.optim.SGD(model.parameters(), lr=1e-3), dtype=torch.bfloat16),
        "T512",
    ),
    "steps too large": (
        lambda: train(lambda model: torch.optim.SGD(model.parameters(), lr=300.0)),
        "T513",
    ),
    "steps too small": (
        lambda: train(lambda model: torch.optim.SGD(model.parameters(), lr=1e-7)),
        "T513",
    ),
}
CLEAN: dict[str, Callable[[], None]] = {
    "adam": lambda: train(adam),
    "what trains": lambda: train(of_what_trains, change=freeze_first_half),
    "half frozen, all held": lambda: train(adam, change=freeze_first_half),
    "thawed on the way": lambda: train(adam, change=thaw_later),
    "the head alone": lambda: train(of_the_head),
    "no decay of vectors": lambda: train(lambda model: of_two_groups(model, 0.0)),
    "two stages": lambda: train(adam, rebuild_every=7),
    "rebuilt, without a state": lambda: train(
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1), rebuild_every=1
    ),
    "an idle group": lambda: train(with_an_idle_group),
    "bfloat16": lambda: train(
        lambda model: torch.optim.Adam(model.parameters(), lr=1e-2), dtype=torch.bfloat16
    ),
    "actor and critic": train_actor_and_critic,
    "an input": train_an_input,
}
NOTED = {"the head alone": ["T501"], "an idle group": ["T511"], "an input": ["T501"]}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judge(make_run: MakeRun, program: Callable[[], None]) -> list[Finding]:
    """The findings of these families, of a record that has been through JSON."""
    with Observer() as observer:
        program()
    observed = RunObservation.from_json(observer.observation.to_json())
    assert not [text for text in observed.not_seen if "itself failed" in text]
    run = make_run(steps=build_watched_steps(observed), observed=observed, source="watched optimizer steps")
    found = diagnose(run).findings
    return [finding for finding in found if finding.code.startswith(OWN) and finding.code not in OTHERS]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_and_named_first(make_run: MakeRun, fault: str) -> None:
    program, code = FAULTS[fault]
    loud = [finding for finding in judge(make_run, program) if finding.severity != "note"]
    assert [finding.code for finding in loud][:1] == [code]


@pytest.mark.parametrize("name", CLEAN)
def test_clean_program_is_silent(make_run: MakeRun, name: str) -> None:
    findings = judge(make_run, CLEAN[name])
    assert [str(finding) for finding in findings if finding.severity != "note"] == []
    assert [finding.code for finding in findings] == NOTED.get(name, [])


def test_decayed_group_of_vectors_is_a_note(make_run: MakeRun) -> None:
    (finding,) = judge(make_run, lambda: train(lambda model: of_two_groups(model, 0.1)))
    assert (finding.code, finding.severity) == ("T506", "note")
