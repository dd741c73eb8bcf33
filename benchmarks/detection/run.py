"""The gallery of faults: records mutants of real little programs, and shows what the rules make of them.

Stages: `record` runs what is not in the cache yet, `effect` lists mutants that change nothing, `judge` applies
the rules to what is recorded, `peers` runs the other ways to check, `report` writes the table, `all` does all of it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # Started as a file, Python looks for imports beside it and not at the top of the repository.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.cache import DEFAULT_CACHE, Cache, Cell
from benchmarks.detection.clean.settings import RUNS
from benchmarks.detection.effect import compare_effects
from benchmarks.detection.fault import CLEAN, Mutant
from benchmarks.detection.faults import FAULTS, PROGRAMS, SLICE
from benchmarks.detection.peers.plugin import read_plugin, run_plugin
from benchmarks.detection.recording import record_cells
from harness.watch.environment import capture_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.detection.judge import Verdict

CODE_LENGTH = 4
ONLY = "only"
DOCUMENT = Path("docs/detection.md")
STAGES = ("record", "effect", "judge", "peers", "report", "all", "list")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; 0 when everything that was asked for is there, 1 when something is missing."""
    options = _parse(arguments)
    mutants = select_mutants(options.programs, options.faults, is_slice=options.slice)
    rows = [(mutant, options.seeds) for mutant in mutants]
    if options.clean_set or options.stage == "all":
        clean = list_clean_set()
        if options.clean_programs:
            clean = [
                (mutant, options.seeds) for mutant, _ in clean if mutant.program in options.clean_programs
            ]
            clean = [(mutant, seeds) for mutant, seeds in clean if not mutant.arguments]
        rows = [*([] if options.clean_set == ONLY else rows), *clean]
    if options.stage == "list":
        for mutant, _ in rows:
            print(f"{mutant.name}: {mutant.fault.summary if mutant.fault else 'the program as it is'}")
        return 0
    gallery = Gallery(rows, Cache(options.cache, any_watcher=options.any_watcher))
    code = 0
    if options.stage in ("record", "all"):
        code |= gallery.record(options.jobs, options.limit)
    if options.stage in ("effect", "all"):
        code |= gallery.show_effects()
    if options.stage in ("judge", "all"):
        code |= gallery.judge(options.jobs, is_verbose=options.verbose)
    if options.stage in ("peers", "all"):
        run_plugin(faulty(gallery.mutants), options.cache, python=options.peer_python, jobs=options.jobs)
    if options.stage in ("report", "all"):
        code |= gallery.report(options.jobs, options.document)
    return code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--cache", type=Path, default=DEFAULT_CACHE, help="folder of the records")
    add("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="PROGRAM")
    add("--faults", nargs="+", metavar="FAULT", help="ids, or beginnings such as T4 of expected codes")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    add(
        "--clean-set",
        choices=("too", ONLY),
        help="the programs of `clean/`, which have no fault; `all` has them",
    )
    add(
        "--clean-programs",
        nargs="+",
        metavar="PROGRAM",
        help="of the clean set these alone, with their defaults",
    )
    add("--slice", action="store_true", help="a dozen mutants of two programs, for a quick look")
    add("--jobs", type=int, default=2, help="processes at a time")
    add("--limit", type=float, default=120.0, metavar="S", help="seconds a run may take")
    add("--peer-python", default=sys.executable, help="an interpreter that has pytest-torch")
    add("--document", type=Path, default=DOCUMENT, help="the page that `report` writes")
    add("--any-watcher", action="store_true", help="use records by another version of the watcher too")
    add("--verbose", action="store_true", help="tell every finding")
    return parser.parse_args(arguments)


def select_mutants(programs: Sequence[str], faults: Sequence[str] | None, *, is_slice: bool) -> list[Mutant]:
    """The clean programs first, then the mutants that were asked for.

    Raises:
        SystemExit: A name fits no fault.
    """
    wanted = FAULTS
    if faults:
        known = {word: [f for f in FAULTS if _fits(f.id, f.expected, word)] for word in faults}
        if strange := [word for word, fitting in known.items() if not fitting and word != CLEAN]:
            raise SystemExit(f"no fault is called {', '.join(strange)}; `list` shows all of them")
        wanted = tuple(fault for fault in FAULTS if any(fault in fitting for fitting in known.values()))
    pairs = [Mutant(program, fault) for fault in wanted for program in fault.edits if program in programs]
    if is_slice:
        pairs = [mutant for mutant in pairs if (mutant.program, mutant.fault_id) in SLICE]
        programs = [program for program in programs if any(program == name for name, _ in SLICE)]
    return [*(Mutant(program, None) for program in programs), *pairs]


def faulty(mutants: Sequence[Mutant]) -> list[Mutant]:
    """The mutants of the programs that faults are put into, with the clean ones of these."""
    return [mutant for mutant in mutants if mutant.program in PROGRAMS]


def list_clean_set() -> list[tuple[Mutant, list[int]]]:
    """The programs of the clean set with their arguments, and the seeds of each."""
    rows: dict[str, tuple[Mutant, list[int]]] = {}
    for run in RUNS:
        mutant = Mutant(f"clean/{run.program.removesuffix('.py')}", None, run.options)
        rows.setdefault(mutant.name, (mutant, []))[1].append(run.seed)
    return list(rows.values())


def _fits(name: str, expected: tuple[str, ...], word: str) -> bool:
    return name == word or any(code.startswith(word) for code in expected)


def find_unknown_codes() -> set[str]:
    """Whole codes that faults expect and that the catalogue does not have."""
    from harness.rules.catalogue import RULES  # noqa: PLC0415  recording needs no rules

    known = {rule.code for rule in RULES}
    expected = {code for fault in FAULTS for code in fault.expected if len(code) == CODE_LENGTH}
    return expected - known


class Gallery:
    """The mutants with their cells, and the stages that go over them."""

    def __init__(self, rows: Sequence[tuple[Mutant, Sequence[int]]], cache: Cache) -> None:
        self.mutants = [mutant for mutant, _ in rows]
        self.cache = cache
        self.cells = {
            mutant.name: [cache.find_cell(mutant, seed) for seed in seeds] for mutant, seeds in rows
        }

    def record(self, jobs: int, limit_s: float) -> int:
        """Records what is missing; 1 when a run left no record."""
        capture_environment()  # here once, and not in every child
        cells = [cell for mutant in self.mutants for cell in self.cells[mutant.name]]
        failures = record_cells(cells, self.cache, jobs=jobs, limit_s=limit_s)
        for failure in failures:
            print(failure)
        return int(bool(failures))

    def show_effects(self) -> int:
        """Shows that clean runs repeat themselves, and lists the mutants that change nothing."""
        num_strange = 0
        for mutant in self.mutants:
            if mutant.fault is None and mutant.program in PROGRAMS:
                num_strange += self._check_repeats(self.cells[mutant.name][0])
        for mutant in self.mutants:
            for cell, clean in zip(self.cells[mutant.name], self._find_clean(mutant), strict=True):
                if mutant.fault is None or not (cell.is_recorded and clean.is_recorded):
                    continue
                record = cell.read_record()
                if record["status"] == "raised":
                    print(f"{mutant.name}, seed {cell.seed}: {record['message'].partition(chr(10))[0]}")
                elif not compare_effects(clean.read_effect(), cell.read_effect()):
                    print(f"{mutant.name}, seed {cell.seed}: changes nothing")
        return int(num_strange > 0)

    def judge(self, jobs: int, *, is_verbose: bool) -> int:
        """Prints what the rules find in every mutant and every clean run."""
        from benchmarks.detection.judge import BROKEN, count, share, tell_findings  # noqa: PLC0415  recording needs no rules

        if unknown := sorted(find_unknown_codes()):
            print(f"faults expect codes that no rule has: {', '.join(unknown)}")
        start_s = time.monotonic()
        verdicts = self.find_verdicts(jobs)
        for verdict in verdicts:
            text = tell_findings(verdict)
            print(text if is_verbose else text.partition("\n")[0])
        figures = count(verdicts)
        print(
            f"\n{figures['faults']} faults in {figures['mutants']} mutants that change something: "
            f"found {share(figures['mutants_found'], figures['mutants'])}, "
            f"cause first {share(figures['mutants_named'], figures['mutants'])}; "
            f"alarms in clean runs {figures['clean_alarms']} of {figures['clean_runs']}, "
            f"notes in {figures['clean_notes']}; "
            f"{time.monotonic() - start_s:.0f} s"
        )
        return int(any(seed.status == BROKEN for verdict in verdicts for seed in verdict.seeds))

    def report(self, jobs: int, path: Path) -> int:
        """Writes the page; 1 when a mutant is not recorded, so that the page would tell of a part only."""
        from benchmarks.detection.document import build_document, compare_peers  # noqa: PLC0415
        from benchmarks.detection.section import find_section, put_section  # noqa: PLC0415

        verdicts = self.find_verdicts(jobs)
        peers = compare_peers(verdicts, read_plugin(faulty(self.mutants), self.cache.folder))
        num_seeds = max(len(cells) for cells in self.cells.values())
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        page = build_document(verdicts, peers, num_seeds=num_seeds)
        path.write_text(put_section(page, find_section(before)), encoding="utf-8")
        print(f"{path} written")
        return int(any(not verdict.seeds for verdict in verdicts))

    def find_verdicts(self, jobs: int) -> list[Verdict]:
        """The verdict over every mutant; those without a record are told on stderr."""
        from benchmarks.detection.judge import judge_mutants  # noqa: PLC0415

        missing = [
            mutant.name for mutant in self.mutants if not all(c.is_recorded for c in self.cells[mutant.name])
        ]
        if missing:
            sys.stderr.write(
                f"{len(missing)} mutants are not recorded with all seeds ({', '.join(missing[:4])} ...): "
                "run the stage `record`, or judge with --any-watcher.\n"
            )
        return judge_mutants(
            [(mutant, self.cells[mutant.name], self._find_clean(mutant)) for mutant in self.mutants],
            jobs=jobs,
        )

    def _find_clean(self, mutant: Mutant) -> list[Cell]:
        clean = Mutant(mutant.program, None, mutant.arguments)
        return [self.cache.find_cell(clean, cell.seed) for cell in self.cells[mutant.name]]

    def _check_repeats(self, cell: Cell) -> int:
        if not cell.is_recorded:
            return 0
        again = Cell(cell.mutant, cell.seed, cell.folder.with_name(f"again{cell.seed}"))
        shutil.rmtree(again.folder, ignore_errors=True)
        record_cells([again], self.cache, jobs=1, limit_s=120.0)
        changed = compare_effects(cell.read_effect(), again.read_effect())
        told = f"differ in {', '.join(changed)}" if changed else "are the same"
        print(f"{cell.mutant.program}: two clean runs with seed {cell.seed} {told}")
        return int(bool(changed))


if __name__ == "__main__":
    raise SystemExit(main())
