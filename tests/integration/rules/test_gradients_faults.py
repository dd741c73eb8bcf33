"""One small training with residual blocks, and what goes wrong with its gradients on their way to the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from harness.record.observation import RunObservation
from harness.record.watched import build_watched_steps
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]
    Batch = tuple[torch.Tensor, torch.Tensor]
    Step = Callable[["Net", torch.optim.Optimizer, list[Batch]], None]

OWN = ("T40", "T41", "T42", "T5")
OTHERS = ("T408",)


class Net(nn.Module):
    """Residual blocks; `cut` takes a part of the forward off the graph."""

    def __init__(self, cut: str = "") -> None:
        super().__init__()
        self.cut = cut
        self.first = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16)) for _ in range(2))
        self.pooler = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scores of four classes."""
        x = self.first(inputs)
        for block in self.blocks:
            if self.cut == "without gradient":
                with torch.no_grad():
                    x = block(x)
            else:
                added = torch.tanh(block(x))
                x = x + (added.detach() if self.cut == "branch" else added)
        pooled = self.pooler(x)
        if self.cut != "pooler":
            x = x + pooled
        scores: torch.Tensor = self.head(x.detach() if self.cut == "head" else x)
        return scores


def draw(num: int) -> Batch:
    inputs = torch.randn(num, 8)
    return inputs, inputs[:, :4].argmax(1)


def train(
    step: Step, *, cut: str = "", num_batches: int = 1, num_steps: int = 12, is_adam: bool = False
) -> None:
    torch.manual_seed(0)
    model = Net(cut)
    kind = torch.optim.AdamW if is_adam else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=0.02)
    for _ in range(num_steps):
        step(model, optimizer, [draw(16) for _ in range(num_batches)])


def accumulate(model: Net, batches: list[Batch], scale: float = 1.0) -> None:
    for inputs, labels in batches:
        (functional.cross_entropy(model(inputs), labels) * scale / len(batches)).backward()


