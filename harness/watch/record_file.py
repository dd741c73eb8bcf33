"""Writes what is seen to a file of JSON lines, step by step, so that a crash leaves what came before it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Any

from harness.record.recording import PATTERN, SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from harness.record.deep import DeepObservation
    from harness.record.observation import RunObservation
    from harness.record.step_observation import StepObservation


ROOM_BYTES = 256


class RecordFile:
    """The record of this process; there is no file before something is worth writing.

    Lines go to the system one by one, without a buffer of ours, so that not even SIGKILL loses them. The first
    that can't be written whole is the last: the room kept at the beginning then takes the reason, which needs
    no more of a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = os.getpid()
        self._file: int | None = None
        self._num_steps = 0
        self._room_at = 0
        self._is_full = False

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
        if self._is_full or os.getpid() != self._process:
            return
        line = (json.dumps(entry, default=str) + "\n").encode()
        try:
            if self._file is None:
                self._file = self._open()
            self._append(self._file, line)
        except OSError as error:
            self._is_full = True
            self._note_full(error)
            raise

    @property
    def _path(self) -> Path:
        return self._folder / f"rank{os.environ.get('RANK', '0')}-{self._process}.jsonl"

    def _open(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        # A process that has become another program by `os.exec` goes on in its file.
        self._room_at = os.fstat(file).st_size
        self._append(file, b" " * (ROOM_BYTES - 1) + b"\n")
        return file

    def _append(self, file: int, line: bytes) -> None:
        num_written = os.write(file, line)
        if num_written < len(line):
            raise OSError(errno.ENOSPC, f"{num_written} of {len(line)} bytes could be written")

    def _note_full(self, error: OSError) -> None:
        note = json.dumps({"not_seen": f"steps from here on: the record can't be written: {error.strerror}"})
        # Not through our own descriptor: what is open to append is written to at its end only.
        with contextlib.suppress(OSError), self._path.open("r+b") as file:
            file.seek(self._room_at)
            file.write(note.encode()[: ROOM_BYTES - 1])
