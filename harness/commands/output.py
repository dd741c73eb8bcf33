"""What the commands share: exit codes, printing, and the JSON document."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from harness import clock

if TYPE_CHECKING:
    from pathlib import Path

EXIT_GOOD, EXIT_FINDING, EXIT_NOT_OBSERVED = 0, 1, 2


def write_json(path: Path, facts: dict[str, Any], exit_code: int) -> int:
    """Writes the document and returns the exit code, which is 2 where it can't be written."""
    from harness.report.document import SCHEMA_VERSION, replace_non_finite  # noqa: PLC0415  late
    from harness.session import find_version  # noqa: PLC0415

    header = {
        "schema_version": SCHEMA_VERSION,
        "harness_version": find_version(),
        "created_at": clock.now_utc(),
    }
    try:
        text = json.dumps(replace_non_finite(header | facts), indent=1, default=str)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        say(f"harness: --json {path} can't be written: {error}.\nNext: name a writable file.", is_error=True)
        return EXIT_NOT_OBSERVED
    return exit_code


def say(text: str, *, is_error: bool = False) -> None:
    """Prints a text; errors go to stderr."""
    print(text, file=sys.stderr if is_error else sys.stdout)
