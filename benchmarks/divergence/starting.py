"""Records programs under the conditions of a machine, in a new process where libraries have to be told first."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.detection.cache import Cache
from benchmarks.detection.recording import Conditions, record_cells
from harness.baselines.building import TRACED_STEPS
from harness.watch.environment import capture_environment

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.detection.fault import Mutant
    from benchmarks.divergence.machines import Machine


def record_on(machine: Machine, mutants: Sequence[Mutant], options: argparse.Namespace) -> int:
    """Records what is missing on a machine; 1 when a run left no record."""
    if any(os.environ.get(name) != value for name, value in machine.environment.items()):
        return _start_on(machine, options)
    cache = Cache(options.cache / machine.name, any_watcher=options.any_watcher)
    capture_environment()  # here once, and not in every child
    cells = [cache.find_cell(mutant, options.seed) for mutant in mutants]
    conditions = Conditions(traced_steps=TRACED_STEPS, threads=machine.threads)
    failures = record_cells(cells, cache, jobs=options.jobs, limit_s=options.limit, conditions=conditions)
    for failure in failures:
        print(failure)
    return int(bool(failures))


def _start_on(machine: Machine, options: argparse.Namespace) -> int:
    """The same stage in a new process: libraries look for their variables when they are loaded."""
    words = ["record", "--cache", str(options.cache), "--machines", machine.name, "--seed", str(options.seed)]
    words += ["--jobs", str(options.jobs), "--limit", str(options.limit), "--programs", *options.programs]
    words += ["--changes", *options.changes] if options.changes else []
    words += ["--repeated"] if options.repeated else []
    words += ["--clean-set"] if options.clean_set else []
    words += ["--any-watcher"] if options.any_watcher else []
    if not machine.is_there:
        print(f"{machine.name} is left out: {machine.emulator[0]} is not installed (package qemu-user)")
        return 0
    command = [*machine.emulator, sys.executable, "-m", "benchmarks.divergence.run", *words]
    return subprocess.run(command, env=os.environ | dict(machine.environment), check=False).returncode
