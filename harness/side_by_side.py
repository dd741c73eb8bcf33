"""Compares two programs in pairs of fresh processes, until the verdict stands or the time is over."""

from __future__ import annotations

import math
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import clock
from harness.budgets.ab import LOOKS, estimate, judge_pairs
from harness.budgets.launch_pair import MIN_STEPS, build_launch_pair
from harness.budgets.metrics import PEAK_MEMORY, THROUGHPUT
from harness.errors import ObservationError
from harness.record.counters import summarize_counts
from harness.watch.interleaving import TurnPlan, run_pair
from harness.watch.options import Depth, ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.budgets.ab import PairedVerdict, Ratio
    from harness.budgets.launch_pair import LaunchPair
    from harness.record.counters import CountedStep
    from harness.record.observation import RunObservation
    from harness.watch.arms import ArmRecord, Program
    from harness.watch.interleaving import PairRecord

ALLOWANCE_S = 60.0
COUNTED_STEPS = (3, 4, 5)
"""Steps of the first pair of processes whose operations are counted; they are not timed."""
OUT = "{out}"
"""In a program's words: an empty folder of its own for each process, gone after the comparison."""
HASH_SEED = "PYTHONHASHSEED"
FIRST_STEP = "first_step_s"
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""Has glibc keep the memory that a step frees for the next one, where the environment does not say otherwise.

Else it is luck how much of it goes back to the system and is fetched again, page by page: of seven pairs of equal
processes, the page faults of one differed by 2 to 44 %, and its step time went along with them (r = 0.8).
"""


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """How to compare."""

    tolerance: float = 0.02
    """Allowed change of the step time, as a share."""
    allowance_s: float = ALLOWANCE_S
    """Seconds after which no further pair is started, once there are enough for a first look."""
    timeout_s: float = 300.0
    """Seconds without the end of a step after which a program counts as hanging."""
    max_steps: int | None = None
    """Steps after which each process is ended, also where more would be compared; None sets no limit."""
    num_threads: int = 1
    """Threads of each program, and cores they share; one is steadier by far."""
    plan: TurnPlan = field(default_factory=TurnPlan)
    """The turns of one pair of processes."""


@dataclass(slots=True)
class ArmSummary:
    """What the processes of one program showed, beside its times.

    Attributes:
        num_steps: Steps of a process, with those after the last turn; the most of them.
        ended_itself: Whether one came to its own end.
        first_step_s: Seconds from start to the end of the first step; median over the processes.
        peak_memory_bytes: Peak resident set, or on CUDA peak allocated bytes; median.
        num_samples: Samples of a step; median. None where they are not seen.
        num_tokens: The same of tokens.
        losses: Losses of the steps of the first process in which none was counted.
        counted: Operations of a step, of the first process; None where they could not be counted.
        repeats_itself: Whether every process in which none was counted had the same losses.
    """

    num_steps: int
    ended_itself: bool
    first_step_s: float
    peak_memory_bytes: float | None
    num_samples: float | None
    num_tokens: float | None
    losses: list[float | None]
    counted: CountedStep | None
    repeats_itself: bool


@dataclass(slots=True)
class Comparison:
    """The whole of a comparison.

    Attributes:
        verdict: The verdict and its numbers.
        base: What the base showed.
        head: What the head showed.
        ratios: Changes of what is not judged, by the names of metrics: throughput, peak memory, time to first step.
        pairs: One a pair of processes, in the order they ran.
        wall_clock_s: What the comparison took.
        notes: What a reader should know.
    """

    verdict: PairedVerdict
    base: ArmSummary
    head: ArmSummary
    ratios: dict[str, Ratio]
    pairs: list[LaunchPair]
    wall_clock_s: float
    notes: list[str]

    @property
    def has_equal_losses(self) -> bool:
        """Whether the losses of both are the same to the last bit, over the steps that both made."""
        num = min(len(self.base.losses), len(self.head.losses))
        return num > 0 and self.base.losses[:num] == self.head.losses[:num]


def compare_programs(
    base: Program,
    head: Program,
    options: ComparisonOptions,
    *,
    check: Callable[[PairRecord], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Runs both programs in pairs until they can be judged.

    Args:
        base: The program as it was.
        head: The program as it is to be.
        options: How to compare.
        check: Refuses a pair that compares nothing, by raising.
        tell: Takes a line of progress.

    Raises:
        ObservationError: A program crashed, hung, or has too few steps.
        UsageError: A program can't be started.
    """
    start_s = clock.monotonic_s()
    records: list[PairRecord] = []
    pairs: list[LaunchPair] = []
    while True:
        counted_steps = () if records else COUNTED_STEPS
        record = _run_pair(base, head, options, number=len(records), counted_steps=counted_steps)
        if not records:
            check(record)
        pair = build_launch_pair(record.base.observation.steps, record.head.observation.steps, record.turns)
        if pair is None:
            raise ObservationError(_explain_too_few(record))
        records.append(record)
        pairs.append(pair)
        elapsed_s = clock.monotonic_s() - start_s
        tell(f"pair {len(pairs)}: {pair.log_ratio:+.1%} over {pair.num_steps} steps, {elapsed_s:.0f} s")
        if len(pairs) < LOOKS[0]:
            continue
        # The next pair must fit into the time.
        next_s = elapsed_s / len(pairs) * (len(pairs) + 1)
        verdict = judge_pairs(pairs, tolerance=options.tolerance, is_last=next_s > options.allowance_s)
        if verdict.is_final:
            break
    theirs = _summarize([record.base for record in records])
    ours = _summarize([record.head for record in records])
    return Comparison(
        verdict=verdict,
        base=theirs,
        head=ours,
        ratios=_compare_beside(theirs, ours, records, pairs),
        pairs=pairs,
        wall_clock_s=clock.monotonic_s() - start_s,
        notes=_list_notes(theirs, ours),
    )


