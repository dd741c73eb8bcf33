"""This project's own smoke trainings: what `nox -s ci_cpu` and `nox -s ci_gpu` run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from harness import (
    assert_artifacts,
    assert_finite,
    assert_healthy,
    assert_loss_decreases,
    assert_matches_baseline,
)
from reference_model import build_config, train

if TYPE_CHECKING:
    from pathlib import Path

    from harness import SmokeTraining, TrainingRun

pytestmark = pytest.mark.serial

ARTIFACTS = (
    "config.yaml",
    "environment.json",
    "metrics.csv",
    "checkpoints/*.pt",
    "logs/*.log",
    "samples/*.png",
)


@pytest.mark.smoke_training(devices=["cpu"], seed=0)
@pytest.mark.budget(wall_clock_s=60, step_time=0.4, throughput=0.4, final_loss=0.02)
def test_reference_model_trains(smoke_training: SmokeTraining, tmp_path: Path) -> None:
    assert_matches_baseline(check_training(smoke_training, tmp_path))


# Absolute limits only, until a GPU runner has accepted baselines of its own.
@pytest.mark.smoke_training(devices=["cuda"], seed=0)
@pytest.mark.budget(wall_clock_s=120, max_final_loss=1.65)
def test_reference_model_trains_on_a_gpu(smoke_training: SmokeTraining, tmp_path: Path) -> None:
    check_training(smoke_training, tmp_path)


def check_training(smoke_training: SmokeTraining, tmp_path: Path) -> TrainingRun:
    config = build_config({"mode": "ci", "out": tmp_path, "run_id": "ci", "device": smoke_training.device})
    run = smoke_training.options(run_dir=tmp_path / "ci", metrics="metrics.csv")(train, config)
    assert_finite(run)
    assert_loss_decreases(run, min_drop=0.3)
    assert_healthy(run)
    assert_artifacts(run, *ARTIFACTS)
    return run


@pytest.mark.smoke_training
@pytest.mark.budget(wall_clock_s=90, step_time=0.4, peak_memory=0.25, final_loss=0.02)
def test_reference_model_trains_as_a_command(smoke_training: SmokeTraining, tmp_path: Path) -> None:
    training = smoke_training.options(run_dir=tmp_path / "ci", metrics="metrics.csv")
    command = [sys.executable, "-m", "reference_model", "--mode", "ci", "--device", smoke_training.device]
    run = training.command([*command, "--out", tmp_path, "--run_id", "ci"])
    assert_healthy(run)
    assert_matches_baseline(run)
    assert_artifacts(run, *ARTIFACTS)
    assert_matches_baseline(run)


@pytest.mark.smoke_training(devices=["cpu", "cuda"])
@pytest.mark.profile_capture(wait=2, warmup=1, active=2)
def test_reference_model_leaves_a_trace(smoke_training: SmokeTraining, tmp_path: Path) -> None:
    config = build_config(
        {"mode": "ci", "out": tmp_path, "run_id": "ci", "device": smoke_training.device, "max_steps": 8}
    )
    run = smoke_training.options(run_dir=tmp_path / "ci")(train, config)
    assert_finite(run)
    if run.is_profiled:
        assert_artifacts(run, "traces/*.json.gz")
