"""Writes what is seen to a file of JSON lines, step by step, so that a crash leaves what came before it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from harness.record.recording import PATTERN, SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from harness.record.deep import DeepObservation
    from harness.record.observation import RunObservation, StepObservation


class RecordFile:
    """The record of this process; there is no file before something is worth writing.

    Lines go to the system one by one, without a buffer of ours, so that not even SIGKILL loses them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = os.getpid()
        self._file: int | None = None
        self._num_steps = 0

    def write_step(self, step: StepObservation, deep: DeepObservation | None) -> None:
        """Takes one step."""
        self._num_steps += 1
        self._write({"step": step.to_json()})
        if deep is not None:
            self._write({"deep": deep.to_json()})

    def write_run(self, run: RunObservation, *, is_last: bool) -> None:
        """Takes what is known of the run; a process that trained nothing speaks only if no other did."""
        if not is_last or self._num_steps or not any(self._folder.glob(PATTERN)):
            self._write({"run": run.to_json(with_steps=False), "is_last": is_last, "schema": SCHEMA})

    def close(self) -> None:
        """Gives the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, entry: dict[str, Any]) -> None:
        if os.getpid() != self._process:
            return
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"rank{os.environ.get('RANK', '0')}-{self._process}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self._folder / name, flags, 0o644)
        os.write(self._file, (json.dumps(entry, default=str) + "\n").encode())
