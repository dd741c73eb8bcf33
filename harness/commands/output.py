"""What the commands share: exit codes, printing, and the JSON document."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.errors import HarnessError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

EXIT_GOOD, EXIT_FINDING, EXIT_NOT_OBSERVED = 0, 1, 2


def run_documented(judge: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """The exit code that `judge` returns; where nothing could be judged, `--json` says why.

    Raises:
        HarnessError: The options can't be used, or nothing could be judged.
    """
    try:
        return judge(options)
    except HarnessError as error:
        if options.json is not None:
            facts = {"outcome": "not observed", "message": str(error), "command": options.words}
            write_json(options.json, facts, EXIT_NOT_OBSERVED)
        raise


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
