from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, softmax

from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions
from tests.integration.watch.programs import build_batches, build_model

if TYPE_CHECKING:
    from harness.record.deep import DeepObservation, ParameterObservation

EVERY = ObserverOptions(deep_steps=tuple(range(20)))


def watch(train: Any, *args: Any, **kwargs: Any) -> list[DeepObservation]:
    with Observer(EVERY) as observer:
        train(*args, **kwargs)
    assert not observer.observation.not_seen
    return observer.observation.deep_steps


def by_name(deep: DeepObservation) -> dict[str, ParameterObservation]:
    return {parameter.name: parameter for parameter in deep.parameters}


def test_norms_per_tensor_are_those_the_program_can_compute() -> None:
    facts: list[tuple[list[float], list[float], list[float]]] = []

    def train() -> None:
        model = build_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for inputs, targets in build_batches(3):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            before = [parameter.detach().clone() for parameter in model.parameters()]
            gradients = [
                float(parameter.grad.norm()) for parameter in model.parameters() if parameter.grad is not None
            ]
            optimizer.step()
            changes = [
                float((p.detach() - old).norm()) for p, old in zip(model.parameters(), before, strict=True)
            ]
            facts.append((gradients, [float(old.norm()) for old in before], changes))

    deep_steps = watch(train)
    assert len(deep_steps) == 3
    for deep, (gradients, weights, changes) in zip(deep_steps, facts, strict=True):
        assert [parameter.name for parameter in deep.parameters] == [
            "0.weight",
            "0.bias",
            "3.weight",
            "3.bias",
        ]
        assert [parameter.grad_norm for parameter in deep.parameters] == pytest.approx(gradients)
        assert [parameter.weight_norm for parameter in deep.parameters] == pytest.approx(weights)
        assert [parameter.update_norm for parameter in deep.parameters] == pytest.approx(changes)
        assert all(parameter.took_part for parameter in deep.parameters)
    assert len({deep.parameters[0].fingerprint for deep in deep_steps}) == 3
    assert len({deep.batch_fingerprints[0] for deep in deep_steps}) == 3


def test_same_seed_gives_the_same_fingerprints_and_another_batch_another() -> None:
    def train(seed: int) -> None:
        model = build_model()
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(2, 8)).sum().backward()
        optimizer.step()

    (first,), (again,), (other,) = watch(train, 1), watch(train, 1), watch(train, 2)
    assert first == again
    assert first.rng_fingerprints["torch"] != other.rng_fingerprints["torch"]
    assert first.batch_fingerprints != other.batch_fingerprints
    assert first.parameters[0].fingerprint == other.parameters[0].fingerprint


def test_parameter_without_gradient_stale_gradient_and_gradient_never_cleared_are_told_apart() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.cut, self.idle = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.sometimes = nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor, *, use_all: bool) -> torch.Tensor:
            outputs: torch.Tensor = self.used(self.cut(inputs).detach())
            return self.sometimes(outputs) if use_all else outputs

    def train() -> None:
        torch.manual_seed(0)
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(2):
            model(torch.randn(2, 4), use_all=step == 0).pow(2).sum().backward()
            optimizer.step()

    first, second = (by_name(deep) for deep in watch(train))
    assert first["used.weight"].grad_norm
    assert (first["cut.weight"].grad_norm, first["cut.weight"].took_part) == (None, True)
    assert (first["idle.weight"].grad_norm, first["idle.weight"].took_part) == (None, False)
    assert first["idle.weight"].update_norm == 0.0
    assert first["sometimes.weight"].leftover_norm is None
    assert second["sometimes.weight"].is_stale
    assert not second["used.weight"].is_stale
    assert second["used.weight"].leftover_norm == pytest.approx(first["used.weight"].grad_norm)


def test_loss_function_inputs_scale_and_labels() -> None:
    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        inputs, _ = next(build_batches(1))
        targets = torch.tensor([0, 1, 3, -100, -100, 2, 1, 0])
        optimizer.zero_grad()
        (cross_entropy(softmax(model(inputs), -1), targets) / 4).backward()
        (nn.NLLLoss()(model(inputs).log_softmax(-1), targets) * 3).backward()
        mse_loss(model(inputs), torch.zeros(8, 4), reduction="sum").backward()
        optimizer.step()

    (deep,) = watch(train)
    probabilities, log_probabilities, squares = deep.loss_functions
    assert (probabilities.name, probabilities.is_probability, probabilities.is_log_probability) == (
        "cross_entropy", True, False,
    )  # fmt: skip
    assert (log_probabilities.name, log_probabilities.is_probability) == ("nll_loss", False)
    assert log_probabilities.is_log_probability
    assert probabilities.label_range == (0, 3)
    assert probabilities.share_ignored == 0.25
    assert [call.scale for call in deep.loss_functions] == [0.25, 3.0, 1.0]
    assert (squares.reduction, squares.input_shape, squares.ignore_index) == ("sum", (8, 4), None)


