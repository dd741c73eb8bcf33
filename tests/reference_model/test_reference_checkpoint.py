from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import torch

from reference_model import ConfigError
from reference_model.checkpoint import CheckpointStore, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_the_best_and_the_last_are_kept_and_pointed_at(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_best=2)
    for step, val_loss in enumerate([3.0, 1.0, 2.0, math.nan, None], start=1):
        store.save({"step": step}, step, val_loss, "periodic")
    assert names(tmp_path) == {
        "step_000002.pt",
        "step_000003.pt",
        "step_000005.pt",
        "best.pt",
        "latest.pt",
        "history.jsonl",
    }
    assert read_checkpoint(tmp_path / "best.pt") == {"step": 2}
    assert read_checkpoint(tmp_path / "latest.pt") == {"step": 5}


def test_a_resumed_store_remembers_what_was_best(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, keep_best=1).save({"step": 1}, 1, 1.0, "periodic")
    CheckpointStore(tmp_path, keep_best=1).save({"step": 2}, 2, 2.0, "periodic")
    assert read_checkpoint(tmp_path / "best.pt") == {"step": 1}


def test_history_tells_why_and_how_good(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, keep_best=1).save({}, 7, 0.5, "max_steps")
    entry = json.loads((tmp_path / "history.jsonl").read_text(encoding="utf-8"))
    assert (entry["step"], entry["val_loss"], entry["reason"]) == (7, 0.5, "max_steps")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"step": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(path, {"step": 2})
    assert names(tmp_path) == {"a.pt"}
    assert read_checkpoint(path) == {"step": 1}


def test_damage_is_found_by_the_hash(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path, keep_best=1).save({"w": torch.zeros(3)}, 1, None, "periodic")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged: its SHA-256"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.pt"):
        read_checkpoint(tmp_path / "a.pt")
