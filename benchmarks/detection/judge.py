"""What the rules say of recorded runs, and which mutants count."""

from __future__ import annotations

import multiprocessing
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.detection.cache import RUN_FOLDER, Cell
from benchmarks.detection.child import RAISED, REFUSED
from benchmarks.detection.effect import compare_effects
from harness.record.observation import RunObservation
from harness.record.run import Step
from harness.rules.diagnosis import diagnose
from harness.rules.finding import Finding, Severity
from harness.watch.launch import Cost, Logged, RunOptions, build_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.detection.fault import Mutant
    from harness.record.run import TrainingRun

BROKEN = "a rule failed"
LOUD = (Severity.ERROR, Severity.WARNING)


@dataclass(slots=True)
class SeedVerdict:
    """What was found in one run.

    Attributes:
        seed: Of the run.
        status: "finished", "raised" by the program itself, "refused" by the harness, or "a rule failed".
        findings: All of them, notes too.
        message: Why it raised or was refused.
        changed: The aspects in which it differs from the clean run with the same seed.
        losses: Its losses.
    """

    seed: int
    status: str
    findings: list[Finding] = field(default_factory=list)
    message: str = ""
    changed: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def codes(self) -> list[str]:
        """Codes of errors and warnings, the leading one first; "refused" where nothing could be judged."""
        if self.status == REFUSED:
            return [REFUSED]
        return list(dict.fromkeys(finding.code for finding in self.findings if finding.severity in LOUD))


@dataclass(slots=True)
class Verdict:
    """What was found of a mutant over all seeds."""

    mutant: Mutant
    seeds: list[SeedVerdict]

    @property
    def dropped(self) -> str:
        """Why the mutant does not count; empty where it does."""
        if not self.seeds:
            return "it was not recorded"
        if any(seed.status == RAISED for seed in self.seeds):
            return f"the program fails by itself: {self.seeds[0].message.partition(chr(10))[0]}"
        same = [str(seed.seed) for seed in self.seeds if not seed.changed]
        return f"it changes nothing with seed {', '.join(same)}" if same else ""

    @property
    def num_with_notes(self) -> int:
        """Runs with a finding of any kind."""
        return sum(bool(seed.findings) for seed in self.seeds)

    @property
    def is_found(self) -> bool:
        """Whether an error or a warning tells of it with every seed."""
        return all(seed.codes for seed in self.seeds)

    @property
    def is_named(self) -> bool:
        """Whether the leading finding names its cause with every seed."""
        expected = self.mutant.fault.expected if self.mutant.fault else ()
        return self.is_found and all(seed.codes[0].startswith(expected) for seed in self.seeds)

    @property
    def code(self) -> str:
        """The leading code of the first seed; empty where there is none."""
        return next(iter(self.seeds[0].codes), "") if self.seeds else ""


def load_run(cell: Cell) -> TrainingRun:
    """The recorded run, as `harness check` would have built it; its files stand in the cell's folder.

    Raises:
        ObservationError: There is nothing to judge in it.
    """
    record = cell.read_record()
    options = RunOptions(
        name=record["name"], run_dir=(cell.folder / RUN_FOLDER).resolve(), threads=record["threads"]
    )
    logged = Logged([Step(**step) for step in record["logged"]], record["logged_source"])
    seen = [RunObservation.from_json(record["observed"])] if record["observed"] else []
    cost = Cost(record["wall_clock_s"], record["peak_memory_bytes"], record["waiting_s"])
    run = build_run(options, logged, seen, cost, command=("python", f"{cell.mutant.program}.py"))
    run.notes += [note for note in record["notes"] if note not in run.notes]
    return run


def judge_cell(cell: Cell, *, clean: Cell | None) -> SeedVerdict:
    """What the rules say of one recorded run, and in what it differs from the clean one."""
    record = cell.read_record()
    verdict = SeedVerdict(cell.seed, record["status"], message=record["message"])
    if clean is not None and clean.is_recorded:
        verdict.changed = compare_effects(clean.read_effect(), cell.read_effect())
    if verdict.status in (RAISED, REFUSED):
        return verdict
    try:
        run = load_run(cell)
        verdict.losses = run.losses
        verdict.findings = list(diagnose(run).findings)
    except Exception as error:  # noqa: BLE001  one broken rule must not hide what the others say of other runs
        place = traceback.extract_tb(error.__traceback__)[-1]
        verdict.status = BROKEN
        verdict.message = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return verdict


