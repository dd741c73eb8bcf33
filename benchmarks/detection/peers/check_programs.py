# mypy: ignore-errors
"""What a user of pytest-torch would test of each program: every check of the plugin that fits it.

Run by `drive.py` with the mutant's path in DETECTION_MUTANT; each bound is one that the clean program keeps.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.detection.peers.hosting import LOOPS, Host, load_program
from pytest_torch import (
    assert_all_params_receive_grad,
    assert_checkpoint_roundtrip,
    assert_gradients_finite,
    assert_loss_decreases,
    assert_optimizer_coverage,
    assert_overfits_one_batch,
    assert_padding_invariant,
    check_inference_contract,
    from_lightning,
)

MUTANT = Path(os.environ["DETECTION_MUTANT"])
PROGRAM = MUTANT.stem
NAMES, ARGS = load_program(MUTANT)
if PROGRAM == "image_classifier":
    ARGS.workers = 0
BOUNDS = {"language_model": 1.001, "autoencoder": 0.1001, "image_classifier": 20.0, "gan": 5.0}
needs_loop = pytest.mark.skipif(PROGRAM not in LOOPS, reason="the program has no loop of its own")


def only(*programs: str) -> Any:
    return pytest.mark.skipif(PROGRAM not in programs, reason="made for other programs")


def build_case() -> tuple[Any, Any, Any]:
    """A model, inputs for it, and the program's loss of an output for these inputs."""
    torch.manual_seed(0)
    if PROGRAM in LOOPS:
        host = Host(NAMES, ARGS, PROGRAM)
        batch = host.draw_batches(1)[0]
        model = host.make_setup().model
        if PROGRAM == "gan":
            noise = torch.randn(32, NAMES["Generator"]().latent)
            return model[0], noise, lambda output: NAMES["generator_loss"](model[1](output))
        if PROGRAM == "autoencoder":
            return model, batch[0], lambda output: NAMES["compute_loss"](output, batch[0], ARGS.kl_weight)
        inputs, targets = batch
        return model, inputs, lambda output: NAMES["compute_loss"](output, targets) / len(inputs)
    if PROGRAM == "hf_trainer":
        trainer = catch_trainer()
        batch = next(iter(trainer.get_train_dataloader()))
        return trainer.model, dict(batch), lambda output: output.loss
    waves, labels = next(iter(wave_loader()))
    model = NAMES["WaveClassifier"](lr=ARGS.lr, steps=ARGS.steps)
    return model, waves, lambda output: torch.nn.functional.cross_entropy(output, labels)


def wave_loader() -> Any:
    data = NAMES["draw_waves"](480, seed=1000 + ARGS.seed)
    return torch.utils.data.DataLoader(data, batch_size=ARGS.batch_size, shuffle=True, drop_last=True)


def catch_trainer() -> Any:
    """The Trainer as the program sets it up, caught when it starts to train."""
    import transformers

    caught: list[Any] = []

    class CaughtError(Exception):
        pass

    def train(trainer: Any) -> None:
        caught.append(trainer)
        raise CaughtError

    real, transformers.Trainer.train = transformers.Trainer.train, train
    try:
        NAMES["train"](ARGS)
    except CaughtError:
        pass
    finally:
        transformers.Trainer.train = real
    return caught[0]


