"""The folder that keeps what was recorded, one folder per mutant and seed."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from benchmarks.detection.fault import Mutant

DEFAULT_CACHE = Path(".harness/detection")
RECORD_FILE, EFFECT_FILE, LOG_FILE, RUN_FOLDER = "record.json", "effect.json", "log.txt", "run"
WATCHER_FOLDERS = ("watch", "record")
RECORDER_FILES = ("child.py", "effect.py")
PACKAGES = ("torch", "transformers", "accelerate", "lightning")


@dataclass(frozen=True, slots=True)
class Cell:
    """One mutant with one seed, and the folder in which its record stands.

    Attributes:
        mutant: What was run.
        seed: With which seed.
        folder: Where its record is, or has to be.
    """

    mutant: Mutant
    seed: int
    folder: Path

    @property
    def is_recorded(self) -> bool:
        """Whether there is a record."""
        return (self.folder / RECORD_FILE).is_file()

    def read_record(self) -> dict[str, Any]:
        """What was recorded of the run, with its paths turned to where its files are now."""
        text = (self.folder / RECORD_FILE).read_text(encoding="utf-8")
        made_in = json.loads(text)["folder"]
        found: dict[str, Any] = json.loads(text.replace(made_in, str(self.folder.resolve())))
        return found

    def read_effect(self) -> dict[str, Any]:
        """What the run did, in the measure that mutants and clean runs are compared in."""
        found: dict[str, Any] = json.loads((self.folder / EFFECT_FILE).read_text(encoding="utf-8"))
        return found


class Cache:
    """Finds the folder of every cell.

    The name of a folder tells the text of the program and the source of the watcher, so that a change of
    either makes a new record necessary, and a change of a rule does not.

    Args:
        folder: Where the records stand.
        any_watcher: Whether a record by another version of the watcher will do, where there is no newer one.
    """

    def __init__(self, folder: Path, *, any_watcher: bool = False) -> None:
        self.folder = folder
        self._any_watcher = any_watcher

    def find_cell(self, mutant: Mutant, seed: int) -> Cell:
        """The cell of a mutant and a seed, recorded or not."""
        source = _hash_text("\0".join([mutant.build_source(), *mutant.arguments]))
        parent = self.folder / mutant.program / mutant.fault_id
        cell = Cell(mutant, seed, parent / f"seed{seed}-{source}-{hash_watcher()}")
        if self._any_watcher and not cell.is_recorded:
            others = sorted(parent.glob(f"seed{seed}-{source}-*/{RECORD_FILE}"), key=_read_time)
            if others:
                return Cell(mutant, seed, others[-1].parent)
        return cell

    def store(self, cell: Cell, made: Path) -> None:
        """Moves a new record to its place, and removes the older ones of the same cell."""
        cell.folder.parent.mkdir(parents=True, exist_ok=True)
        stale = f"seed{cell.seed}-*" if cell.folder.name.startswith("seed") else cell.folder.name
        for other in cell.folder.parent.glob(stale):
            shutil.rmtree(other, ignore_errors=True)
        made.rename(cell.folder)


@functools.cache
def hash_watcher() -> str:
    """A hash over everything that decides what is recorded: watcher, recorder and library versions."""
    root = Path(harness.__file__).parent
    paths = [path for folder in WATCHER_FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    paths += [Path(__file__).parent / name for name in RECORDER_FILES]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return _hash_text("\0".join([*texts, *(f"{name} {_find_version(name)}" for name in PACKAGES)]))


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _read_time(path: Path) -> float:
    return path.stat().st_mtime
