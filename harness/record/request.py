"""What a run is to be compared with; it travels on the run, from who starts it to who judges it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TIME_LIMIT = re.compile(r"--max-seconds \S+")
SPECIAL = re.compile(r'[$`"\\!\n]')
"""What a shell reads as its own between double quotes."""


def quote_test(test: str) -> str:
    """A node id as an argument in a command to be pasted: in double quotes, where the shell leaves it as it is."""
    return shlex.quote(test) if SPECIAL.search(test) else f'"{test}"'


@dataclass(slots=True)
class BaselineRequest:
    """Under which name the baseline of a run is stored, where, and what is to be done with it.

    Attributes:
        test: Name of the baseline: the test, with `#2` for its second run, or what a command line gave.
        baselines: The folder, relative to `root`, or `REVISION:FOLDER` of git.
        root: The project's folder; git is asked there.
        folder: Where the program ran: its files are told by their paths from there.
        accept_command: The command that accepts a new baseline, with `{reason}` where the reason belongs.
        reason: Why baselines are accepted in this session; None when they are only compared.
        accepts_findings: Whether a run with errors may be accepted.
        requires_class: Whether a baseline that can't be compared with fails.
        judged: What the run's comparisons came to, in order.
    """

    test: str
    baselines: str
    root: Path
    folder: Path
    accept_command: str
    reason: str | None = None
    accepts_findings: bool = False
    requires_class: bool = False
    judged: list[Any] = field(default_factory=list)

    def tell_accepting(self, reason: str = "...", *, max_steps: int | None = None) -> str:
        """The command that accepts, with a reason.

        Args:
            reason: What is to stand there.
            max_steps: The limit to run with in place of one on the time; None leaves the command as it is.
        """
        command = self.accept_command.replace("{reason}", reason)
        return command if max_steps is None else TIME_LIMIT.sub(f"--max-steps {max_steps}", command, count=1)
