"""Reads the metrics files of a run row by row, as they stand: nothing is merged, and defects are told."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.record.history import STEP_NAMES, as_number

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDINGS = (".csv", ".jsonl", ".ndjson")
AXES = (*STEP_NAMES, "epoch")
NAMES = ("metric", "log", "loss", "train", "history", "progress", "result")
"""Parts of names of files that are logs even when nothing can be read in them."""
LEFT_OUT = ("node_modules", "site-packages", "__pycache__", "venv")
MAX_ENTRIES = 20_000
MAX_FILES = 16
MAX_BYTES = 16 * 2**20
MAX_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class LogFile:
    """One metrics file that a run wrote.

    Attributes:
        path: Where it is.
        rows: Its rows in order, numbers as such and other cells as text; without empty cells.
        defects: What can't be read, each with its line: at most the first few.
        is_cut_off: Whether its last line is the only one that can't be read, as when a writer is stopped.
    """

    path: Path
    rows: list[dict[str, float | str]] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    is_cut_off: bool = False


def read_log_files(run_dir: Path, since: str) -> list[LogFile]:
    """The metrics files under a directory that were written at or after a moment.

    A metrics file is a CSV or JSON lines file with a column for the step or epoch and another one with numbers, or
    one that can't be read and has the name of a log. Hidden directories and those of packages are left out, files
    of more than 16 MiB too; at most 16 are read.

    Args:
        run_dir: Where to look; a directory that is not there has none.
        since: The moment, as `2026-11-02T10:15:30+00:00`; to the second.
    """
    try:
        since_s = clock.read_utc_s(since)
    except ValueError:
        return []
    found: list[LogFile] = []
    for path in _list_files(run_dir):
        status = path.stat()
        if status.st_mtime < since_s - 1 or status.st_size > MAX_BYTES:
            continue
        file = read_log_file(path)
        has_log_name = any(word in path.stem.lower() for word in NAMES)
        if _is_log(file) or (has_log_name and file.defects and not file.rows):
            found.append(file)
        if len(found) == MAX_FILES:
            break
    return found


def read_log_file(path: Path) -> LogFile:
    """The rows of one file, and what can't be read in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return LogFile(path, defects=[str(error)])
    if not text.strip():
        return LogFile(path, defects=["the file is empty"])
    read = _read_csv if path.suffix.lower() == ".csv" else _read_json_lines
    rows: list[dict[str, float | str]] = []
    defects: list[tuple[int, str]] = []
    last = 0
    try:
        for number, row in read(text):
            last = number
            if isinstance(row, str):
                defects.append((number, row))
            elif row and len(rows) < MAX_ROWS:
                rows.append(row)
    except csv.Error as error:
        defects.append((last, str(error)))
    if not rows and not defects:
        defects.append((1, "there is a header and no row"))
    return LogFile(
        path,
        rows,
        [f"line {number}: {text}" for number, text in defects[:3]],
        is_cut_off=[number for number, _ in defects] == [last] and bool(rows),
    )


def _list_files(run_dir: Path) -> Iterator[Path]:
    num_entries = 0
    for folder, folders, names in os.walk(run_dir):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in LEFT_OUT)
        num_entries += len(names) + len(folders)
        if num_entries > MAX_ENTRIES:
            return
        yield from (Path(folder, name) for name in sorted(names) if name.lower().endswith(ENDINGS))


def _is_log(file: LogFile) -> bool:
    names = {name for row in file.rows[:100] for name, value in row.items() if isinstance(value, float)}
    return len(names) > 1 and any(name.strip().lower() in AXES for name in names)


def _read_csv(text: str) -> Iterator[tuple[int, dict[str, float | str] | str]]:
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(header):
            yield reader.line_num, f"{len(cells)} cells under {len(header)} column names"
            continue
        filled = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
        yield reader.line_num, {name: _read_cell(cell) for name, cell in filled.items()}


def _read_json_lines(text: str) -> Iterator[tuple[int, dict[str, float | str] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, str(error)
            continue
        if not isinstance(row, dict):
            yield number, f"a JSON object is needed, not {type(row).__name__}"
            continue
        yield number, {str(name): _read_value(value) for name, value in row.items() if value is not None}


def _read_cell(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _read_value(value: Any) -> float | str:
    if isinstance(value, str):
        return value
    number = as_number(value)
    return json.dumps(value) if number is None else number
