"""The proof of "what changed first": records changed programs, and shows where the comparison says they begin to differ.

Stages: `record` runs what is not in the cache yet, `judge` compares what is recorded with the clean run of the same
program, `repeat` runs unchanged programs again and again, `repeats` and `machines` tell what is said of unchanged
programs run again, and of all programs on other machines, `list` tells all changes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # Started as a file, Python looks for imports beside it and not at the top of the repository.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.cache import Cache, Cell
from benchmarks.detection.fault import Mutant
from benchmarks.detection.faults import PROGRAMS
from benchmarks.detection.recording import Conditions, record_cells
from benchmarks.divergence.crossing import cross_clean, cross_mutants, tell_crossings
from benchmarks.divergence.machines import HOME, MACHINES, TWO_THREADS
from benchmarks.divergence.repeats import (
    REPEATED,
    RepeatSeries,
    judge_repeats,
    record_repeats,
    tell_series,
)
from benchmarks.detection.judge import share
from benchmarks.divergence.rows import (
    CHANGE,
    GALLERY,
    find_set,
    find_truth,
    list_clean_programs,
    list_mutants,
)
from harness.baselines.building import TRACED_STEPS
from harness.watch.environment import capture_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.divergence.judge import Verdict
    from benchmarks.divergence.machines import Machine

CACHE = Path(".harness/divergence")
STAGES = ("record", "judge", "repeat", "repeats", "machines", "list")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; 0 when everything that was asked for is there, 1 when something is missing."""
    options = _parse(arguments)
    mutants = _select(options)
    if options.stage == "list":
        for mutant in mutants:
            phases = ", ".join(find_truth(mutant).phases) or "none"
            print(f"{mutant.name}: {mutant.fault.summary if mutant.fault else 'as it is'} ({phases})")
        return 0
    machines = [MACHINES[name] for name in options.machines]
    if options.stage == "record":
        return max(_record_on(machine, mutants, options) for machine in machines)
    if options.stage == "repeat":
        return max(
            record_repeats(
                options.cache,
                machine,
                options.times,
                is_loaded=options.loaded,
                seed=options.seed,
                limit_s=options.limit,
            )
            for machine in machines
        )
    if options.stage == "repeats":
        return _tell_repeats(options)
    if options.stage == "machines":
        return _tell_machines(mutants, options)
    return _judge(mutants, options)


def _select(options: argparse.Namespace) -> list[Mutant]:
    if options.repeated:
        return [Mutant(program, None) for program in REPEATED]
    return list_clean_programs() if options.clean_set else list_mutants(options.programs, options.changes)


def _tell_repeats(options: argparse.Namespace) -> int:
    """Prints what is said of repeats; 1 when one was said to differ."""
    series = list_series(options.cache, options.seed)
    print("\n".join(tell_series(series)))
    return int(any(one.strange for one in series))


def list_series(folder: Path, seed: int) -> list[RepeatSeries]:
    """All series of repeats that were recorded."""
    found = [
        judge_repeats(folder, machine, is_loaded=is_loaded, seed=seed)
        for machine in (HOME, TWO_THREADS)
        for is_loaded in (False, True)
    ]
    return [series for series in found if series is not None]


def _tell_machines(mutants: Sequence[Mutant], options: argparse.Namespace) -> int:
    """Prints what is said on this machine against baselines of the others, and of clean programs both ways."""
    clean = cross_clean(options.cache, list_clean_programs(), options.seed, any_watcher=options.any_watcher)
    changed = cross_mutants(options.cache, mutants, options.seed, any_watcher=options.any_watcher)
    print("\n".join(tell_crossings([*clean, *changed])))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--cache", type=Path, default=CACHE, help="folder of the records, one for each machine")
    add("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="PROGRAM")
    add("--changes", nargs="+", metavar="CHANGE", help="ids, `changes` or `gallery`; all by default")
    add("--clean-set", action="store_true", help="clean programs instead, those of the clean set too")
    add("--repeated", action="store_true", help="the programs that are repeated instead")
    add("--times", type=int, default=25, help="how often `repeat` starts anew")
    add("--loaded", action="store_true", help="keep the processors busy while repeating")
    add("--machines", nargs="+", choices=list(MACHINES), default=[HOME.name], metavar="MACHINE")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=1, help="processes at a time")
    add("--limit", type=float, default=180.0, metavar="S", help="seconds a run may take")
    add("--any-watcher", action="store_true", help="use records by another version of the watcher too")
    add("--only", nargs="+", metavar="OUTCOME", help="tell these verdicts alone: WRONG, MISSED, ALARM ...")
    add("--verbose", action="store_true", help="tell every divergence with its causes")
    return parser.parse_args(arguments)


def _judge(mutants: Sequence[Mutant], options: argparse.Namespace) -> int:
    """Prints a verdict for every mutant, and the totals; 1 when one was not recorded."""
    from benchmarks.divergence.judge import Outcome, count_outcomes, judge_all, tell_verdict  # noqa: PLC0415

    cache = Cache(options.cache / HOME.name, any_watcher=options.any_watcher)
    verdicts = judge_all(_list_rows(mutants, cache, options.seed), jobs=options.jobs)
    shown = [verdict for verdict in verdicts if options.only is None or verdict.outcome in options.only]
    for verdict in shown:
        print(tell_verdict(verdict, is_verbose=options.verbose))
    for name in (CHANGE, GALLERY):
        print(tell_totals([verdict for verdict in verdicts if find_set(verdict.mutant) == name], name))
    return int(count_outcomes(verdicts)[Outcome.MISSING] > 0)


def _list_rows(mutants: Sequence[Mutant], cache: Cache, seed: int) -> list[tuple[Cell, Cell]]:
    return [
        (cache.find_cell(mutant, seed), cache.find_cell(Mutant(mutant.program, None), seed))
        for mutant in mutants
        if mutant.fault is not None
    ]


def tell_totals(verdicts: Sequence[Verdict], name: str) -> str:
    """The share of right phases among the mutants whose training differs, and what became of the others."""
    from benchmarks.divergence.judge import COUNTED, Outcome, count_outcomes  # noqa: PLC0415

    found = count_outcomes(verdicts)
    whole = sum(found[outcome] for outcome in COUNTED)
    rest = ", ".join(f"{found[o]} {o}" for o in Outcome if o is not Outcome.RIGHT and found[o])
    return f"{name}: right phase {share(found[Outcome.RIGHT], whole)} of {len(verdicts)} mutants; {rest}"


def _record_on(machine: Machine, mutants: Sequence[Mutant], options: argparse.Namespace) -> int:
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
    environment = os.environ | dict(machine.environment)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.divergence.run", *words], env=environment, check=False
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