def expected_lr(step: int) -> float:
    """The learning rates that the program's settings promise."""
    if PROGRAM == "language_model":
        warmup, steps = 8, 60
        if step < warmup:
            return 3e-3 * (step + 1) / warmup
        return 3e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))
    if PROGRAM == "image_classifier":
        return 0.03 * 0.5 * (1 + math.cos(math.pi * (step // 12) / 5))
    if PROGRAM == "autoencoder":
        return 3e-3 * min(1.0, 0.2 + 0.8 * step / 5)
    return 2e-3


@needs_loop
def test_training(training_runner: Any) -> None:
    host = Host(NAMES, ARGS, PROGRAM)
    run = training_runner.run(host.make_setup, [None], host.step, steps=40, seed=ARGS.seed)
    decrease = None if PROGRAM == "gan" else 0.1
    run.assert_healthy(max_grad_norm=BOUNDS[PROGRAM], min_relative_decrease=decrease)
    optimizer = "g" if PROGRAM == "gan" else None
    run.assert_lr(expected_lr, optimizer=optimizer, rtol=1e-5)


@needs_loop
def test_resume(training_runner: Any) -> None:
    host = Host(NAMES, ARGS, PROGRAM, is_fed=True)
    ARGS.eval_every = 4
    batches = host.draw_batches(16)
    if PROGRAM == "language_model":
        batches = [batches[index : index + 2] for index in range(0, 16, 2)]
    training_runner.assert_resume_equivalent(
        host.make_setup, batches[:8], host.step, save=host.save, load=host.load, steps=8, resume_at=4
    )


@only("language_model")
def test_accumulation(training_runner: Any) -> None:
    host = Host(NAMES, ARGS, PROGRAM, is_fed=True)
    ARGS.warmup = 1

    def make_step(num_parts: int) -> Any:
        waiting: list[Any] = []

        def step(setup: Any, batch: Any) -> Any:
            waiting.append(batch)
            if len(waiting) < num_parts:
                return None
            ARGS.accumulate = num_parts
            loss = host.step(setup, list(waiting))
            waiting.clear()
            return loss

        return step

    ARGS.clip = 1e9
    training_runner.assert_accumulation_equivalent(
        host.make_setup, host.draw_batches(2), make_step, accumulation_steps=2, rtol=1e-3, atol=3e-4
    )


@only("autoencoder")
def test_mixed_precision(training_runner: Any) -> None:
    host = Host(NAMES, ARGS, PROGRAM)
    training_runner.assert_mixed_precision_training(host.make_setup, [None], host.step, steps=30)


LEAKING: list[Any] = []


@needs_loop
@pytest.mark.torch_memory_leak(iterations=5)
def test_steps_keep_nothing() -> None:
    if not LEAKING:
        host = Host(NAMES, ARGS, PROGRAM)
        LEAKING[:] = [host, host.make_setup()]
        for _ in range(3):
            host.step(LEAKING[1], None)
    LEAKING[0].step(LEAKING[1], None)


def test_gradients() -> None:
    model, inputs, loss = build_case()
    model.train()
    assert_gradients_finite(model, inputs, loss)
    assert_all_params_receive_grad(model, inputs, loss)


@pytest.mark.skipif(PROGRAM == "gan", reason="a generator alone has nothing to memorise")
def test_overfits() -> None:
    model, inputs, loss = build_case()
    if PROGRAM == "autoencoder":
        assert_loss_decreases(model, inputs, loss, steps=40, lr=3e-3)
    else:
        assert_overfits_one_batch(model, inputs, loss, steps=150, max_final_ratio=0.3, lr=5e-3)


def test_inference_contract() -> None:
    model, inputs, _ = build_case()
    if PROGRAM == "hf_trainer":
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
    check_inference_contract(model.eval(), inputs)


def test_checkpoint_roundtrip() -> None:
    _, inputs, _ = build_case()
    if PROGRAM == "hf_trainer":
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
    assert_checkpoint_roundtrip(lambda: build_case()[0], inputs)


@only("language_model", "hf_trainer")
def test_padding() -> None:
    model, inputs, _ = build_case()
    ids = inputs if PROGRAM == "language_model" else inputs["input_ids"]
    wrapped = _ByName(model) if PROGRAM == "language_model" else model
    case = {"input_ids": ids[:, :20]}
    if PROGRAM == "hf_trainer":
        case["attention_mask"] = inputs["attention_mask"][:, :20]
    assert_padding_invariant(wrapped.eval(), case)


class _ByName(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> Any:
        return self.model(input_ids)


@only("hf_trainer")
def test_trainer() -> None:
    trainer = catch_trainer()
    trainer.train()
    assert_optimizer_coverage(trainer.model, trainer.optimizer.optimizer)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@only("lightning_trainer")
def test_lightning(training_runner: Any) -> None:
    make_setup, step = from_lightning(
        lambda: NAMES["WaveClassifier"](lr=ARGS.lr, steps=ARGS.steps), epoch_length=15
    )
    run = training_runner.run(make_setup, list(wave_loader()), step, steps=40)
    run.assert_healthy(max_grad_norm=50.0, min_relative_decrease=0.1)
    rates = [torch.optim.AdamW([torch.zeros(1)], lr=ARGS.lr)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(rates[0], max_lr=1e-2, total_steps=60)
    expected = []
    for _ in range(40):
        expected.append(schedule.get_last_lr()[0])
        rates[0].step()
        schedule.step()
    run.assert_lr(expected, rtol=1e-5)


@only("lightning_trainer")
def test_lightning_resume(training_runner: Any) -> None:
    make_setup, step = from_lightning(
        lambda: NAMES["WaveClassifier"](lr=ARGS.lr, steps=ARGS.steps), epoch_length=15
    )
    training_runner.assert_resume_equivalent(make_setup, list(wave_loader()), step)
