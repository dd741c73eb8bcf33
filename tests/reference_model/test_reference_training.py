from __future__ import annotations

import csv
import json
import logging
import math
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from reference_model import ConfigError, TrainConfig, TrainingError, build_config, train
from reference_model.metrics import COLUMNS, MetricsFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reference_model import TrainResult

    MakeConfig = Callable[..., TrainConfig]


def losses(result: TrainResult) -> list[float]:
    return [float(row["train/loss"]) for row in result.history if row["split"] == "train"]


def spoil_loss(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the training loss NaN at the given steps, counted from 1."""
    calls = 0
    cross_entropy = F.cross_entropy

    def spoiled(logits: torch.Tensor, targets: torch.Tensor, **options: object) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        loss: torch.Tensor = cross_entropy(logits, targets, **options)  # type: ignore[arg-type]
        return loss * math.nan if torch.is_grad_enabled() and calls in steps else loss

    monkeypatch.setattr(F, "cross_entropy", spoiled)


@pytest.fixture(scope="module")
def ci_run(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    out = tmp_path_factory.mktemp("ci")
    return train(build_config({"mode": "ci", "out": out, "run_id": "ci", "device": "cpu"}))


def test_ci_run_learns(ci_run: TrainResult) -> None:
    assert ci_run.steps == len(losses(ci_run)) == 40
    assert losses(ci_run)[0] == pytest.approx(math.log(27), abs=1e-3)
    # Targets shuffled among the images of a batch end at 1.78: see docs/reference-model.md.
    assert ci_run.train_loss_smoothed < 1.65
    assert ci_run.val_bits_per_token < 2.3


def test_ci_run_leaves_every_file_of_the_record(ci_run: TrainResult) -> None:
    run_dir = ci_run.run_dir
    assert {path.name for path in run_dir.iterdir()} >= {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "logs",
        "checkpoints",
        "traces",
        "samples",
    }
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {
        "best.pt",
        "latest.pt",
        "history.jsonl",
        "step_000020.pt",
        "step_000040.pt",
    }
    assert yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))["run_id"] == "ci"
    environment = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
    # A build's local label, as in 2.6.0+cu124, need not be in the package's own version.
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert len(environment["data"]["sha256"]) == 64
    assert ci_run.samples is not None
    with Image.open(ci_run.samples) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 300


def test_metrics_file_has_one_row_per_step_and_evaluation(ci_run: TrainResult) -> None:
    with (ci_run.run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows if row["split"] == "train"] == list(range(1, 41))
    assert [int(row["step"]) for row in rows if row["split"] == "val"] == [20, 40]
    for row in rows:
        wanted = [
            name for name in COLUMNS if name.startswith(("train/", "throughput/", "time/", "memory/peak"))
        ]
        if row["split"] == "val":
            wanted = [name for name in COLUMNS if name.startswith("val/")]
        assert all(math.isfinite(float(row[name])) for name in wanted)


def test_log_has_fixed_events_with_the_runs_identity(ci_run: TrainResult) -> None:
    text = (ci_run.run_dir / "logs" / "train_rank0.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["event"] for line in lines} == {
        "config",
        "environment",
        "data",
        "epoch_start",
        "train_step_end",
        "eval_end",
        "checkpoint_saved",
        "samples_saved",
        "run_end",
    }
    assert {(line["run_id"], line["rank"]) for line in lines} == {("ci", 0)}
    assert all({"time", "level", "host", "local_rank"} <= line.keys() for line in lines)
    steps = [line for line in lines if line["event"] == "train_step_end"]
    assert [line["loss"] for line in steps] == losses(ci_run)


def test_checkpoint_holds_everything_a_run_is_made_of(ci_run: TrainResult) -> None:
    assert ci_run.checkpoint is not None
    payload = torch.load(ci_run.checkpoint, weights_only=True)
    parts = {"model", "optimizer", "scheduler", "scaler", "ema", "rng", "data_position", "progress", "step"}
    record = {"epoch", "best_val_loss", "config", "data", "torch", "commit", "time", "run_id", "format"}
    assert payload.keys() == parts | record
    assert payload["step"] == 40
    assert payload["best_val_loss"] == pytest.approx(ci_run.val_loss)


def test_handlers_and_threads_are_given_back(make_config: MakeConfig) -> None:
    threads = torch.get_num_threads()
    train(make_config({"num_threads": threads + 1}))
    assert logging.getLogger("reference_model").handlers == []
    assert torch.get_num_threads() == threads


def test_same_seed_gives_bit_identical_losses_and_another_seed_others(make_config: MakeConfig) -> None:
    first, again, other = (train(make_config({"seed": seed})) for seed in (1, 1, 2))
    assert losses(first) == losses(again)
    assert losses(first)[1:] != losses(other)[1:]
    assert first.run_id != again.run_id


def test_resumed_run_is_bit_exact(make_config: MakeConfig) -> None:
    changes: dict[str, object] = {
        "max_steps": 10,
        "model.dropout": 0.3,
        "checkpoint_every": 5,
        "eval_every": 5,
    }
    straight = train(make_config({**changes, "run_id": "straight"}))
    half = straight.run_dir / "checkpoints" / "step_000005.pt"
    resumed = train(make_config({**changes, "run_id": "resumed", "resume": half}))
    assert losses(resumed) == losses(straight)[5:]
    assert resumed.val_loss == straight.val_loss
    assert straight.checkpoint is not None
    assert resumed.checkpoint is not None
    ends = [torch.load(path, weights_only=True) for path in (straight.checkpoint, resumed.checkpoint)]
    for part in ("model", "ema"):
        flat = [torch.cat([t.flatten() for t in (e[part].get("weights") or e[part]).values()]) for e in ends]
        assert torch.equal(*flat)
    assert ends[0]["data_position"] == ends[1]["data_position"]


def test_resuming_continues_the_same_run_without_repeating_rows(make_config: MakeConfig) -> None:
    first = train(make_config({"max_steps": 6, "checkpoint_every": 4, "run_id": "run", "eval_every": 4}))
    half = first.run_dir / "checkpoints" / "step_000004.pt"
    resumed = train(make_config({"max_steps": 6, "resume": half}))
    assert resumed.run_dir == first.run_dir
    with (resumed.run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 4, 5, 6, 6]


def test_run_directory_can_be_resumed_from(make_config: MakeConfig) -> None:
    first = train(make_config({"max_steps": 2}))
    assert train(make_config({"max_steps": 3, "resume": first.run_dir})).steps == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.width": 32}, "model.width is 32 and was 16"),
        ({"max_steps": 2}, "nothing is left to train; raise --max_steps"),
        ({"data.path": "text.txt"}, "data is .*text.txt and was scikit-learn digits"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    (tmp_path / "text.txt").write_bytes(b"abcd" * 1000)
    first = train(make_config({"max_steps": 2}))
    if "data.path" in changes:
        changes = {**changes, "data.path": tmp_path / "text.txt"}
    with pytest.raises(ConfigError, match=message):
        train(make_config({"resume": first.run_dir, **changes}))


def test_a_refused_run_leaves_no_directory(make_config: MakeConfig) -> None:
    config = make_config({"batch_size": 5000})
    with pytest.raises(ConfigError, match="larger than the 1500 training sequences"):
        train(config)
    assert not config.out.exists()


def test_run_id_comes_from_the_environment_and_is_not_used_twice(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_ID", "from-ci")
    assert train(make_config({"max_steps": 1})).run_dir.name == "from-ci"
    with pytest.raises(ConfigError, match="'from-ci' exists already"):
        train(make_config({"max_steps": 1}))
    assert train(make_config({"max_steps": 1, "run_id": "own"})).run_dir.name == "own"


def test_accumulated_micro_batches_equal_one_batch(make_config: MakeConfig, tmp_path: Path) -> None:
    # The last window of the text is padded, so its micro-batch has fewer tokens than the others.
    (tmp_path / "text.txt").write_bytes(bytes(range(97, 123)) * 6 + b"xyz")
    changes: dict[str, object] = {
        "model.dropout": 0.0,
        "data.path": tmp_path / "text.txt",
        "data.context": 20,
        "max_steps": 6,
        "batch_size": 4,
    }
    whole = train(make_config(changes))
    cut = train(make_config({**changes, "accumulation_steps": 4}))
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-5)


def test_step_with_a_non_finite_loss_is_skipped_and_training_goes_on(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, {1, 3})
    result = train(make_config({"max_steps": 5}))
    assert [math.isnan(loss) for loss in losses(result)] == [True, False, True, False, False]
    assert math.isfinite(result.val_loss)
    last = [row for row in result.history if row["split"] == "train"][-1]
    assert last["train/nonfinite_steps"] == 2


def test_too_many_non_finite_steps_in_a_row_end_the_run(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, {2, 3, 4})
    with pytest.raises(TrainingError, match=r"not finite in 3 steps in a row, up to step 4"):
        train(make_config({"max_steps": 6, "max_nonfinite_steps": 2}))


def test_time_limit_ends_the_run_with_validation_and_checkpoint(make_config: MakeConfig) -> None:
    result = train(make_config({"max_steps": 10**6, "max_duration_seconds": 0.05}))
    assert result.stop_reason == "max_duration"
    assert 0 < result.steps < 10**6
    assert math.isfinite(result.val_loss)
    assert result.checkpoint is not None


def test_patience_ends_a_run_that_no_longer_improves(make_config: MakeConfig) -> None:
    result = train(make_config({"optim.lr": 0, "eval_every": 1, "patience": 2, "max_steps": 50}))
    assert (result.stop_reason, result.steps) == ("patience", 3)


def test_text_is_learned_and_generated(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"the quick brown fox jumps over the lazy dog. " * 100)
    changes = {"data.path": tmp_path / "text.txt", "data.context": 32, "max_steps": 30, "optim.lr": 0.02}
    result = train(make_config({**changes, "samples_per_class": 2}))
    assert result.val_loss < 0.7 * math.log(256)
    assert result.samples is not None
    assert len(result.samples.read_text(encoding="utf-8").split("\n---\n")) == 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_close_to_full(make_config: MakeConfig, precision: str) -> None:
    full, lower = (
        train(make_config({"precision": name, "model.dropout": 0})) for name in ("fp32", precision)
    )
    assert losses(lower) == pytest.approx(losses(full), rel=0.02)
    assert losses(lower) != losses(full)


def test_short_profile_leaves_a_compressed_trace(make_config: MakeConfig) -> None:
    result = train(make_config({"mode": "profile_short", "max_steps": 22}))
    (trace,) = (result.run_dir / "traces").glob("*.json.gz")
    assert trace.read_bytes()[:2] == b"\x1f\x8b"


def test_evaluation_profile_trains_no_step(make_config: MakeConfig) -> None:
    result = train(make_config({"mode": "profile_eval"}))
    assert (result.steps, result.stop_reason) == (0, "profile_eval")
    assert len(list((result.run_dir / "traces").glob("*.json.gz"))) == 1
    assert math.isfinite(result.val_loss)


def test_profile_of_a_checkpoint_leaves_its_run_alone(make_config: MakeConfig) -> None:
    first = train(make_config())
    before = {path: path.read_bytes() for path in first.run_dir.rglob("*.*") if path.is_file()}
    profiled = train(make_config({"mode": "profile_eval", "resume": first.run_dir}))
    assert profiled.run_dir != first.run_dir
    assert profiled.val_loss == first.val_loss
    assert {path: path.read_bytes() for path in first.run_dir.rglob("*.*") if path.is_file()} == before


def test_cuda_is_refused_where_there_is_none(make_config: MakeConfig) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        train(make_config({"device": "cuda"}))


def test_metric_outside_the_schema_is_refused(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv")
    with pytest.raises(ValueError, match="outside the schema: loss"):
        metrics.write(1, "train", {"loss": 1.0})
    metrics.close()
