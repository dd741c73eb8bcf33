"""Writes the section of docs/detection.md about what changed first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.detection.document import SHORT
from benchmarks.detection.faults import PROGRAMS
from benchmarks.detection.judge import share
from benchmarks.detection.section import BEGIN, END
from benchmarks.divergence.changes import CHANGES
from benchmarks.divergence.changes.several_models import SEVERAL_CHANGES
from benchmarks.divergence.crossing import RATE
from benchmarks.divergence.judge import COUNTED, Outcome, count_outcomes
from benchmarks.divergence.noise import build_table
from benchmarks.divergence.rows import CHANGE, GALLERY, SEVERAL, find_set
from harness.baselines.building import TRACED_STEPS
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.divergence.crossing import Crossing
    from benchmarks.divergence.judge import Verdict
    from benchmarks.divergence.repeats import RepeatSeries

TEMPLATE = Path(__file__).with_name("template.md")
SAME = (Outcome.SILENT, Outcome.NOTED)


def build_section(
    verdicts: Sequence[Verdict],
    series: Sequence[RepeatSeries],
    crossings: Sequence[Crossing],
    noise: dict[tuple[str, int], list[float]],
) -> str:
    """The whole section, with its marks."""
    by_set = {
        name: [v for v in verdicts if find_set(v.mutant) == name] for name in (CHANGE, SEVERAL, GALLERY)
    }
    text = TEMPLATE.read_text(encoding="utf-8").format(
        num_changes=len(CHANGES) - len(SEVERAL_CHANGES),
        num_several=len(SEVERAL_CHANGES),
        steps=TRACED_STEPS,
        summary=_build_summary(by_set),
        wrong=_list_wrong(verdicts),
        repeats=_build_repeats(series),
        machines=_build_machines(crossings),
        noise=build_table(noise),
        changes=_build_table(by_set[CHANGE]),
        several=_build_list(by_set[SEVERAL]),
        gallery=_build_table(by_set[GALLERY]),
    )
    return f"{BEGIN}\n\n{text.strip()}\n\n{END}"


def _build_summary(by_set: dict[str, list[Verdict]]) -> str:
    lines = [
        "| | mutants | train the same | said to match | differ | right phase |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = {
        CHANGE: "changes that no single run shows",
        SEVERAL: "the same, of several models or optimizers",
        GALLERY: "faults of the gallery",
    }
    for name, verdicts in by_set.items():
        lines.append(_build_row(names[name], verdicts))
    lines.append(_build_row("**all**", [verdict for own in by_set.values() for verdict in own]))
    lines += ["", "| right phase | differ | right |", "| --- | --- | --- |"]
    for phase in Phase:
        own = [
            v for vs in by_set.values() for v in vs if v.truth.phases[:1] == (phase,) and v.outcome in COUNTED
        ]
        right = sum(verdict.outcome is Outcome.RIGHT for verdict in own)
        lines.append(f"| {phase} | {len(own)} | {share(right, len(own))} |")
    return "\n".join(lines)


def _build_row(name: str, verdicts: Sequence[Verdict]) -> str:
    found = count_outcomes(verdicts)
    differ = sum(found[outcome] for outcome in COUNTED)
    silent = sum(found[outcome] for outcome in SAME)
    same = silent + found[Outcome.ALARM]
    cells = [name, str(len(verdicts)), str(same), share(silent, same), str(differ)]
    return f"| {' | '.join([*cells, share(found[Outcome.RIGHT], differ)])} |"


def _list_wrong(verdicts: Sequence[Verdict]) -> str:
    wrong = [
        v for v in verdicts if v.outcome in (Outcome.WRONG, Outcome.MISSED, Outcome.ALARM, Outcome.BROKEN)
    ]
    lines = ["Not right:", ""]
    for verdict in wrong:
        found = verdict.divergence
        said = f"{found.phase} in step {found.step} ({found.item})" if found else "nothing"
        right = " or ".join(verdict.truth.phases) or "nothing"
        lines.append(f"- {verdict.mutant.name}: said {said}; right is {right}")
    refused = [v for v in verdicts if v.outcome is Outcome.REFUSED]
    if refused:
        lines += ["", "Could not be compared, and say so, which fails as well:", ""]
        lines += [f"- {verdict.mutant.name}: {verdict.message}" for verdict in refused]
    failed = [v for v in verdicts if v.outcome is Outcome.FAILED]
    if failed:
        lines += ["", "Fail by themselves, and do not count:", ""]
        lines += [f"- {verdict.mutant.name}: {verdict.message}" for verdict in failed]
    return "\n".join(lines if wrong else lines[2:])


def _build_repeats(series: Sequence[RepeatSeries]) -> str:
    lines = ["| machine | repeats | compared bit by bit | said to differ |", "| --- | --- | --- | --- |"]
    for one in series:
        load = ", all processors busy with another load" if one.is_loaded else ""
        lines.append(f"| {one.machine}{load} | {one.num_runs} | {one.num_exact} | {len(one.strange)} |")
    return "\n".join(lines)


def _build_machines(crossings: Sequence[Crossing]) -> str:
    heads = [
        "other machine",
        "clean programs pass",
        "learning rate x3 is seen",
        "changes seen",
        "of these right",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for machine in dict.fromkeys(crossing.machine for crossing in crossings):
        own = [crossing for crossing in crossings if crossing.machine == machine]
        clean = [crossing for crossing in own if crossing.mutant.fault is None]
        changed = [crossing for crossing in own if crossing.mutant.fault is not None]
        rates = [crossing for crossing in changed if crossing.mutant.fault_id == RATE]
        seen = [crossing for crossing in changed if not crossing.passes]
        cells = [
            machine,
            share(sum(crossing.passes for crossing in clean), len(clean)),
            share(sum(not crossing.passes for crossing in rates), len(rates)),
            share(len(seen), len(changed)),
            share(sum(crossing.is_right for crossing in seen), len(seen)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    alarms = [crossing for crossing in crossings if crossing.mutant.fault is None and not crossing.passes]
    if alarms:
        names = dict.fromkeys(crossing.mutant.program for crossing in alarms)
        lines += ["", f"Clean programs that were said to differ on some machine: {', '.join(names)}."]
    return "\n".join(lines)


def _build_table(verdicts: Sequence[Verdict]) -> str:
    programs = [program for program in PROGRAMS if any(v.mutant.program == program for v in verdicts)]
    heads = ["change", "right", *(SHORT[program] for program in programs)]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name in dict.fromkeys(verdict.mutant.fault_id for verdict in verdicts):
        own = {verdict.mutant.program: verdict for verdict in verdicts if verdict.mutant.fault_id == name}
        cells = [_tell_cell(own[program]) if program in own else "" for program in programs]
        lines.append(f"| {' | '.join([*_describe(list(own.values())), *cells])} |")
    return "\n".join(lines)


def _build_list(verdicts: Sequence[Verdict]) -> str:
    """The same where there are too many programs for a column each."""
    lines = ["| change | right | named |", "| --- | --- | --- |"]
    for name in dict.fromkeys(verdict.mutant.fault_id for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.mutant.fault_id == name]
        named = ", ".join(
            f"{verdict.mutant.program.rpartition('/')[2]} {_tell_cell(verdict)}" for verdict in own
        )
        lines.append(f"| {' | '.join([*_describe(own), named])} |")
    return "\n".join(lines)


def _describe(verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """What a change is, and the phases that are right in one of its programs."""
    first = verdicts[0].mutant
    phases = dict.fromkeys(phase for verdict in verdicts for phase in verdict.truth.phases)
    summary = first.fault.summary if first.fault else ""
    return f"**{first.fault_id}**: {summary}", " or ".join(phases) or "nothing"


def _tell_cell(verdict: Verdict) -> str:
    if verdict.outcome in SAME:
        return "="
    if verdict.divergence is None:
        return str(verdict.outcome)
    return f"**{verdict.phase}**" if verdict.outcome is Outcome.RIGHT else str(verdict.phase)
