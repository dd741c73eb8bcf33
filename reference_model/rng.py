"""The random states of a process: seeding, saving, restoring."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

RngState = dict[str, Any]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is what a library might draw from
    torch.manual_seed(seed)


def capture_rng() -> RngState:
    """Every global random state, as plain values that a checkpoint can hold."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - see seed_everything
    return {
        "python": random.getstate(),
        "numpy": [name, [int(key) for key in keys], *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng(state: RngState) -> None:
    """Continue every random state from `capture_rng`'s result."""
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002 - see seed_everything
    torch.set_rng_state(state["torch"])
    # A run that moves to fewer devices continues the ones it has.
    for device in range(min(len(state["cuda"]), torch.cuda.device_count())):
        torch.cuda.set_rng_state(state["cuda"][device], device)
