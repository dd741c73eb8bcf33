"""Small, quick configurations of the reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reference_model import TrainConfig, build_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeConfig = Callable[..., TrainConfig]

SMALL = {
    "model.width": 16,
    "model.layers": 1,
    "model.heads": 2,
    "max_steps": 4,
    "batch_size": 8,
    "log_every": 1,
    "eval_every": 1000,
    "checkpoint_every": 1000,
    "samples_per_class": 0,
    "device": "cpu",
}


@pytest.fixture
def make_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    """Builds a configuration that trains in a fraction of a second, with changes by dotted key."""
    monkeypatch.delenv("RUN_ID", raising=False)

    def make(changes: dict[str, object] | None = None) -> TrainConfig:
        return build_config({**SMALL, "out": tmp_path / "runs", **(changes or {})})

    return make
