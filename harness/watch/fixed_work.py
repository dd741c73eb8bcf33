"""Times work that never changes, on the cores of a launch: how fast is the machine at the moment?

A process of its own does it, which knows nothing of what programs have left in this one: types and devices they have
set, threads, modes, the state of the allocator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.record.fixed_work import FixedWork
from harness.watch.cores import pinned

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from harness.record.run import TrainingRun

PROGRAM = Path(__file__).with_name("fixed_work_program.py")
LONGEST_S = 30.0
"""A turn takes a third of a second; after this it is given up."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_beside(launch: Callable[[], TrainingRun], cores: AbstractSet[int] = frozenset()) -> TrainingRun:
    """Launches a program between two turns of fixed work; the record then has the time of the quicker one.

    The quicker, because what a program leaves running slows the turn behind it: it must not excuse itself.

    Args:
        launch: Runs the program once.
        cores: Processors that the program is kept on; none leaves the choice to the system.

    Raises:
        HarnessError: What `launch` raises. Where the work can't be timed, the record has no time of it.
    """
    __tracebackhide__ = True
    before = time_work(cores)
    run = launch()
    behind = time_work(cores)
    if before is not None and behind is not None and before.made_with == behind.made_with:
        run.fixed_work = min(before, behind, key=lambda work: work.time_s)
    return run


def time_work(cores: AbstractSet[int] = frozenset()) -> FixedWork | None:
    """How long one turn takes now; None where it can't be told.

    Args:
        cores: Processors that it is done on; none leaves the choice to the system.
    """
    try:
        with pinned(cores):
            done = subprocess.run(
                # Without its folder on the path, where modules have names of the standard library's.
                [sys.executable, "-P", str(PROGRAM)],
                env=os.environ | ONE_THREAD,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LONGEST_S,
                check=True,
            )
        return FixedWork.from_json(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None
