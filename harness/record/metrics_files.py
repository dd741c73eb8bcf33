"""Reads the metrics files that programs write: CSV and JSON lines."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import MetricsFileError
from harness.record.artifacts import find_artifacts
from harness.record.history import build_steps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.record.run import Step

DEFAULT_PATTERNS = ("**/metrics.csv", "**/metrics.jsonl")
NON_FINITE = {"nan", "inf", "-inf", "+inf", "infinity", "-infinity"}


class Stamp(NamedTuple):
    """What changes when a file is written: inode, size in bytes and time of the last change."""

    inode: int
    size_bytes: int
    changed_ns: int


def stamp_metrics_files(run_dir: Path, pattern: str | None) -> dict[Path, Stamp]:
    """The metrics files that are there before a run, so that none of them is read as the run's own."""
    patterns = (pattern,) if pattern else DEFAULT_PATTERNS
    return {path: _stamp(path) for each in patterns for path in find_artifacts(run_dir, each)}


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def find_metrics_file(run_dir: Path, pattern: str | None, *, before: Mapping[Path, Stamp]) -> Path | None:
    """The metrics file of a run: the one match of `pattern`, else of `metrics.csv` or `metrics.jsonl`.

    Args:
        run_dir: Directory to search, with its subdirectories.
        pattern: Glob relative to `run_dir`; None searches for the usual names.
        before: The files that were there before the run; those it did not write again are left out.

    Returns:
        The file; None when `pattern` is None and there is none.

    Raises:
        MetricsFileError: Several files match, or none matches a pattern that was asked for.
    """
    seen = stamp_metrics_files(run_dir, pattern)
    found = [path for path, stamp in seen.items() if stamp != before.get(path)]
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(run_dir)) for path in found[:5])
        raise MetricsFileError(
            f"{len(found)} metrics files match under {run_dir}: {names}.\n"
            'Next: name one: smoke_training(metrics="run/metrics.csv") on the marker, or --metrics run/metrics.csv.'
        )
    if not found and pattern:
        stale = f"; {len(seen)} that the run did not write were left out" if seen else ""
        raise MetricsFileError(
            f"no metrics file matches {pattern!r} under {run_dir}{stale}.\n"
            "Next: check where the program writes it, and that the run directory is the right one."
        )
    return found[0] if found else None


def read_metrics_file(path: Path) -> list[Step]:
    """The steps in a CSV or JSON lines file, rows of one step merged.

    Empty cells are values that were not logged. `nan` and `inf` are read as such.

    Raises:
        MetricsFileError: The file is missing, has another ending, no row, or a row that can't be parsed;
            names the line.
    """
    readers = {".csv": _read_csv_rows, ".jsonl": _read_json_rows, ".ndjson": _read_json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise MetricsFileError(
            f"metrics file {path} is neither CSV nor JSON lines.\nNext: name a .csv or .jsonl file."
        )
    try:
        rows = reader(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MetricsFileError(
            f"metrics file {path} can't be read: {error}.\nNext: look at what the program wrote there."
        ) from error
    steps = build_steps(rows)
    if not steps:
        raise MetricsFileError(
            f"metrics file {path} holds no row with a number.\n"
            "Next: check that the program logs at least every few steps in this mode."
        )
    return steps


def _read_csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, row) for row in reader if row]
    for number, row in lines:
        if len(row) != len(header):
            raise _unparsable(path, number, f"{len(row)} cells under {len(header)} column names")
    numeric = {
        column
        for column, name in enumerate(header)
        if name and any(_parse_cell(row[column]) is not None for _, row in lines)
    }
    rows = []
    for number, row in lines:
        cells = {header[column]: row[column].strip() for column in sorted(numeric) if row[column].strip()}
        values = {name: _parse_cell(cell) for name, cell in cells.items()}
        for name, value in values.items():
            if value is None:
                raise _unparsable(path, number, f"{cells[name]!r} in column {name!r} is not a number")
        rows.append(values)
    return rows


def _parse_cell(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _read_json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _unparsable(path, number, str(error)) from error
        if not isinstance(row, dict):
            raise _unparsable(path, number, f"a JSON object is needed, not {type(row).__name__}")
        rows.append({name: _number_in_text(value) for name, value in row.items()})
    return rows


def _number_in_text(value: object) -> object:
    """Strict JSON has no NaN, so some writers put it in quotes."""
    return float(value) if isinstance(value, str) and value.strip().lower() in NON_FINITE else value


def _unparsable(path: Path, line: int, reason: str) -> MetricsFileError:
    return MetricsFileError(
        f"metrics file {path} can't be parsed at line {line}: {reason}.\n"
        "Next: look at that line; was the program stopped while writing, or do two writers share the file?"
    )