def _run_pair(
    base: Program,
    head: Program,
    options: ComparisonOptions,
    *,
    number: int,
    counted_steps: tuple[int, ...] = (),
) -> PairRecord:
    with tempfile.TemporaryDirectory(prefix="harness-ab-pair-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        programs = []
        for program in (base, head):
            out = folder / f"out-{program.name}"
            out.mkdir()
            words = [word.replace(OUT, str(out)) for word in program.words]
            # The order of sets is luck as well: the same for both, and another in every pair.
            env = {HASH_SEED: str(number + 1), **ALLOCATOR, **program.env}
            programs.append(replace(program, words=words, env=env))
        return run_pair(
            programs[0],
            programs[1],
            folder,
            options.plan,
            watch=ObserverOptions(
                depth=Depth.LIGHT, max_steps=options.max_steps, counted_steps=counted_steps
            ),
            timeout_s=options.timeout_s,
            num_threads=options.num_threads,
            # Were there a gain in being the first, both would have it in turn.
            is_head_first=number % 2 == 1,
        )


def _summarize(records: Sequence[ArmRecord]) -> ArmSummary:
    counted, *seen = [record.observation for record in records]
    steps = [step for run in seen for step in run.steps]
    # A compiled program runs counted steps otherwise, and may round otherwise in them.
    losses = [[step.loss for step in run.steps] for run in seen]
    shortest = min(map(len, losses))
    peaks = [peak for record in records if (peak := _find_peak(record)) is not None]
    return ArmSummary(
        num_steps=max(map(len, losses)),
        ended_itself=any(record.ended_itself for record in records),
        first_step_s=statistics.median(record.first_step_s for record in records),
        peak_memory_bytes=statistics.median(peaks) if peaks else None,
        num_samples=_find_median([step.num_samples for step in steps]),
        num_tokens=_find_median([step.num_tokens for step in steps]),
        losses=losses[0],
        counted=summarize_counts(counted.counted_steps),
        repeats_itself=all(series[:shortest] == losses[0][:shortest] for series in losses),
    )


def _find_peak(record: ArmRecord) -> int | None:
    return record.observation.cuda_peak_bytes or record.peak_memory_bytes or None


def _compare_beside(
    base: ArmSummary, head: ArmSummary, records: Sequence[PairRecord], pairs: Sequence[LaunchPair]
) -> dict[str, Ratio]:
    logs = {FIRST_STEP: [math.log(record.head.first_step_s / record.base.first_step_s) for record in records]}
    peaks = [(_find_peak(record.base), _find_peak(record.head)) for record in records]
    if known := [(theirs, ours) for theirs, ours in peaks if theirs and ours]:
        logs[PEAK_MEMORY.name] = [math.log(ours / theirs) for theirs, ours in known]
    for theirs, ours in ((base.num_samples, head.num_samples), (base.num_tokens, head.num_tokens)):
        # Tokens, where both are seen.
        if theirs and ours:
            logs[THROUGHPUT.name] = [math.log(ours / theirs) - pair.log_ratio for pair in pairs]
    return {name: estimate(values) for name, values in logs.items() if len(values) > 1}


def _find_median(values: Sequence[int | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def _list_notes(base: ArmSummary, head: ArmSummary) -> list[str]:
    notes = [
        f"{name} does not repeat itself: its losses differ from process to process. Where it goes on from files "
        f"that an earlier process left, give it a new folder each time: --out {OUT}."
        for name, side in (("base", base), ("head", head))
        if not side.repeats_itself
    ]
    if (base.ended_itself or head.ended_itself) and base.num_steps != head.num_steps:
        fewer, more = sorted((("base", base), ("head", head)), key=lambda item: item[1].num_steps)
        least = "at least " if not more[1].ended_itself else ""
        notes.append(
            f"{fewer[0]} trains {fewer[1].num_steps} steps and {more[0]} {least}{more[1].num_steps}: the steps that "
            "both make are compared."
        )
    for noun, ours, theirs in (
        ("samples", head.num_samples, base.num_samples),
        ("tokens", head.num_tokens, base.num_tokens),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            notes.append(
                f"a step of head has {ours:g} {noun}, one of base {theirs:g}: their times are of unlike work."
            )
    return notes


def _explain_too_few(record: PairRecord) -> str:
    num = sum(map(len, record.turns))
    both: dict[str, RunObservation] = {"base": record.base.observation, "head": record.head.observation}
    made = ", ".join(f"{name} {len(run.steps)}" for name, run in both.items())
    return (
        f"too few steps to compare ({made}; {num} of them in turns): {MIN_STEPS} that both make and that are timed, "
        "after their warm-up, are the least.\nNext: let the program train 20 steps or more."
    )