def test_targets_that_are_the_inputs_are_told() -> None:
    def train(*, shift: int) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        tokens = torch.randint(0, 9, (2, 6))
        cross_entropy(model(tokens).flatten(0, 1), tokens.roll(shift, 1).flatten()).backward()
        optimizer.step()

    assert [watch(train, shift=shift)[0].loss_functions[0].target_equals_input for shift in (0, 1)] == [
        True,
        False,
    ]


def test_modules_in_eval_mode_and_first_non_finite_module_are_named() -> None:
    def train() -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4), nn.ReLU())
        model[1].eval()
        with torch.no_grad():
            list(model.parameters())[2][0, 0] = float("inf")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()

    (deep,) = watch(train)
    assert [module.name for module in deep.modules] == ["0", "1", "2", "3", "Sequential"]
    assert deep.modules_in_eval_mode == ["1"]
    assert deep.first_non_finite_module == "2"


def test_update_of_a_large_parameter_is_estimated_from_a_sample() -> None:
    def train() -> None:
        parameter = nn.Parameter(torch.ones(3_000_000))
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        parameter.sum().backward()
        optimizer.step()

    (deep,) = watch(train)
    assert deep.num_sampled_updates == 1
    assert deep.parameters[0].update_norm == pytest.approx(0.5 * 3_000_000**0.5, rel=1e-3)


def test_autocast_of_the_forward_is_seen() -> None:
    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.ones(2, 8)).sum()
        loss.backward()
        optimizer.step()

    assert watch(train)[0].autocast == "cpu bfloat16"


def test_checkpoints_are_seen_with_their_keys(tmp_path: Any) -> None:
    path = tmp_path / "last.pt"

    def train() -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
        torch.save({"model": model.state_dict(), "step": 1}, path)
        with path.with_suffix(".bin").open("wb") as file:
            torch.save(model, file)

    with Observer() as observer:
        train()
    first, second = observer.observation.checkpoints
    assert (first.path, first.after_step, first.num_bytes) == (str(path), 1, path.stat().st_size)
    assert first.keys == ["model.0.weight", "model.0.bias", "model.3.weight", "model.3.bias", "step"]
    assert (second.path, second.keys) == (str(path.with_suffix(".bin")), ["Sequential"])


class _Tagger(nn.Module):
    """Computes its own loss, as many language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 8)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self.embedding(tokens).view(-1, 8), targets.reshape(-1))


@pytest.mark.parametrize("shift", [0, 1])
def test_labels_the_model_is_given_are_not_taken_for_its_inputs(shift: int) -> None:
    def train() -> None:
        model = _Tagger()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            text = torch.randint(0, 8, (4, 17))
            text[0, :2] = torch.tensor([1, 2])
            model(text[:, :16], text[:, shift : 16 + shift]).backward()
            optimizer.step()

    for deep in watch(train):
        assert deep.loss_functions[0].target_equals_input is (shift == 0)


def test_parameters_used_without_a_call_of_their_module_took_part() -> None:
    def train() -> None:
        attention = nn.MultiheadAttention(4, 2)
        optimizer = torch.optim.SGD(attention.parameters(), lr=0.1)
        inputs = torch.randn(3, 2, 4)
        attention(inputs, inputs, inputs)[0].sum().backward()
        optimizer.step()

    (deep,) = watch(train)
    assert by_name(deep)["out_proj.weight"].took_part


def test_models_of_one_class_are_told_apart() -> None:
    def train() -> None:
        actor, critic = nn.Linear(4, 2), nn.Linear(4, 1)
        optimizer = torch.optim.SGD([*actor.parameters(), *critic.parameters()], lr=0.1)
        inputs = torch.randn(3, 4)
        (actor(inputs).sum() + critic(inputs).sum()).backward()
        optimizer.step()

    (deep,) = watch(train)
    assert list(by_name(deep)) == ["Linear.weight", "Linear.bias", "Linear2.weight", "Linear2.bias"]


class _FabricModule(nn.Module):
    """Wraps a model as Lightning Fabric does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._forward_module = self._original_module = model

    def forward(self, inputs: torch.Tensor) -> Any:
        return self._forward_module(inputs)


def test_parameters_behind_a_wrapper_have_the_names_the_model_gives_them() -> None:
    def train() -> None:
        model = _FabricModule(build_model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()

    (deep,) = watch(train)
    assert list(by_name(deep)) == ["0.weight", "0.bias", "3.weight", "3.bias"]
