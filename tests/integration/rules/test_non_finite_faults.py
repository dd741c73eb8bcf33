"""One small training, and where its first number that is not finite comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from harness.record.observation import RunObservation
from harness.record.watched import build_watched_steps
from harness.rules.diagnosis import diagnose
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding

    MakeRun = Callable[..., TrainingRun]
    Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor, int], torch.Tensor]

# An older torch does not say whether reading what a node saved would run a hook.
needs_saved = pytest.mark.skipif(
    not hasattr(torch.ones(1, requires_grad=True).exp().grad_fn._raw_saved_result, "unpack_hook"),  # type: ignore[union-attr]
    reason="this torch does not let the watcher look at what the graph saved",
)
OWN = ("T1", "T2", "T4", "R1")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judge(make_run: MakeRun, train: Callable[[], None]) -> list[Finding]:
    """The findings of these families, after a round trip through JSON."""
    with Observer() as observer:
        train()
    assert not [text for text in observer.observation.not_seen if "itself failed" in text]
    observed = RunObservation.from_json(json.loads(json.dumps(observer.observation.to_json())))
    assert json.dumps(observed.to_json()) == json.dumps(observer.observation.to_json())
    run = make_run(steps=build_watched_steps(observed), observed=observed, source="watched optimizer steps")
    return [finding for finding in diagnose(run).findings if finding.code.startswith(OWN)]


def find_loud(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings if finding.severity != "note"]


def train(loss: Loss, *, bias: float = 0.0, num_steps: int = 16, poison: int | None = None) -> None:
    """Learns which of four inputs is the largest."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model.get_parameter("0.bias").add_(bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(num_steps):
        inputs = torch.randn(32, 4)
        labels = inputs.argmax(1)
        if step == poison:
            inputs[3, 1] = torch.nan
        optimizer.zero_grad()
        loss(model, inputs, labels, step).backward()
        optimizer.step()


def plain(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, _step: int) -> torch.Tensor:
    return functional.cross_entropy(model(inputs), labels)


def with_root(first: int) -> Loss:
    """From a step on, the root of a difference that is 0."""

    def loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
        scores = model(inputs)
        drift = (scores - scores.detach()).pow(2).sum().sqrt() if step >= first else 0.0
        return functional.cross_entropy(scores, labels) + 0.01 * drift

    return loss


def with_log(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
    shares: torch.Tensor = functional.relu(model(inputs) - 10.0 * (step >= 5)) + 1e-3 * (step < 5)
    return shares[torch.arange(32), labels].log().mean().neg()


def with_exp(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
    scores: torch.Tensor = model(inputs) * (1e4 if step == 5 else 1.0)
    return scores.exp().mean() + 0.0 * labels.sum()


def with_checkpointing(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int
) -> torch.Tensor:
    assert isinstance(model, nn.Sequential)
    hidden = checkpoint(model[:2], inputs, use_reentrant=False) * (torch.nan if step == 5 else 1.0)
    return functional.cross_entropy(model[2](hidden), labels)


def test_a_clean_training_has_no_finding(make_run: MakeRun) -> None:
    assert find_loud(judge(make_run, lambda: train(plain))) == []
    assert find_loud(judge(make_run, lambda: train(plain, bias=1.0))) == []


@needs_saved
@pytest.mark.parametrize(
    ("loss", "code", "step", "words"),
    [
        (with_root(0), "T202", 0, "sqrt of 0"),
        (with_root(5), "T202", 5, "step 5 left all 4 parameters with numbers that are not finite"),
        (with_log, "T203", 5, "log was given 0 or less, after the parameters `2.bias`"),
        (with_exp, "T203", 5, "exp overflowed"),
        (with_checkpointing, "T203", 5, "mul was given NaN"),
    ],
    ids=["root", "root on a light step", "log", "exp", "checkpointing"],
)
def test_the_origin_is_named_and_explains_the_rest(
    make_run: MakeRun, loss: Loss, code: str, step: int, words: str
) -> None:
    findings = judge(make_run, lambda: train(loss))
    assert (findings[0].code, findings[0].step) == (code, step)
    assert words in findings[0].message
    assert {finding.explained_by for finding in findings if finding.code.startswith("T2")} == {None, code}


@needs_saved
def test_data_that_hold_nan_are_named(make_run: MakeRun) -> None:
    findings = judge(make_run, lambda: train(plain, poison=5))
    own = next(finding for finding in findings if finding.code == "T203")
    assert "the data of step 5 are not finite" in own.message


def test_activation_checkpointing_is_not_run_once_more_to_look_at_it() -> None:
    calls: list[int] = []

    class Counting(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return inputs.exp()

    def run() -> int:
        calls.clear()
        weight = nn.Parameter(torch.tensor([100.0]))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(2):
            checkpoint(Counting(), weight, use_reentrant=False).sum().backward()
            optimizer.step()
        return len(calls)

    unwatched = run()
    with Observer() as observer:
        assert run() == unwatched
    assert observer.observation.non_finite is not None


def test_a_scaler_whose_step_is_never_called_is_named(make_run: MakeRun) -> None:
    def run(*, is_right: bool) -> None:
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for _ in range(8):
            inputs = torch.randn(32, 4)
            optimizer.zero_grad()
            scaler.scale(plain(model, inputs, inputs.argmax(1), 0)).backward()
            if is_right:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()

    assert "T204" in find_loud(judge(make_run, lambda: run(is_right=False)))
    assert "T204" not in find_loud(judge(make_run, lambda: run(is_right=True)))


def test_losses_that_are_kept_with_their_graph_are_named(make_run: MakeRun) -> None:
    kept: list[torch.Tensor] = []
    total = [torch.zeros(())]

    def collecting(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
        loss = plain(model, inputs, labels, step)
        kept.append(loss)
        return loss

    def adding(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
        loss = plain(model, inputs, labels, step)
        total[0] = total[0] + loss
        return loss

    def detaching(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
        loss = plain(model, inputs, labels, step)
        kept.append(loss.detach())
        return loss

    assert find_loud(judge(make_run, lambda: train(collecting))) == ["R101"]
    kept.clear()
    assert find_loud(judge(make_run, lambda: train(adding))) == ["R101"]
    total[0] = torch.zeros(())
    assert find_loud(judge(make_run, lambda: train(detaching))) == []


def test_a_layer_that_is_shut_is_named(make_run: MakeRun) -> None:
    assert "T408" in find_loud(judge(make_run, lambda: train(plain, bias=-100.0)))


def test_first_weights_that_are_too_wide_are_named(make_run: MakeRun) -> None:
    def wide(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
        if step == 0:
            with torch.no_grad():
                model.get_parameter("2.weight").mul_(100)
        return plain(model, inputs, labels, step)

    assert "T102" in find_loud(judge(make_run, lambda: train(wide)))


@pytest.mark.parametrize(("is_dynamic", "codes"), [(False, ["R103"]), (None, [])])
def test_a_graph_for_every_size_is_named(
    make_run: MakeRun, *, is_dynamic: bool | None, codes: list[str]
) -> None:
    def run() -> None:
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = nn.Linear(4, 4)
        compiled = torch.compile(model, backend="eager", dynamic=is_dynamic)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(12):
            inputs = torch.randn(20 + step, 4)
            optimizer.zero_grad()
            functional.cross_entropy(compiled(inputs), inputs.argmax(1)).backward()
            optimizer.step()

    assert find_loud(judge(make_run, run)) == codes
