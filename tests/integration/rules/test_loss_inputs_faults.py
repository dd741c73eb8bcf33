"""One small training, and what goes wrong with what its loss function is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.record.watched import build_watched_steps
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]
    Step = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]

OWN = ("T3", "T1", "T2")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judge(make_run: MakeRun, train: Callable[[], None]) -> list[Finding]:
    """The findings of these families that stand for themselves, as errors and warnings."""
    with Observer() as observer:
        train()
    observed = observer.observation
    assert not [text for text in observed.not_seen if "itself failed" in text]
    run = make_run(steps=build_watched_steps(observed), observed=observed, source="watched optimizer steps")
    return [finding for finding in diagnose(run).findings if finding.code.startswith(OWN)]


def find_loud(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings if finding.severity != "note"]


def classify(loss: Step, *, num_classes: int = 4, tail: nn.Module | None = None, lr: float = 0.05) -> None:
    """Learns which of four inputs is the largest, for 24 steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, num_classes), *([tail] if tail else []))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(24):
        inputs = torch.randn(32, 4)
        optimizer.zero_grad()
        loss(model, inputs, inputs.argmax(1)).backward()
        optimizer.step()


def plain(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(inputs), labels)


def score_hot(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(model(inputs), functional.one_hot(labels, 4).float())


CLEAN: dict[str, Callable[[], None]] = {
    "plain": lambda: classify(plain),
    "nll after log_softmax": lambda: classify(
        lambda model, x, y: functional.nll_loss(model(x), y), tail=nn.LogSoftmax(-1)
    ),
    "bce on sigmoid": lambda: classify(
        lambda model, x, y: functional.binary_cross_entropy(model(x), functional.one_hot(y, 4).float()),
        tail=nn.Sigmoid(),
    ),
    "bce with logits": lambda: classify(score_hot),
    "label smoothing and weights": lambda: classify(
        lambda model, x, y: functional.cross_entropy(model(x), y, torch.ones(4), label_smoothing=0.1)
    ),
    "distillation": lambda: classify(
        lambda model, x, y: functional.kl_div(
            functional.log_softmax(model(x) / 2, -1), functional.one_hot(y, 4).float(), reduction="batchmean"
        )
    ),
    "bfloat16": lambda: classify(
        lambda model, x, y: functional.cross_entropy(torch.autocast("cpu", torch.bfloat16)(model)(x), y)
    ),
    "temperature": lambda: classify(
        lambda model, x, y: functional.cross_entropy(model(x) / 0.05, y), lr=1e-4
    ),
    "capped logits": lambda: classify(
        lambda model, x, y: functional.cross_entropy(30 * torch.tanh(model(x) / 30), y)
    ),
    "pairwise": lambda: classify(lambda model, x, _y: _rank(model(x)[:, 0], x[:, 0])),
}


def _rank(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    signs = (wanted.unsqueeze(1) - wanted.unsqueeze(0)).sign()
    return functional.softplus(-signs * (scores.unsqueeze(1) - scores.unsqueeze(0))).mean()


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_training_has_no_error_and_no_warning(make_run: MakeRun, name: str) -> None:
    findings = judge(make_run, CLEAN[name])
    assert find_loud(findings) == [], [str(finding) for finding in findings]


FAULTS: dict[str, tuple[str, Callable[[], None]]] = {
    "softmax before cross_entropy": ("T301", lambda: classify(plain, tail=nn.Softmax(-1))),
    "softmax by hand before cross_entropy": (
        "T301",
        lambda: classify(lambda model, x, y: functional.cross_entropy(_softmax(model(x)), y)),
    ),
    "sigmoid before bce with logits": ("T301", lambda: classify(score_hot, tail=nn.Sigmoid())),
    "relu at the end": ("T301", lambda: classify(plain, tail=nn.ReLU())),
    "nll on logits": ("T302", lambda: classify(lambda model, x, y: functional.nll_loss(model(x), y))),
    "nll on probabilities": (
        "T302",
        lambda: classify(lambda model, x, y: functional.nll_loss(model(x), y), tail=nn.Softmax(-1)),
    ),
    "softmax over the batch": ("T303", lambda: classify(plain, tail=nn.Softmax(0))),
    "one output": (
        "T304",
        lambda: classify(lambda model, x, y: functional.cross_entropy(model(x), 0 * y), num_classes=1),
    ),
    "negated": ("T305", lambda: classify(lambda model, x, y: -plain(model, x, y))),
    "made anew": (
        "T306",
        lambda: classify(lambda model, x, y: plain(model, x, y).detach().requires_grad_()),
    ),
    "all ignored": ("T311", lambda: classify(lambda model, x, y: plain(model, x, torch.full_like(y, -100)))),
    "one label": ("T314", lambda: classify(lambda model, x, y: plain(model, x, torch.full_like(y, 2)))),
    "many classes": ("T314", lambda: classify(plain, num_classes=1000)),
    "signs for bce": (
        "T315",
        lambda: classify(
            lambda model, x, _y: functional.binary_cross_entropy_with_logits(model(x), x.sign())
        ),
    ),
    "sigmoid and wide targets": (
        "T316",
        lambda: classify(lambda model, x, _y: functional.mse_loss(model(x), x), tail=nn.Sigmoid()),
    ),
    "difference of column and row": (
        "T317",
        lambda: classify(lambda model, x, _y: (model(x) - x[:, 0]).pow(2).mean(), num_classes=1),
    ),
}


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    numbers = scores.exp()
    return numbers / numbers.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(make_run: MakeRun, name: str) -> None:
    code, train = FAULTS[name]
    findings = judge(make_run, train)
    assert code in find_loud(findings), [str(finding) for finding in findings]
    assert next(finding for finding in findings if finding.code == code).explained_by is None


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_function_that_broadcasts_is_named(make_run: MakeRun) -> None:
    findings = judge(
        make_run, lambda: classify(lambda model, x, _y: functional.mse_loss(model(x), x[:, 0]), num_classes=1)
    )
    assert "T317" in find_loud(findings)


class Words(nn.Module):
    """Guesses each token from the one at its place; the seventh is never seen, the first is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.tokens(tokens))
        return scores


def read(shift: int, ignored: int, **options: Any) -> None:
    """Learns to write token t + 1 for token t, in rows of different lengths."""
    torch.manual_seed(0)
    model = Words()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(24):
        rows = (torch.randint(1, 19, (8, 1)) + torch.arange(14)) % 19 + 1
        is_padding = torch.arange(14) >= torch.randint(5, 14, (8, 1))
        tokens = rows.masked_fill(is_padding, 0)
        targets = tokens.masked_fill(is_padding, ignored)
        length = 12
        wanted = targets[:, shift : shift + length]
        optimizer.zero_grad()
        logits = model(tokens[:, :length])
        functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), **options).backward()
        optimizer.step()


def test_a_language_model_with_targets_shifted_once_and_padding_ignored_is_clean(make_run: MakeRun) -> None:
    assert find_loud(judge(make_run, lambda: read(1, -100))) == []
    assert find_loud(judge(make_run, lambda: read(1, 0, ignore_index=0))) == []


@pytest.mark.parametrize(("shift", "ignored", "code"), [(0, -100, "T312"), (2, -100, "T312"), (1, 0, "T313")])
def test_targets_of_a_language_model_that_do_not_fit_are_named(
    make_run: MakeRun, shift: int, ignored: int, code: str
) -> None:
    assert find_loud(judge(make_run, lambda: read(shift, ignored))) == [code]
