"""The launch of one command in several ranks on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

LAUNCHER = "torch.distributed.run"
OPTIONS_WITH_VALUE = ("-W", "-X")


def build_torchrun(words: Sequence[str], ranks: int) -> list[str]:
    """The command that runs `words` in a number of ranks with torchrun, found through the same interpreter.

    `python train.py`, `train.py` and `python -m package` are launched as script and module; any other program as
    it is.
    Options of the interpreter stay with the launcher's own.

    Raises:
        UsageError: `ranks` is below 1, or an interpreter is given no script or module.
    """
    if ranks < 1:
        raise UsageError(f"ranks={ranks!r} must be a whole number of at least 1.\nNext: ranks=2.")
    launch = ["-m", LAUNCHER, "--standalone", f"--nproc-per-node={ranks}"]
    if words[0].endswith(".py"):
        return [sys.executable, *launch, *words]
    if not Path(words[0]).name.startswith("python"):
        return [sys.executable, *launch, "--no-python", *words]
    first = _find_program(words)
    if first is None:
        raise UsageError(
            f"{' '.join(words)} names no script or module that ranks could run.\nNext: python train.py."
        )
    return [*words[:first], *launch, *words[first:]]


def _find_program(words: Sequence[str]) -> int | None:
    """Where the script or `-m` stands behind an interpreter and its options; None for `-c` and for none."""
    at = 1
    while at < len(words):
        word = words[at]
        if word == "-m" or not word.startswith("-"):
            return at
        if word.startswith("-c"):
            return None
        at += 2 if word in OPTIONS_WITH_VALUE else 1
    return None