def judge_mutants(rows: Sequence[tuple[Mutant, list[Cell], list[Cell]]], *, jobs: int) -> list[Verdict]:
    """The verdicts over mutants, each given with its cells and the clean cells of the same seeds."""
    tasks = [
        (cell, clean if mutant.fault else None)
        for mutant, cells, cleans in rows
        for cell, clean in zip(cells, cleans, strict=True)
        if cell.is_recorded
    ]
    found: dict[str, list[SeedVerdict]] = {}
    for (cell, _), verdict in zip(tasks, _judge_all(tasks, jobs), strict=True):
        found.setdefault(cell.mutant.name, []).append(verdict)
    return [Verdict(mutant, found.get(mutant.name, [])) for mutant, _, _ in rows]


def _judge_all(tasks: Sequence[tuple[Cell, Cell | None]], jobs: int) -> Iterable[SeedVerdict]:
    if jobs == 1:
        return [_judge_task(task) for task in tasks]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return pool.map(_judge_task, tasks, chunksize=4)


def _judge_task(task: tuple[Cell, Cell | None]) -> SeedVerdict:
    cell, clean = task
    return judge_cell(cell, clean=clean)


def tell_findings(verdict: Verdict) -> str:
    """A few lines per mutant: what was found, what changed, whether it counts."""
    fault = verdict.mutant.fault
    expected = f" (expected {', '.join(fault.expected)})" if fault else ""
    state = _tell_state(verdict)
    lines = [f"{verdict.mutant.name}: {state}{expected}"]
    for seed in verdict.seeds:
        if fault is not None:
            lines.append(f"  seed {seed.seed}: changes {', '.join(seed.changed) or 'nothing'}")
        if seed.message:
            lines.append(f"    {seed.status}: {seed.message.partition(chr(10))[0]}")
        lines += [
            f"    {finding.severity} {finding.code} {finding.name} [{finding.subject}] {finding.message}"
            for finding in seed.findings
        ]
    return "\n".join(lines)


def _tell_state(verdict: Verdict) -> str:
    if verdict.mutant.fault is None:
        alarms = sum(bool(seed.codes) for seed in verdict.seeds)
        return f"ALARM in {alarms} of {len(verdict.seeds)} runs" if alarms else "quiet"
    if verdict.dropped:
        return f"DROPPED, {verdict.dropped}"
    if not verdict.is_found:
        told = [seed.seed for seed in verdict.seeds if seed.codes]
        return f"MISSED{f' (seen with seeds {told} only)' if told else ''}"
    codes = " ".join(dict.fromkeys(code for seed in verdict.seeds for code in seed.codes))
    return f"{'NAMED' if verdict.is_named else 'found'} {codes}"


def count(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The figures over a list of mutants: how many count, are found and named, by mutant and by fault."""
    counted = [verdict for verdict in verdicts if verdict.mutant.fault and not verdict.dropped]
    faults: dict[str, list[Verdict]] = {}
    for verdict in counted:
        faults.setdefault(verdict.mutant.fault_id, []).append(verdict)
    every = [seed for verdict in verdicts if verdict.mutant.fault is None for seed in verdict.seeds]
    clean = [seed for seed in every if seed.status != REFUSED]
    return {
        "mutants": len(counted),
        "mutants_found": sum(verdict.is_found for verdict in counted),
        "mutants_named": sum(verdict.is_named for verdict in counted),
        "faults": len(faults),
        "faults_found": sum(all(verdict.is_found for verdict in group) for group in faults.values()),
        "faults_named": sum(all(verdict.is_named for verdict in group) for group in faults.values()),
        "clean_runs": len(clean),
        "clean_not_judged": len(every) - len(clean),
        "clean_alarms": sum(bool(seed.codes) for seed in clean),
        "clean_notes": sum(bool(seed.findings) and not seed.codes for seed in clean),
    }


def share(part: int, whole: int) -> str:
    """A share in per cent, with both numbers."""
    return f"{part / whole:.0%} ({part} of {whole})" if whole else "none"
