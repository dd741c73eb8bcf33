"""The proof of "what changed first": changes programs, and shows where the comparison says that they begin to differ.

Stages: `record` runs what is not in the cache yet; `judge` compares what is recorded with the clean run of the same
program; `repeat` runs unchanged programs again and again, and `repeats` tells what is said of them; `machines` tells
what is said between machines; `store` keeps what unchanged programs did here, for other processors; `report` writes the
section of docs/detection.md; `all` does all of it but `store`; `list` tells all changes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # Started as a file, Python looks for imports beside it and not at the top of the repository.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.cache import Cache, Cell
from benchmarks.detection.fault import Mutant
from benchmarks.detection.judge import share
from benchmarks.divergence.machines import HOME, MACHINES, TWO_THREADS
from benchmarks.divergence.repeats import REPEATED, record_repeats
from benchmarks.divergence.rows import (
    CHANGE,
    GALLERY,
    PROGRAMS,
    SEVERAL,
    find_set,
    find_truth,
    list_clean_programs,
    list_mutants,
)
from benchmarks.divergence.starting import record_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.divergence.crossing import Crossing, Shelves
    from benchmarks.divergence.judge import Verdict
    from benchmarks.divergence.repeats import RepeatSeries

CACHE = Path(".harness/divergence")
DOCUMENT = Path("docs/detection.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; 0 when everything that was asked for is there, 1 when something is missing."""
    options = _parse(arguments)
    return STAGES[options.stage](options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("stage", choices=list(STAGES))
    add("--cache", type=Path, default=CACHE, help="folder of the records, one for each machine")
    add("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="PROGRAM")
    add("--changes", nargs="+", metavar="CHANGE", help="ids, `changes`, `several`, `gallery`, `slice`")
    add("--clean-set", action="store_true", help="clean programs instead, those of the clean set too")
    add("--repeated", action="store_true", help="the programs that are repeated instead")
    add("--times", type=int, default=25, help="how often `repeat` starts anew")
    add("--loaded", action="store_true", help="keep the processors busy while repeating")
    add("--machines", nargs="+", choices=list(MACHINES), default=[HOME.name], metavar="MACHINE")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=1, help="processes at a time")
    add("--limit", type=float, default=180.0, metavar="S", help="seconds a run may take")
    add("--document", type=Path, default=DOCUMENT, help="the page that has the section")
    add("--any-watcher", action="store_true", help="use records by another version of the watcher too")
    add("--only", nargs="+", metavar="OUTCOME", help="tell these verdicts alone: WRONG, MISSED, ALARM ...")
    add("--verbose", action="store_true", help="tell every divergence with its causes")
    return parser.parse_args(arguments)


def _select(options: argparse.Namespace) -> list[Mutant]:
    if options.repeated:
        return [Mutant(program, None) for program in REPEATED]
    return list_clean_programs() if options.clean_set else list_mutants(options.programs, options.changes)


def _list(options: argparse.Namespace) -> int:
    for mutant in _select(options):
        phases = ", ".join(find_truth(mutant).phases) or "nothing"
        print(f"{mutant.name}: {mutant.fault.summary if mutant.fault else 'as it is'} (right: {phases})")
    return 0


def _record(options: argparse.Namespace) -> int:
    """Records what is missing on each machine; 1 when a run left no record."""
    mutants = _select(options)
    return max(record_on(MACHINES[name], mutants, options) for name in options.machines)


def _repeat(options: argparse.Namespace) -> int:
    return max(
        record_repeats(
            options.cache,
            MACHINES[name],
            options.times,
            is_loaded=options.loaded,
            seed=options.seed,
            limit_s=options.limit,
        )
        for name in options.machines
    )


def _tell_repeats(options: argparse.Namespace) -> int:
    """Prints what is said of repeats; 1 when one was said to differ."""
    from benchmarks.divergence.repeats import tell_series  # noqa: PLC0415

    series = _list_series(options)
    print("\n".join(tell_series(series)))
    return int(any(one.strange for one in series))


def _list_series(options: argparse.Namespace) -> list[RepeatSeries]:
    from benchmarks.divergence.repeats import judge_repeats  # noqa: PLC0415

    found = [
        judge_repeats(options.cache, machine, is_loaded=is_loaded, seed=options.seed)
        for machine in (HOME, TWO_THREADS)
        for is_loaded in (False, True)
    ]
    return [series for series in found if series is not None]


def _tell_machines(options: argparse.Namespace) -> int:
    """Prints what is said on this machine against baselines of the others, and of clean programs both ways."""
    from benchmarks.divergence.crossing import Shelves, tell_crossings  # noqa: PLC0415

    shelves = Shelves(options.cache, options.seed, any_watcher=options.any_watcher)
    print("\n".join(tell_crossings(_cross(shelves, list_clean_programs(), _select(options)))))
    return 0


def _cross(shelves: Shelves, clean: Sequence[Mutant], mutants: Sequence[Mutant]) -> list[Crossing]:
    """Comparisons between machines, emulated ones and those whose trajectories are stored."""
    from benchmarks.divergence.crossing import cross_clean, cross_mutants  # noqa: PLC0415
    from benchmarks.divergence.processors import cross_stored  # noqa: PLC0415

    changed = [mutant for mutant in mutants if mutant.fault is not None]
    return [
        *cross_clean(shelves, clean),
        *cross_mutants(shelves, changed),
        *cross_stored(shelves, [*clean, *changed]),
    ]


def _store(options: argparse.Namespace) -> int:
    """Stores the trajectories of unchanged programs for runs on other processors; 1 when there are none."""
    from benchmarks.divergence.crossing import Shelves  # noqa: PLC0415
    from benchmarks.divergence.processors import store_trajectories  # noqa: PLC0415

    shelves = Shelves(options.cache, options.seed, any_watcher=options.any_watcher)
    written = store_trajectories(shelves, list_clean_programs())
    print("\n".join(f"{path} written" for path in written))
    return int(not written)


def _judge(options: argparse.Namespace) -> int:
    """Prints a verdict for every mutant, and the totals; 1 when one was not recorded."""
    from benchmarks.divergence.judge import Outcome, count_outcomes, tell_verdict  # noqa: PLC0415

    verdicts = _find_verdicts(_select(options), options)
    for verdict in verdicts:
        if options.only is None or verdict.outcome in options.only:
            print(tell_verdict(verdict, is_verbose=options.verbose))
    for name in (CHANGE, SEVERAL, GALLERY):
        print(_tell_totals([verdict for verdict in verdicts if find_set(verdict.mutant) == name], name))
    return int(count_outcomes(verdicts)[Outcome.MISSING] > 0)


def _find_verdicts(mutants: Sequence[Mutant], options: argparse.Namespace) -> list[Verdict]:
    from benchmarks.divergence.judge import judge_all  # noqa: PLC0415  recording needs no comparison

    cache = Cache(options.cache / HOME.name, any_watcher=options.any_watcher)
    rows: list[tuple[Cell, Cell]] = [
        (
            cache.find_cell(mutant, options.seed),
            cache.find_cell(Mutant(mutant.program, None), options.seed),
        )
        for mutant in mutants
        if mutant.fault is not None
    ]
    return judge_all(rows, jobs=options.jobs)


def _tell_totals(verdicts: Sequence[Verdict], name: str) -> str:
    """The share of right phases among the mutants whose training differs, and what became of the others."""
    from benchmarks.divergence.judge import COUNTED, Outcome, count_outcomes  # noqa: PLC0415

    found = count_outcomes(verdicts)
    whole = sum(found[outcome] for outcome in COUNTED)
    rest = ", ".join(f"{found[o]} {o}" for o in Outcome if o is not Outcome.RIGHT and found[o])
    return f"{name}: right phase {share(found[Outcome.RIGHT], whole)} of {len(verdicts)} mutants; {rest}"


def _report(options: argparse.Namespace) -> int:
    """Writes the section; 1 when a mutant is not recorded, so that it would tell of a part only."""
    from benchmarks.detection.section import put_section  # noqa: PLC0415
    from benchmarks.divergence.crossing import Shelves  # noqa: PLC0415
    from benchmarks.divergence.document import build_section  # noqa: PLC0415
    from benchmarks.divergence.judge import Outcome  # noqa: PLC0415
    from benchmarks.divergence.noise import measure_noise  # noqa: PLC0415

    mutants, clean = list_mutants(PROGRAMS, None), list_clean_programs()
    verdicts = _find_verdicts(mutants, options)
    shelves = Shelves(options.cache, options.seed, any_watcher=options.any_watcher)
    changed = [mutant for mutant in mutants if mutant.fault and find_set(mutant) != GALLERY]
    crossings = _cross(shelves, clean, changed)
    noise = measure_noise(options.cache, clean, options.seed)
    section = build_section(verdicts, _list_series(options), crossings, noise)
    page = options.document.read_text(encoding="utf-8")
    options.document.write_text(put_section(page, section), encoding="utf-8")
    print(f"{options.document} written")
    return int(any(verdict.outcome is Outcome.MISSING for verdict in verdicts))


def _do_all(options: argparse.Namespace) -> int:
    """Records what is missing, for every machine, and writes the section."""
    steps = [["record"], ["record", "--clean-set", "--machines", *MACHINES]]
    steps += [["repeat", "--machines", HOME.name, TWO_THREADS.name]]
    steps += [["repeat", "--machines", HOME.name, TWO_THREADS.name, "--loaded", "--times", "5"]]
    common = ["--cache", str(options.cache), "--seed", str(options.seed), "--jobs", str(options.jobs)]
    return max(main([*words, *common]) for words in (*steps, ["report"]))


STAGES: dict[str, Callable[[argparse.Namespace], int]] = {
    "record": _record,
    "judge": _judge,
    "repeat": _repeat,
    "repeats": _tell_repeats,
    "machines": _tell_machines,
    "store": _store,
    "report": _report,
    "all": _do_all,
    "list": _list,
}

if __name__ == "__main__":
    raise SystemExit(main())
