"""The metrics file: one schema for every run, one row per logging event, written by rank 0."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLUMNS = (
    "step",
    "split",
    "epoch",
    "train/loss",
    "train/loss_smoothed",
    "train/lr",
    "train/grad_norm",
    "train/nonfinite_steps",
    "val/loss",
    "val/bits_per_token",
    "val/perplexity",
    "val/accuracy",
    "time/step_s",
    "time/data_s",
    "time/elapsed_s",
    "throughput/tokens_per_s",
    "throughput/samples_per_s",
    "memory/peak_rss_bytes",
    "memory/allocated_bytes",
)

Row = dict[str, int | float | str]


class MetricsFile:
    """Appends rows to a CSV file and remembers them.

    Args:
        path: the file; None (ranks above 0) only remembers.
        resumed_step: rows of later steps are dropped from a file that is there, since they come again.
    """

    def __init__(self, path: Path | None, resumed_step: int = 0) -> None:
        self.history: list[Row] = []
        self._file: IO[str] | None = None
        if path is None:
            return
        kept = _rows_up_to(path, resumed_step) if path.exists() else []
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS, restval="")
        self._writer.writeheader()
        self._writer.writerows(kept)
        self._file.flush()

    def write(self, step: int, split: str, values: Mapping[str, int | float]) -> None:
        """Write one row at once, so that a run that dies leaves what it measured.

        Raises:
            ValueError: for a metric that is not in the schema.
        """
        row: Row = {"step": step, "split": split, **values}
        if unknown := row.keys() - set(COLUMNS):
            raise ValueError(f"metrics outside the schema: {', '.join(sorted(unknown))}")
        self.history.append(row)
        if self._file is not None:
            self._writer.writerow(row)
            self._file.flush()

    def close(self) -> None:
        """Close the file; the history stays."""
        if self._file is not None:
            self._file.close()


def _rows_up_to(path: Path, step: int) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]
