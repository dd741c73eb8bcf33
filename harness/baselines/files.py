"""Baseline files on disk: written whole or not at all, one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BaselineError
from harness.record.environment import slug

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_TIMEOUT_S = 30.0
MAX_NAME = 120
WORD = r"[a-z0-9_]+(-[a-z0-9_]+)*"
PLAIN_TEST = re.compile(rf"({WORD}/)*{WORD}\.py(::{WORD})+(\[[a-z0-9_]+([.-][a-z0-9_]+)*\])?|{WORD}")
"""A test or name that shares its file name with no other; of others, upper case and most signs would be lost."""
RESTORE = "Next: restore it from version control, or delete it and accept a new one."


def name_file(test: str) -> str:
    """The file name of a test's baseline: readable, and with a digest where two tests could share the name."""
    name = slug(test.replace("/", ".").replace("::", "."))
    if len(name) > MAX_NAME or not PLAIN_TEST.fullmatch(test):
        digest = hashlib.sha256(test.encode(errors="backslashreplace")).hexdigest()[:8]
        name = f"{name[:MAX_NAME]}-{digest}"
    return f"{name}.json"


def read_json(path: Path, *, schema_version: int) -> dict[str, Any] | None:
    """The JSON object in a baseline file, its `harness.schema_version` checked; None when there is no file.

    Raises:
        BaselineError: The file can't be read, is not a baseline, or was written by a newer harness.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BaselineError(f"baseline {path} can't be read: {error}.\n{RESTORE}") from error
    return parse_document(text, str(path), schema_version=schema_version)


def parse_document(text: str, place: str, *, schema_version: int) -> dict[str, Any]:
    """The JSON object in the text of a baseline, its `harness.schema_version` checked.

    Args:
        text: What the file holds.
        place: What messages call the file.
        schema_version: The newest schema that can be read.

    Raises:
        BaselineError: The text is not a baseline, or was written by a newer harness.
    """
    document: Any
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BaselineError(f"baseline {place} can't be read: {error}.\n{RESTORE}") from error
    header = document.get("harness") if isinstance(document, dict) else None
    version = header.get("schema_version") if isinstance(header, dict) else None
    if not isinstance(version, int):
        raise BaselineError(
            f"baseline {place} is not a baseline of this harness: it has no harness.schema_version.\n{RESTORE}"
        )
    if version > schema_version:
        raise BaselineError(
            f"baseline {place} has schema {version}; this harness reads up to {schema_version}.\n"
            "Next: pip install -U pytest-training-harness, or go back to a baseline of your version."
        )
    return dict(document)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Writes a baseline atomically, as indented JSON.

    Raises:
        BaselineError: The folder is read-only or the disk is full; the old file is untouched.
    """
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a baseline atomically: a reader sees the old file or the new one, also after a crash.

    Raises:
        BaselineError: The folder is read-only or the disk is full; the old file is untouched.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        # A reason from the command line may hold bytes that are no text; JSON knows their escapes.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise BaselineError(
            f"baseline {path} can't be written: {error}; what was stored before is untouched.\n"
            "Next: free space or make the folder writable, or name another: --harness-baselines DIR of pytest, "
            "--baselines DIR of harness check."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes of this user and machine off the baselines while one is read, extended and written.

    Raises:
        BaselineError: The lock can't be made, or another process holds it for more than 30 s.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  imported late, only when accepting

    lock = FileLock(find_lock())
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except (OSError, Timeout) as error:
        raise BaselineError(
            f"baseline {path} can't be locked for writing: {error}; nothing was changed.\n"
            "Next: wait for the other process that accepts baselines, or end it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def find_lock() -> Path:
    """The one lock file of this user, for all baselines: they are written rarely, and within milliseconds.

    It lies among the temporary files and stays: it can't be removed after its release, as another process may hold
    it by then; beside the baselines it would end up in commits; and one for each folder would pile up.
    """
    return Path(tempfile.gettempdir()) / f"harness-baselines-{os.getuid()}.lock"
