"""Keeps the newest of the files that would pile up otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def keep_newest(folder: Path, pattern: str, count: int) -> list[Path]:
    """Removes all but the newest `count` files of a folder that match a glob; returns what was removed."""
    found = sorted(folder.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    for path in found[count:]:
        path.unlink(missing_ok=True)
    return found[count:]