def plain(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def unclipped(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    optimizer.step()


def never_clears(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    accumulate(model, batches)
    optimizer.step()


def clears_the_head(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    model.head.zero_grad()
    accumulate(model, batches)
    optimizer.step()


def clears_too_late(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    accumulate(model, batches)
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()


def adds_noise(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.add_(torch.randn_like(parameter))
    optimizer.step()


def steps_twice(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    optimizer.step()
    optimizer.step()


def goes_back_twice(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    for inputs, labels in batches:
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward(retain_graph=True)
        loss.backward()
    optimizer.step()


def does_not_divide(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches, scale=len(batches))
    optimizer.step()


def divides_twice(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches, scale=1 / len(batches))
    optimizer.step()


def throws_away(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    for batch in batches:
        optimizer.zero_grad()
        accumulate(model, [batch], scale=1 / len(batches))
    optimizer.step()


def clips_after_the_step(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    unclipped(model, optimizer, batches)
    clip_grad_norm_(model.parameters(), 1.0)


def clips_before_the_last(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    for batch in batches:
        clip_grad_norm_(model.parameters(), 1.0)
        accumulate(model, [batch], scale=1 / len(batches))
    optimizer.step()


def clips_nothing(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    with torch.no_grad():
        clip_grad_norm_([torch.zeros(2, requires_grad=True)], 0.1)
    optimizer.step()


def clips_a_part(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    clip_grad_norm_(model.pooler.parameters(), 0.1)
    optimizer.step()


def scales_after_clipping(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    clip_grad_norm_(model.parameters(), 0.1)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.mul_(4)
    optimizer.step()


def clips_to_nothing(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    optimizer.zero_grad()
    accumulate(model, batches)
    clip_grad_norm_(model.parameters(), 1e-4)
    optimizer.step()


def train_scaled(*, is_unscaled: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    def step(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
        optimizer.zero_grad()
        for inputs, labels in batches:
            scaler.scale(functional.cross_entropy(model(inputs), labels) / len(batches)).backward()
        if is_unscaled:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    train(step, num_batches=2)


def train_tokens(*, is_weighted: bool) -> None:
    """Micro-batches that score different numbers of tokens."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(12):
        batches = [torch.randint(0, 9, (4, length)) for length in torch.randint(4, 20, (3,)).tolist()]
        total = sum(tokens[:, 1:].numel() for tokens in batches)
        optimizer.zero_grad()
        for tokens in batches:
            targets = tokens[:, 1:].flatten()
            loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), targets)
            (loss * targets.numel() / total if is_weighted else loss / len(batches)).backward()
        optimizer.step()


def train_dead(*, bias: float) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.ReLU(), layers[2])
    nn.init.constant_(layers[1].bias, bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(12):
        inputs, labels = draw(16)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def train_sharpness_aware() -> None:
    """The first backward of each step only says where to climb to."""

    def step(model: Net, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
        inputs, labels = batches[0]
        functional.cross_entropy(model(inputs), labels).backward()
        climbs = [(p, 0.05 * p.grad) for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            for parameter, climb in climbs:
                parameter.add_(climb)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        with torch.no_grad():
            for parameter, climb in climbs:
                parameter.sub_(climb)
        optimizer.step()
        optimizer.zero_grad()

    train(step)


def train_in_turns() -> None:
    """A critic with two backwards a step, in which the generator's step leaves gradients."""
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    for_generator = torch.optim.Adam(generator.parameters(), lr=0.01, betas=(0.0, 0.9))
    for_critic = torch.optim.Adam(critic.parameters(), lr=0.01, betas=(0.0, 0.9))
    loss = nn.BCEWithLogitsLoss()
    for _ in range(8):
        critic.zero_grad()
        loss(critic(torch.randn(8, 8)), torch.ones(8, 1)).backward()
        fake = generator(torch.randn(8, 4))
        loss(critic(fake.detach()), torch.zeros(8, 1)).backward()
        for_critic.step()
        generator.zero_grad()
        loss(critic(fake), torch.ones(8, 1)).backward()
        for_generator.step()


FAULTS: dict[str, tuple[Callable[[], None], str]] = {
    "a detach before the head": (lambda: train(unclipped, cut="head"), "T401"),
    "branches detached": (lambda: train(unclipped, cut="branch"), "T401"),
    "blocks without gradient": (lambda: train(unclipped, cut="without gradient"), "T401"),
    "units that are dead": (lambda: train_dead(bias=-50.0), "T402"),
    "never cleared": (lambda: train(never_clears), "T403"),
    "cleared in part": (lambda: train(clears_the_head), "T403"),
    "stepped twice": (lambda: train(steps_twice), "T404"),
    "cleared too late": (lambda: train(clears_too_late), "T405"),
    "noise": (lambda: train(adds_noise), "T405"),
    "not divided": (lambda: train(does_not_divide, num_batches=4), "T411"),
    "divided twice": (lambda: train(divides_twice, num_batches=4), "T411"),
    "tokens not weighted": (lambda: train_tokens(is_weighted=False), "T412"),
    "thrown away": (lambda: train(throws_away, num_batches=4), "T413"),
    "backward twice": (lambda: train(goes_back_twice), "T414"),
    "clipped before unscaling": (lambda: train_scaled(is_unscaled=False), "T421"),
    "clipped after the step": (lambda: train(clips_after_the_step), "T422"),
    "clipped before the last backward": (lambda: train(clips_before_the_last, num_batches=2), "T422"),
    "nothing clipped": (lambda: train(clips_nothing), "T423"),
    "a part clipped": (lambda: train(clips_a_part), "T423"),
    "scaled after clipping": (lambda: train(scales_after_clipping), "T424"),
    "clipped to nothing": (lambda: train(clips_to_nothing), "T425"),
}
CLEAN: dict[str, Callable[[], None]] = {
    "plain": lambda: train(plain),
    "adam": lambda: train(plain, is_adam=True),
    "accumulation": lambda: train(plain, num_batches=4),
    "an unused pooler": lambda: train(plain, cut="pooler"),
    "unscaled, then clipped": lambda: train_scaled(is_unscaled=True),
    "tokens weighted": lambda: train_tokens(is_weighted=True),
    "live units": lambda: train_dead(bias=0.0),
    "sharpness-aware": train_sharpness_aware,
    "in turns": train_in_turns,
}


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
    assert len(findings) <= (name == "an unused pooler")
