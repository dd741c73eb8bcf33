from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from harness.record.observation import Outcome
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def import_framework(name: str) -> Any:
    """A framework; without it the test is skipped, but for `nox -s frameworks`, which installs all of them."""
    if os.environ.get("HARNESS_TEST_FRAMEWORKS") == "required":
        return importlib.import_module(name)
    return pytest.importorskip(name)


def train_with_lightning(folder: Path) -> tuple[list[float], Any]:
    lightning = import_framework("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
            self.seen: list[float] = []

        def training_step(self, batch: Any, _index: int) -> torch.Tensor:
            loss = cross_entropy(self.net(batch[0]), batch[1])
            self.seen.append(loss.item())
            return loss

        def validation_step(self, batch: Any, _index: int) -> None:
            cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    lightning.seed_everything(0)
    data = TensorDataset(torch.randn(64, 8), torch.randint(0, 4, (64,)))
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, accumulate_grad_batches=2, gradient_clip_val=0.5, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=8))
    return module.seen, trainer


def test_lightning_is_watched(tmp_path: Path) -> None:
    unwatched, _ = train_with_lightning(tmp_path / "a")
    with Observer() as observer:
        watched, _ = train_with_lightning(tmp_path / "b")
    assert watched == unwatched
    run = observer.observation
    assert not run.not_seen
    pairs = zip(watched[::2], watched[1::2], strict=True)
    assert run.losses == pytest.approx([(first + second) / 2 for first, second in pairs])
    assert {(step.num_micro_batches, step.num_samples, step.num_closure_calls) for step in run.steps} == {
        (2, 16, 1)
    }
    assert all(step.grad_norm for step in run.steps)
    assert run.schedulers[0].num_steps == len(run.steps) == 12
    assert [seen.after_step for seen in run.evaluations] == [0, 4, 8, 12]
    assert {seen.num_in_training_mode for seen in run.evaluations} == {0}
    assert run.deep_steps[1].loss_functions[0].scale == 0.5
    assert all(str(checkpoint.path).endswith(".ckpt") for checkpoint in run.checkpoints)


def test_lightning_stops_in_its_own_way(tmp_path: Path) -> None:
    with Observer(ObserverOptions(max_steps=5)) as observer:
        _, trainer = train_with_lightning(tmp_path)
    assert (trainer.global_step, trainer.should_stop) == (5, True)
    assert observer.observation.outcome is Outcome.STOPPED
    assert len(observer.observation.steps) == 5


class Tokens(Dataset[dict[str, torch.Tensor]]):
    def __init__(self) -> None:
        self.tokens = torch.randint(0, 50, (32, 12), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def train_with_transformers(folder: Path) -> tuple[list[float], Any]:
    transformers = import_framework("transformers")
    import_framework("accelerate")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, gradient_accumulation_steps=2, num_train_epochs=2,
        logging_steps=1, report_to=[], disable_tqdm=True, use_cpu=True, save_steps=4, eval_strategy="epoch",
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Tokens(), eval_dataset=Tokens())
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], trainer


def test_hugging_face_trainer_is_watched(tmp_path: Path) -> None:
    unwatched, _ = train_with_transformers(tmp_path / "a")
    with Observer() as observer:
        watched, _ = train_with_transformers(tmp_path / "b")
    assert watched == unwatched
    run = observer.observation
    assert not run.not_seen
    assert run.losses == pytest.approx(watched, rel=1e-6)
    assert {(step.num_samples, step.num_tokens, step.sequence_length) for step in run.steps} == {(8, 96, 12)}
    assert run.schedulers[0].num_steps == len(run.steps) == 8
    assert "transformer.h.0.ln_1.weight" in run.optimizers[0].groups[1].parameters
    assert any(str(checkpoint.path).endswith("model.safetensors") for checkpoint in run.checkpoints)
    assert len(run.evaluations) == 2


def test_hugging_face_trainer_stops_in_its_own_way(tmp_path: Path) -> None:
    with Observer(ObserverOptions(max_steps=3)) as observer:
        _, trainer = train_with_transformers(tmp_path)
    assert trainer.state.global_step == len(observer.observation.steps) == 3
    assert observer.observation.outcome is Outcome.STOPPED


def train_with_accelerate() -> list[float]:
    accelerate = import_framework("accelerate")
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    data = TensorDataset(torch.randn(32, 8), torch.randint(0, 4, (32,)))
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    loader = DataLoader(data, batch_size=4, shuffle=True)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    losses = []
    for batch, labels in loader:
        with accelerator.accumulate(model):
            loss = cross_entropy(model(batch), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_accelerate_is_watched() -> None:
    unwatched = train_with_accelerate()
    with Observer() as observer:
        watched = train_with_accelerate()
    assert watched == unwatched
    run = observer.observation
    assert run.losses == pytest.approx(
        [(a + b) / 2 for a, b in zip(watched[::2], watched[1::2], strict=True)]
    )
    assert all(step.grad_norm and step.num_samples == 8 for step in run.steps)
    assert run.schedulers[0].num_steps == 4
