"""Writes docs/detection.md: what is found of every fault, beside what other ways to check find."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.detection.faults import BY_ID, PROGRAMS
from benchmarks.detection.faults.baseline import NEEDS_BASELINE
from benchmarks.detection.judge import LOUD, count, share
from benchmarks.detection.peers.baselines import fails_loss_baseline, fails_naive_check
from harness.rules.catalogue import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.detection.fault import Fault
    from benchmarks.detection.judge import Verdict

MISSED = "–"  # noqa: RUF001  a dash, as in any table
SHORT = {
    "language_model": "language model",
    "image_classifier": "images",
    "gan": "GAN",
    "autoencoder": "autoencoder",
    "hf_trainer": "Trainer",
    "lightning_trainer": "Lightning",
}
TEMPLATE = Path(__file__).with_name("template.md")


@dataclass(frozen=True, slots=True)
class Peers:
    """Which mutants the other checks find, by the mutant's name."""

    naive: Mapping[str, bool]
    baseline: Mapping[str, bool]
    plugin: Mapping[str, bool]


def compare_peers(verdicts: Sequence[Verdict], plugin: Mapping[str, bool]) -> Peers:
    """What the other checks find of the mutants that were judged."""
    clean = {verdict.mutant.program: verdict for verdict in verdicts if verdict.mutant.fault is None}
    naive, baseline = {}, {}
    for verdict in verdicts:
        own = clean.get(verdict.mutant.program)
        references = {seed.seed: seed.losses for seed in own.seeds} if own else {}
        name = verdict.mutant.name
        naive[name] = all(fails_naive_check(seed.losses) for seed in verdict.seeds)
        baseline[name] = all(
            fails_loss_baseline(seed.losses, references.get(seed.seed, [])) for seed in verdict.seeds
        )
    return Peers(naive, baseline, plugin)


def build_document(verdicts: Sequence[Verdict], peers: Peers, *, num_seeds: int) -> str:
    """The whole page."""
    counted = [verdict for verdict in verdicts if verdict.mutant.fault and not verdict.dropped]
    faults = [BY_ID[name] for name in dict.fromkeys(verdict.mutant.fault_id for verdict in counted)]
    tables = []
    for family, title in FAMILIES.items():
        of_family = [fault for fault in faults if _find_family(fault) == family]
        if of_family:
            tables.append(_build_table(f"{family}xx {title}", of_family, counted, peers))
    dropped = [verdict for verdict in verdicts if verdict.mutant.fault and verdict.dropped]
    page = TEMPLATE.read_text(encoding="utf-8").format(
        seeds=num_seeds,
        summary=_build_summary(verdicts, counted, peers),
        tables="\n".join(tables),
        dropped="\n".join(f"- {verdict.mutant.name}: {verdict.dropped}" for verdict in dropped) or "- none",
        needs_baseline="\n".join(f"- {fault}: {reason}" for fault, reason in NEEDS_BASELINE.items()),
    )
    return page + _tell_alarms(verdicts)


def _find_family(fault: Fault) -> str:
    return next((code[:2] for code in fault.expected if code[:2] in FAMILIES), "")


def _build_summary(verdicts: Sequence[Verdict], counted: Sequence[Verdict], peers: Peers) -> str:
    figures = count(verdicts)
    whole = len(counted)
    tested = [verdict for verdict in counted if verdict.mutant.name in peers.plugin]
    found = share(figures["mutants_found"], whole)
    named = share(figures["mutants_named"], whole)
    alarms = f"{figures['clean_alarms']} of {figures['clean_runs']} runs"
    by_plugin = share(_count_where(tested, peers.plugin), len(tested))
    by_baseline = share(_count_where(counted, peers.baseline), whole)
    by_naive = share(_count_where(counted, peers.naive), whole)
    rows = (
        ("**the rules**", f"**{found}**", f"**{named}**", f"**{alarms}**"),
        ("pytest-torch", by_plugin, "", _count_clean(verdicts, peers.plugin)),
        ("5 % baseline", by_baseline, "", ""),
        ("loss falls", by_naive, "", _count_clean(verdicts, peers.naive)),
    )
    return "\n".join(
        [
            f"{figures['faults']} faults in {figures['mutants']} mutants that change something.",
            "",
            "| | mutants found | cause first | alarms in clean runs |",
            "| --- | --- | --- | --- |",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            (
                f"{figures['faults_found']} of the {figures['faults']} faults are found in every program they were put "
                f"into, {figures['faults_named']} with the cause first. "
                f"{figures['clean_notes']} of the {figures['clean_runs']} clean runs have a note; "
                f"{figures['clean_not_judged']} more could not be judged, and say so: their gradients come from "
                "torch.func, and no loss is seen."
            ),
        ]
    )


def _count_where(verdicts: Sequence[Verdict], found: Mapping[str, bool]) -> int:
    return sum(found.get(verdict.mutant.name, False) for verdict in verdicts)


def _count_clean(verdicts: Sequence[Verdict], found: Mapping[str, bool]) -> str:
    clean = [verdict for verdict in verdicts if verdict.mutant.fault is None and verdict.mutant.name in found]
    return f"{_count_where(clean, found)} of {len(clean)} programs"


def _build_table(title: str, faults: Sequence[Fault], counted: Sequence[Verdict], peers: Peers) -> str:
    programs = [program for program in PROGRAMS if any(program in fault.edits for fault in faults)]
    heads = ["fault", *(SHORT[program] for program in programs), "loss falls", "5 %", "pytest-torch"]
    lines = [f"### {title}", "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for fault in faults:
        own = {v.mutant.program: v for v in counted if v.mutant.fault is fault}
        name = f"[{fault.id}]({fault.source})" if fault.source else fault.id
        cells = [_tell_cell(own[program]) if program in own else "" for program in programs]
        columns = [_tell_peer(own, found) for found in (peers.naive, peers.baseline, peers.plugin)]
        lines.append(f"| {' | '.join([f'**{name}**: {fault.summary}', *cells, *columns])} |")
    return "\n".join([*lines, ""])


def _tell_cell(verdict: Verdict) -> str:
    if not verdict.is_found:
        return MISSED
    return f"**{verdict.code}**" if verdict.is_named else verdict.code


def _tell_peer(own: Mapping[str, Verdict], found: Mapping[str, bool]) -> str:
    known = [found[verdict.mutant.name] for verdict in own.values() if verdict.mutant.name in found]
    if not known:
        return ""
    return f"{sum(known)} of {len(known)}" if any(known) else MISSED


def _tell_alarms(verdicts: Sequence[Verdict]) -> str:
    """The errors and warnings of clean runs, as a section of their own; empty without any."""
    alarms = [
        f"- {verdict.mutant.program}, seed {seed.seed}: {finding.code} {finding.name} ({finding.subject})"
        for verdict in verdicts
        if verdict.mutant.fault is None
        for seed in verdict.seeds
        for finding in seed.findings
        if finding.severity in LOUD
    ]
    return "\n".join(["", "## Alarms in clean runs", "", *alarms, ""]) if alarms else ""
