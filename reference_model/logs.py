"""Events with fixed names: JSON lines for machines, one short line each for people."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_model.distributed import World
    from reference_model.run_context import RunContext

_LOGGER = logging.getLogger("reference_model")


def log_event(event: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log one event; the fields become keys of its JSON line."""
    _LOGGER.log(level, event, extra={"fields": fields})


class _JsonLines(logging.Formatter):
    """One JSON object per record, with the run's identity on every line."""

    def __init__(self, run: RunContext, world: World) -> None:
        super().__init__()
        self.identity = {
            "run_id": run.run_id,
            "rank": world.rank,
            "local_rank": world.local_rank,
            "host": world.host,
        }

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "event": record.getMessage(),
            **self.identity,
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, default=str)


class _Console(logging.Formatter):
    """Time, event and its plain fields; nested ones are for the file."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        shown = [f"{k}={_short(v)}" for k, v in fields.items() if not isinstance(v, dict | list)]
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return f"{datetime.now(UTC):%H:%M:%S} {level}{record.getMessage()} {' '.join(shown)}".rstrip()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def open_logs(run: RunContext, world: World) -> Iterator[None]:
    """Send events to this rank's file and to stderr; ranks above 0 show people only warnings."""
    to_file = logging.FileHandler(run.log(world.rank), encoding="utf-8")
    to_file.setFormatter(_JsonLines(run, world))
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(_Console())
    to_console.setLevel(logging.INFO if world.is_main else logging.WARNING)
    level_before = _LOGGER.level
    _LOGGER.setLevel(logging.INFO)
    handlers = (to_file, to_console)
    for handler in handlers:
        _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            _LOGGER.removeHandler(handler)
            handler.close()
        _LOGGER.setLevel(level_before)
