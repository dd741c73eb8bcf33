"""Files a run leaves behind: finding them, and telling whether a known kind can be read."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import zipfile
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def find_artifacts(run_dir: Path, pattern: str) -> list[Path]:
    """Files under `run_dir` that match a glob (`**` crosses directories), sorted by path.

    Raises:
        UsageError: The pattern is empty, absolute, climbs out of the run directory, or is no glob.
    """
    is_inside = bool(pattern) and not pattern.startswith("/") and ".." not in pattern.split("/")
    with contextlib.suppress(ValueError, IndexError, NotImplementedError, OSError):  # pathlib's own refusals
        if is_inside:
            return sorted(path for path in run_dir.glob(pattern) if path.is_file())
    raise UsageError(
        f"artifact pattern {pattern!r} is not a glob inside the run directory {run_dir}.\n"
        'Next: give one relative to it, for example "checkpoints/*.pt".'
    )


def find_defect(path: Path) -> str | None:
    """Why a file of a known kind can't be read; None when it can, or when its kind is not known.

    The kind goes by the ending: `.csv`, `.json`, `.jsonl`, `.json.gz`, `.png`, `.safetensors`, and the zip
    containers `.pt`, `.pth`, `.ckpt`, `.npz`. A checkpoint's container is checked member by member
    (checksums), without unpickling it. An empty file of a known kind is a defect.
    """
    name = path.name.lower()
    reader = next((reader for ending, reader in _READERS.items() if name.endswith(ending)), None)
    if reader is None:
        return None
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        return reader(path)
    except Exception as error:  # noqa: BLE001  whatever a reader trips over is the file's defect
        return str(error) or type(error).__name__


def _read_csv(path: Path) -> str | None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        for row in rows:
            if row and len(row) != len(header):
                return f"line {rows.line_num} has {len(row)} cells, the header has {len(header)}"
    return None if rows.line_num > 1 else "there is a header and no row"


def _read_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _read_json_lines(path: Path) -> str | None:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                json.loads(line)
            except ValueError as error:
                return f"line {number}: {error}"
    return None


def _read_json_gz(path: Path) -> None:
    with gzip.open(path, "rb") as file:
        json.load(file)


def _read_png(path: Path) -> str | None:
    with path.open("rb") as file:
        has_signature = file.read(8) == b"\x89PNG\r\n\x1a\n"
        file.seek(max(-12, -path.stat().st_size), 2)
        has_end = b"IEND" in file.read()
    return None if has_signature and has_end else "not a whole PNG: signature or end chunk is missing"


def _read_safetensors(path: Path) -> str | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header_bytes = file.read(length) if length <= path.stat().st_size else b""
    if len(header_bytes) != length:
        return f"the header should take {length} bytes, the file ends before"
    header = json.loads(header_bytes)
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    size = path.stat().st_size - 8 - length
    return None if max(ends, default=0) == size else f"tensors end at byte {max(ends, default=0)} of {size}"


def _read_zip(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        # torch.save(..., _use_new_zipfile_serialization=False) writes a pickle, which starts with 0x80.
        with path.open("rb") as file:
            return None if file.read(1) == b"\x80" else "not a zip container: truncated or another format"
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return None if broken is None else f"member {broken} is damaged"


_READERS: dict[str, Callable[[Path], str | None]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".json.gz": _read_json_gz,
    ".png": _read_png,
    ".safetensors": _read_safetensors,
    ".pt": _read_zip,
    ".pth": _read_zip,
    ".ckpt": _read_zip,
    ".npz": _read_zip,
}
