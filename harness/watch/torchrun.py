"""The launch of one command in several ranks on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

LAUNCHER = "torch.distributed.run"


def build_torchrun(words: Sequence[str], ranks: int) -> list[str]:
    """The command that runs `words` in a number of ranks with torchrun, found through the same interpreter.

    `python train.py` and `python -m package` are launched as script and module; any other program as it is.
    Options of the interpreter stay with the launcher's own.

    Raises:
        UsageError: `ranks` is below 1.
    """
    if ranks < 1:
        raise UsageError(f"ranks={ranks!r} must be a whole number of at least 1.\nNext: ranks=2.")
    launch = ["--standalone", f"--nproc-per-node={ranks}"]
    if not Path(words[0]).name.startswith("python"):
        return [sys.executable, "-m", LAUNCHER, *launch, "--no-python", *words]
    first = next(
        (at for at, word in enumerate(words) if at and (word == "-m" or not word.startswith("-"))), None
    )
    if first is None:
        raise UsageError(
            f"{' '.join(words)} names no script or module.\nNext: python train.py, with ranks=2."
        )
    return [*words[:first], "-m", LAUNCHER, *launch, *words[first:]]
