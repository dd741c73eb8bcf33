"""What a run did, in plain values that two runs are compared in; times and paths are left out."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.observation import RunObservation

TIMED_NAME = re.compile(r"time|_s$|per_second|seconds|flos")
MEMORY_NOISE_BYTES = 24 * 2**20


def measure_effect(observation: RunObservation | None, folder: Path) -> dict[str, Any]:
    """The values of one run, by aspect."""
    found: dict[str, Any] = {"files": {}}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found["files"][str(path.relative_to(folder))] = _digest(_read_file(path))
    if observation is None:
        return found
    steps = observation.steps
    deep_steps = observation.deep_steps
    found["losses"] = _digest([[*step.losses, len(step.losses)] for step in steps])
    found["learning rates"] = _digest([step.learning_rates for step in steps])
    found["gradients"] = _digest(
        [[(p.name, p.grad_norm) for p in deep.parameters] for deep in deep_steps]
        + [[step.grad_norm] for step in steps]
    )
    found["parameters"] = _digest(
        [[(p.name, p.fingerprint, p.update_norm) for p in deep.parameters] for deep in deep_steps]
    )
    found["batches"] = _digest(
        [
            [step.batch_shapes for step in steps],
            [deep.batch_fingerprints for deep in deep_steps],
            [
                [loader.fingerprints, [epoch.order for epoch in loader.epochs]]
                for loader in observation.loaders
            ],
        ]
    )
    sizes = [step.rss_bytes for step in steps if step.rss_bytes is not None]
    found["memory growth"] = sizes[-1] - sizes[1] if len(sizes) > 2 else 0  # noqa: PLR2004  the first is warm-up
    return found


def compare_effects(clean: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The aspects in which a run differs from the clean one with the same seed; empty where it does not."""
    changed = []
    for name in sorted(clean.keys() | other.keys()):
        if name == "memory growth":
            if abs(clean.get(name, 0) - other.get(name, 0)) > MEMORY_NOISE_BYTES:
                changed.append(name)
        elif clean.get(name) != other.get(name):
            changed.append(name)
    return changed


def _read_file(path: Path) -> Any:
    """The contents of a file of a known kind, its size 0 or not for others."""
    reader = _READERS.get(path.suffix)
    try:
        return path.stat().st_size > 0 if reader is None else reader(path)
    except Exception as error:  # noqa: BLE001  a file that can't be read is what the program did
        return f"unreadable: {type(error).__name__}"


def _read_csv(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8") as file:
        return [_drop_times(row) for row in csv.DictReader(file)]


def _read_json(path: Path) -> Any:
    return _drop_times(json.loads(path.read_text(encoding="utf-8")))


def _read_json_lines(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_drop_times(json.loads(line)) for line in lines if line]


def _read_checkpoint(path: Path) -> Any:
    return torch.load(path, weights_only=False)


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  late
        load_file,
    )

    return load_file(path)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".pt": _read_checkpoint,
    ".pth": _read_checkpoint,
    ".ckpt": _read_checkpoint,
    ".safetensors": _read_safetensors,
}


def _drop_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(name): _drop_times(part) for name, part in value.items() if not TIMED_NAME.search(str(name))
        }
    if isinstance(value, list):
        return [_drop_times(part) for part in value]
    # A path of the temporary folder is no part of what the run did.
    return "" if isinstance(value, str) and "/" in value else value


def _digest(value: Any) -> str:
    state = hashlib.sha256()
    _add(state, value)
    return state.hexdigest()[:16]


def _add(state: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        state.update(f"{tuple(plain.shape)}{plain.dtype}".encode())
        if plain.numel():
            state.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for name, part in value.items():
            # Lightning keeps the state of its callbacks under texts that hold paths.
            state.update(str(name).partition("{")[0].encode())
            _add(state, part)
    elif isinstance(value, (list, tuple)):
        state.update(f"[{len(value)}".encode())
        for part in value:
            _add(state, part)
    elif isinstance(value, float):
        state.update(("nan" if math.isnan(value) else repr(value)).encode())
    elif isinstance(value, str):
        state.update(b"" if "/" in value else value.encode())
    elif value is None or isinstance(value, (bool, int)):
        state.update(repr(value).encode())
    else:
        state.update(type(value).__name__.encode())
