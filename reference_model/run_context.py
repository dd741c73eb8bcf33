"""The run's identity and every path it writes to; no path is built anywhere else."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reference_model.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class RunContext:
    """One run id and the directory of that name."""

    run_id: str
    directory: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.directory / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, devices, host and data."""
        return self.directory / "environment.json"

    @property
    def git(self) -> Path:
        """Commit and branch."""
        return self.directory / "git.json"

    @property
    def diff(self) -> Path:
        """What differs from the commit."""
        return self.directory / "uncommitted.diff"

    @property
    def metrics(self) -> Path:
        """One row per logging event."""
        return self.directory / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Directory of checkpoints."""
        return self.directory / "checkpoints"

    def log(self, rank: int) -> Path:
        """JSON lines of one rank."""
        return self.directory / "logs" / f"train_rank{rank}.log"

    def trace(self, name: str, rank: int) -> Path:
        """A profiler's trace."""
        return self.directory / "traces" / f"{name}_rank{rank}.json.gz"

    def samples(self, step: int, suffix: str) -> Path:
        """What the model generated after a step."""
        return self.directory / "samples" / f"step_{step:06d}{suffix}"

    def create_directories(self) -> None:
        """Make the directory and the folders in it."""
        for folder in ("logs", "checkpoints", "traces", "samples"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)

    def refuse_if_used(self) -> None:
        """Raise ConfigError if an earlier run has left its metrics here."""
        if self.metrics.exists():
            raise ConfigError(
                f"run '{self.run_id}' exists already in {self.directory}; "
                f"choose another --run_id, or continue it with --resume {self.directory}"
            )


def choose_run_id(configured: str | None, resumed: str | None, mode: str) -> str:
    """The run's name: configured, else RUN_ID of the environment, else that of the resumed run, else a new one.

    A new one is made of the time, the mode and random characters that leave every seeded generator alone.
    """
    generated = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{mode}-{secrets.token_hex(2)}"
    return configured or os.environ.get("RUN_ID") or resumed or generated
