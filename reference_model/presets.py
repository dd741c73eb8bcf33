"""The values that presets (sizes of model and run) and modes (purposes of a run) stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, object]] = {
    "tiny": {
        "model.width": 32,
        "model.layers": 2,
        "max_steps": 400,
        "batch_size": 16,
        "optim.lr": 1e-2,
        "eval_every": 100,
        "checkpoint_every": 100,
    },
    "small": {},
    "medium": {
        "model.width": 128,
        "model.layers": 4,
        "model.dropout": 0.2,
        "max_steps": 2000,
        "optim.lr": 3e-3,
    },
}

MODES: Mapping[str, Mapping[str, object]] = {
    "normal": {},
    "ci": {
        "max_steps": 40,
        "batch_size": 16,
        "log_every": 1,
        "eval_every": 20,
        "checkpoint_every": 20,
        "samples_per_class": 2,
        "data.shift_fraction": 0.0,
        "optim.lr": 1e-2,
    },
    "profile_short": {
        "max_steps": 30,
        "log_every": 1,
        "eval_every": 30,
        "checkpoint_every": 30,
        "samples_per_class": 0,
    },
    "profile_eval": {"samples_per_class": 0},
}
