"""Checkpoints: written whole or not at all, kept by loss; `best.pt` and `latest.pt` point at them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

import torch

from reference_model.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Payload = dict[str, Any]


def write_checkpoint(path: Path, payload: Payload) -> str:
    """Write the payload through a temporary file, synced before it takes its name; returns its SHA-256."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_checkpoint(path: Path) -> Payload:
    """The payload of a checkpoint file, or of the latest one of a run directory, with tensors on the CPU.

    Raises:
        ConfigError: if there is no such file, it is damaged, or it differs from the hash in its history.
    """
    file = path / "checkpoints" / "latest.pt" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(f"no checkpoint to resume from at {file}")
    file = file.resolve()
    recorded = {entry["file"]: entry["sha256"] for entry in _read_history(file.parent)}.get(file.name)
    if recorded is not None and recorded != hashlib.sha256(file.read_bytes()).hexdigest():
        raise ConfigError(
            f"checkpoint {file} is damaged: its SHA-256 is not the one in {_history_of(file.parent)}"
        )
    try:
        payload: Payload = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise ConfigError(f"{file} is not a checkpoint of this program: {error}") from error
    return payload


class CheckpointStore:
    """The checkpoints of one run: the latest, and the `keep_best` of lowest validation loss."""

    def __init__(self, directory: Path, keep_best: int) -> None:
        self.directory = directory
        self.keep_best = keep_best
        self._saved = [entry for entry in _read_history(directory) if (directory / entry["file"]).exists()]

    def save(self, payload: Payload, step: int, val_loss: float | None, reason: str) -> Path:
        """Write one checkpoint, move the pointers, and delete what is no longer to be kept.

        Args:
            payload: what to save.
            step: optimizer steps taken; names the file.
            val_loss: validation loss at this very step; None and NaN never count as best.
            reason: why it was saved, for the history.
        """
        path = self.directory / f"step_{step:06d}.pt"
        sha256 = write_checkpoint(path, payload)
        entry = {"file": path.name, "step": step, "val_loss": val_loss, "reason": reason, "sha256": sha256}
        with _history_of(self.directory).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._saved = [saved for saved in self._saved if saved["file"] != path.name] + [entry]
        judged = [saved for saved in self._saved if math.isfinite(saved["val_loss"] or math.nan)]
        judged.sort(key=lambda saved: saved["val_loss"])
        best = [saved["file"] for saved in judged[: self.keep_best]]
        _point(self.directory / "latest.pt", path.name)
        if best:
            _point(self.directory / "best.pt", best[0])
        for saved in self._saved:
            if saved["file"] not in {*best, path.name}:
                (self.directory / saved["file"]).unlink(missing_ok=True)
        self._saved = [saved for saved in self._saved if saved["file"] in {*best, path.name}]
        return path


def _history_of(directory: Path) -> Path:
    return directory / "history.jsonl"


def _read_history(directory: Path) -> list[dict[str, Any]]:
    history = _history_of(directory)
    if not history.exists():
        return []
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]


def _point(pointer: Path, name: str) -> None:
    """Make `pointer` lead to `name` beside it: a link, or a copy where there are no links."""
    temporary = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(name)
    except OSError:
        shutil.copyfile(pointer.with_name(name), temporary)
    temporary.replace(pointer)
