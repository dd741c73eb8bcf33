"""Records the mutants that have no record yet, each in a forked child of a process that has imported torch."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import harness.record
import harness.watch
from benchmarks.detection.cache import RECORD_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.detection.cache import Cache, Cell

POLL_S = 0.01
# Imported once, before the first fork: they take longer than a run does.
ALWAYS_IMPORTED = ("torch._dynamo", "torch.utils.data", "numpy", "safetensors.torch")
IMPORTED_FOR = {
    "hf_trainer": ("transformers", "transformers.trainer", "transformers.models.llama.modeling_llama"),
    "lightning_trainer": ("lightning",),
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """How programs are run and watched.

    Attributes:
        traced_steps: First steps that are traced, to compare a run with another.
        threads: Of torch.
    """

    traced_steps: int = 0
    threads: int = 1


AS_CHECKED = Conditions()
"""As `harness check` runs and watches a program that it compares with nothing."""


@dataclass(slots=True)
class _Child:
    process: int
    cell: Cell
    folder: Path
    ends_at_s: float


def record_cells(
    cells: Sequence[Cell], cache: Cache, *, jobs: int, limit_s: float, conditions: Conditions = AS_CHECKED
) -> list[str]:
    """Runs every cell that is not recorded yet, and returns a sentence for each that left no record.

    Args:
        cells: What is wanted; those that are recorded already are passed over.
        cache: Where records go.
        jobs: Children at a time.
        limit_s: Seconds after which a child is killed.
        conditions: How programs are run and watched; records under others belong into another cache.
    """
    waiting = [cell for cell in cells if not cell.is_recorded]
    if waiting:
        _import_watcher()
    _import_for({cell.mutant.program for cell in waiting})
    cache.folder.mkdir(parents=True, exist_ok=True)
    (cache.folder / ".gitignore").write_text("*\n", encoding="utf-8")
    running: list[_Child] = []
    failures: list[str] = []
    total, done = len(waiting), 0
    start_s = time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_start(waiting.pop(0), cache, limit_s, conditions))
        for child in list(running):
            failure = _look_after(child, cache)
            if failure is None:
                continue
            running.remove(child)
            done += 1
            if failure:
                failures.append(failure)
            _tell(f"\r{done}/{total} recorded, {time.monotonic() - start_s:.0f} s ")
        time.sleep(POLL_S)
    if total:
        _tell("\n")
    return failures


def _import_for(programs: set[str]) -> None:
    torch.set_num_threads(1)
    wanted = [
        *ALWAYS_IMPORTED,
        *(name for program in sorted(programs) for name in IMPORTED_FOR.get(program, ())),
    ]
    for name in wanted if programs else ():
        try:
            importlib.import_module(name)
        except ImportError:
            # The children will say so themselves, where it matters.
            continue


def _import_watcher() -> None:
    """All of it now: what is edited while records are made must not mix with what was read before."""
    for package in (harness.record, harness.watch):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    importlib.import_module("benchmarks.detection.child")


def _start(cell: Cell, cache: Cache, limit_s: float, conditions: Conditions) -> _Child:
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=cache.folder)).resolve()
    source = cell.mutant.build_source()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _be_child(source, cell, folder, conditions)
    return _Child(process, cell, folder, time.monotonic() + limit_s)


def _be_child(source: str, cell: Cell, folder: Path, conditions: Conditions) -> None:
    code = 1
    try:
        os.setsid()
        from benchmarks.detection.child import run_mutant  # noqa: PLC0415  for the child alone

        run_mutant(source, cell.mutant, cell.seed, folder, conditions)
        code = 0
    except BaseException:  # noqa: BLE001  a forked child must not return into its parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _look_after(child: _Child, cache: Cache) -> str | None:
    """None while the child runs; then what went wrong, empty where nothing did."""
    ended, status = os.waitpid(child.process, os.WNOHANG)
    is_late = not ended and time.monotonic() > child.ends_at_s
    if not ended and not is_late:
        return None
    if is_late:
        os.killpg(child.process, signal.SIGKILL)
        os.waitpid(child.process, 0)
    if (child.folder / RECORD_FILE).is_file():
        cache.store(child.cell, child.folder)
        return ""
    log = child.folder / "log.txt"
    tail = log.read_text(encoding="utf-8", errors="replace")[-800:] if log.is_file() else ""
    shutil.rmtree(child.folder, ignore_errors=True)
    reason = "ran past its limit" if is_late else f"ended with status {status}"
    return f"{child.cell.mutant.name} seed {child.cell.seed} {reason}\n{tail}"


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
