"""Head against base, in words and as JSON."""

from __future__ import annotations

import functools
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.budgets.counters import tell_counters
from harness.budgets.metrics import PEAK_MEMORY, STEP_TIME, THROUGHPUT
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.budgets.ab import PairedVerdict, PhaseChange, Ratio
    from harness.budgets.launch_pair import LaunchPair
    from harness.record.counters import CountedStep

MIN_SHARE = 0.005
"""A phase that takes less of the step in both is left out of the table."""
MAX_LISTED = 5
GAP = "  "


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two programs, as it is told: see `ArmSummary` for the numbers."""

    name: str
    num_steps: int
    first_step_s: float
    peak_memory_bytes: float | None
    num_samples: float | None
    num_tokens: float | None
    counted: CountedStep | None


@dataclass(frozen=True, slots=True)
class Told:
    """All that is told of a comparison.

    Attributes:
        verdict: The verdict and its numbers.
        base: The base.
        head: The head.
        ratios: Changes of what is not judged, by the names of metrics.
        pairs: The pairs of processes.
        wall_clock_s: What it took.
        has_equal_losses: Whether both had the same losses to the last bit.
        loaded_changes: Changed files that a program loaded.
        base_commit: What `git diff` calls the base.
        head_commit: The same of the head; None for the work tree.
        notes: What a reader should know.
    """

    verdict: PairedVerdict
    base: Side
    head: Side
    ratios: Mapping[str, Ratio]
    pairs: Sequence[LaunchPair]
    wall_clock_s: float
    has_equal_losses: bool
    loaded_changes: Sequence[str]
    base_commit: str
    head_commit: str | None
    notes: Sequence[str]


def tell_comparison(told: Told) -> str:
    """The comparison for people: what was compared, a short table, the verdict, what to do next."""
    verdict = told.verdict
    num_steps = sum(pair.num_steps for pair in told.pairs)
    lines = [
        f"base: {told.base.name}",
        f"head: {told.head.name}",
        f"{verdict.num_pairs} pairs of processes, {num_steps} steps of each compared, {told.wall_clock_s:.0f} s",
        "",
        *_draw_table(told),
        "",
        _tell_losses(told),
        *_tell_operations(told),
        *(f"note: {note}" for note in told.notes),
        _tell_verdict(verdict),
    ]
    if (next_command := _find_next(told)) is not None:
        lines.append(f"Next: {next_command}")
    return "\n".join(lines)


def describe_comparison(told: Told) -> dict[str, Any]:
    """The comparison as a JSON object; times are in seconds, changes are shares."""
    verdict = told.verdict
    return {
        "outcome": str(verdict.verdict),
        "message": _tell_verdict(verdict),
        "step_time": asdict(verdict.step_time),
        "tolerance": verdict.tolerance,
        "num_pairs": verdict.num_pairs,
        "drift": verdict.drift,
        "ratios": {name: asdict(ratio) for name, ratio in told.ratios.items()},
        "phases": [asdict(phase) for phase in verdict.phases],
        "has_equal_losses": told.has_equal_losses,
        "base": asdict(told.base) | {"commit": told.base_commit},
        "head": asdict(told.head) | {"commit": told.head_commit},
        "loaded_changes": list(told.loaded_changes),
        "pairs": [asdict(pair) for pair in told.pairs],
        "wall_clock_s": told.wall_clock_s,
        "notes": list(told.notes),
    }


def _draw_table(told: Told) -> list[str]:
    verdict = told.verdict
    base_s = sum(pair.base_step_s for pair in told.pairs) / len(told.pairs)
    head_s = sum(pair.head_step_s for pair in told.pairs) / len(told.pairs)
    rows: list[tuple[str, ...]] = [("", "base", "head", "change", "")]
    rows.append(
        (
            "step time",
            *map(STEP_TIME.show, (base_s, head_s)),
            f"{verdict.step_time.change:+.1%}",
            _tell_interval(verdict.step_time.low, verdict.step_time.high),
        )
    )
    for phase in verdict.phases:
        if max(phase.base_s / base_s, phase.head_s / head_s) >= MIN_SHARE:
            is_slower = phase.is_named and verdict.verdict is Verdict.REGRESSED
            interval = _tell_interval(phase.low, phase.high) + ("; got slower" if is_slower else "")
            of_step = f"{phase.growth:+.1%} of a step"
            rows.append(
                (f"{GAP}{phase.phase}", *map(STEP_TIME.show, (phase.base_s, phase.head_s)), of_step, interval)
            )
    base, head = told.base, told.head
    ratios = told.ratios
    memory: Callable[[float], str] = PEAK_MEMORY.show
    rows += _build_throughput(told, base_s, head_s)
    rows += _build_row(
        "peak memory", base.peak_memory_bytes, head.peak_memory_bytes, memory, ratios.get(PEAK_MEMORY.name)
    )
    rows += _build_row("samples a step", base.num_samples, head.num_samples, "{:g}".format)
    rows += _build_row("tokens a step", base.num_tokens, head.num_tokens, "{:g}".format)
    rows += _build_row(
        "first step after", base.first_step_s, head.first_step_s, STEP_TIME.show, ratios.get("first_step_s")
    )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        GAP.join(
            [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in (1, 2, 3)), row[4]]
        ).rstrip()
        for row in rows
    ]


def _build_throughput(told: Told, base_s: float, head_s: float) -> list[tuple[str, ...]]:
    """In tokens where both programs show theirs, else in samples."""
    base, head = told.base, told.head
    seen = (("tokens/s", base.num_tokens, head.num_tokens), ("samples/s", base.num_samples, head.num_samples))
    for unit, theirs, ours in seen:
        if theirs and ours:
            show = functools.partial(THROUGHPUT.show, unit=unit)
            ratio = told.ratios.get(THROUGHPUT.name)
            return _build_row("throughput", theirs / base_s, ours / head_s, show, ratio)
    return []


def _build_row(
    name: str,
    base: float | None,
    head: float | None,
    show: Callable[[float], str],
    ratio: Ratio | None = None,
) -> list[tuple[str, ...]]:
    if base is None or head is None:
        return []
    change = "equal" if not base or head == base else f"{head / base - 1:+.1%}"
    if ratio is None:
        return [(name, show(base), show(head), change, "")]
    return [(name, show(base), show(head), f"{ratio.change:+.1%}", _tell_interval(ratio.low, ratio.high))]


def _tell_interval(low: float, high: float) -> str:
    return f"95 %: {low:+.1%} to {high:+.1%}"


def _tell_losses(told: Told) -> str:
    if told.has_equal_losses:
        return "losses: the same to the last bit, so it is the same training"
    return "losses: they differ, so head trains otherwise than base"


def _tell_operations(told: Told) -> list[str]:
    base, head = told.base.counted, told.head.counted
    if base is None or head is None:
        return ["operations: they could not be counted"]
    changes = tell_counters(base, head)
    if not changes:
        return [f"operations: equal, {head.num_ops:,} and {head.num_flops:,} FLOPs a step"]
    return [f"operations: {base.num_ops:,} -> {head.num_ops:,} a step", *(f"{GAP}{line}" for line in changes)]


def _tell_verdict(verdict: PairedVerdict) -> str:
    ratio, allowed = verdict.step_time, f"{verdict.tolerance:.1%} allowed"
    interval, change = _tell_interval(ratio.low, ratio.high), f"{abs(ratio.change):.1%}"
    if verdict.verdict is Verdict.REGRESSED:
        return (
            f"regressed: a step of head takes {change} longer than one of base ({interval}; {allowed})"
            f"{_name_phases(verdict.phases)}"
        )
    if verdict.verdict is Verdict.IMPROVED:
        return f"improved: a step of head takes {change} less than one of base ({interval})"
    if verdict.verdict is Verdict.PASS:
        return f"pass: the step time changed by {ratio.change:+.1%} ({interval}; {allowed})"
    if verdict.verdict is Verdict.NOT_STEADY:
        return (
            "not steady: how much head differs from base depends on the step. From the first to the second half of "
            f"the steps the ratio moved by {verdict.drift:+.1%}, so that no one change tells it ({interval})"
        )
    return (
        f"inconclusive: the step time changed by {ratio.change:+.1%} ({interval}; {allowed}); "
        f"{verdict.num_pairs} pairs are too few to tell on this machine, as noisy as it is"
    )


def _name_phases(phases: Sequence[PhaseChange]) -> str:
    named = sorted((phase for phase in phases if phase.is_named), key=lambda phase: -phase.growth)
    if not named:
        return "; no one phase of it stands out"
    told = [
        f"{phase.phase} {STEP_TIME.show(phase.base_s)} -> {STEP_TIME.show(phase.head_s)}" for phase in named
    ]
    return f"; slower: {', '.join(told)}"


def _find_next(told: Told) -> str | None:
    verdict = told.verdict.verdict
    if verdict is Verdict.REGRESSED:
        files = [shlex.quote(path) for path in told.loaded_changes[:MAX_LISTED]]
        ends = [told.base_commit, *([told.head_commit] if told.head_commit else [])]
        return " ".join(["git diff", *ends, *(["--", *files] if files else [])])
    if verdict is Verdict.INCONCLUSIVE:
        return "run it again when nothing else runs, or give it more time: --allowance 300"
    if verdict is Verdict.NOT_STEADY:
        return "look at the times of single steps (pairs in --json FILE): something grows, or is still warming up."
    return None
