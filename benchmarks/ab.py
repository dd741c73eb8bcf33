"""How often `harness ab` is wrong: equal programs called regressed, and slowdowns of a known size not found.

    python -m benchmarks.ab --trials 300 --tolerance 0 0.02
    python -m benchmarks.ab --trials 40 --slower 0.02 0.03 0.05 0.1 0.2 --tolerance 0 0.02
    python -m benchmarks.ab --trials 100 --of owner/name@1234567 --folder ../name -- train.py --steps 500
    python -m benchmarks.ab --table

A trial is one comparison as a user gets it, from the first process to the verdict, of a program with itself. With
`--slower` one of them spins in a phase of every step, for a share of the step that is measured beforehand; the
phases take turns. The pairs of equal programs count at another tolerance too, where there are enough of them
(`benchmarks/rejudging.py`). The program is the reference model, or the words after `--`, as they follow `python` in
`--folder`; `{out}` among them becomes a folder of its own for each process. The records know it by `--of`.

Every trial is appended to the records as it ends, and what they hold of each kind counts towards `--trials`: a run
that was cut off goes on by the same command, on another day or machine too. Trials of other code, another program or
other looks stay in the file, count for nothing, and have tables of their own. `--table` only prints what there is.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import stats

from benchmarks.rejudging import list_judged, tell_judged_again
from benchmarks.subject import Subject, add_arguments, read_subject, split_words
from benchmarks.trial_records import (
    RECORDS,
    append_trial,
    describe_setup,
    find_revision,
    list_other_pools,
    read_trials,
    tell_left_out,
    tell_origin,
)
from harness.budgets.verdicts import Verdict
from harness.errors import HarnessError
from harness.record.environment import derive_runner_class
from harness.side_by_side import ComparisonOptions, compare_programs
from harness.watch.arms import Program
from harness.watch.environment import capture_environment
from harness.watch.interleaving import TurnPlan, run_pair
from harness.watch.options import Depth, ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SLOW_PHASE = Path(__file__).with_name("slow_phase.py")
PHASES = ("data", "forward", "backward", "optimizer")
REFERENCE = [
    *("-m", "reference_model", "--device", "cpu", "--max_steps", "2000", "--batch_size", "16"),
    *("--eval_every", "100000", "--checkpoint_every", "100000", "--out", "{out}"),
]
MAX_SECONDS = 60
USUAL_SECONDS = 50
"""What a trial takes, where none is recorded that tells."""
SPIN_TURNS = 200_000
NUM_SPINS = 25


def build_program(name: str, subject: Subject, phase: str, num_turns: int) -> Program:
    """The program, with a busy loop of so many turns in a phase."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(SLOW_PHASE), phase, str(num_turns), *subject.words]
    return Program(name, command, subject.folder, env)


def measure_turns(subject: Subject) -> float:
    """Turns of the busy loop that take as long as a step does, both at the pace of an idle machine."""
    with tempfile.TemporaryDirectory() as folder:
        programs = [
            build_program(name, replace(subject, words=subject.fill_in(f"{folder}/{name}-out")), "forward", 0)
            for name in ("base", "head")
        ]
        watch = ObserverOptions(depth=Depth.LIGHT)
        record = run_pair(programs[0], programs[1], Path(folder), TurnPlan(), watch=watch, timeout_s=300)
    steps = [
        step.time_s for arm in (record.base, record.head) for step in arm.observation.steps if step.time_s
    ]
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from slow_phase import spin\n"
        f"for _ in range({NUM_SPINS}):\n"
        f"    start = time.thread_time(); spin({SPIN_TURNS}); print(time.thread_time() - start)\n"
    )
    spun = subprocess.run(
        [sys.executable, "-c", code, str(SLOW_PHASE.parent)], capture_output=True, text=True, check=True
    )
    spin_s = statistics.quantiles(map(float, spun.stdout.split()), n=10)[0]
    return statistics.quantiles(steps, n=10)[0] / spin_s * SPIN_TURNS


def run_trial(
    subject: Subject, options: ComparisonOptions, *, slower: float, phase: str, turns: float
) -> dict[str, Any]:
    """One comparison, as a row."""
    start_s = time.perf_counter()
    base = build_program("base", subject, phase, 0)
    head = build_program("head", subject, phase, round(slower * turns))
    row: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": find_revision(),
        "machine": derive_runner_class(capture_environment(), device="cpu", threads=1),
        "load": round(os.getloadavg()[0], 2),
        "slower": slower,
        "phase": phase if slower else None,
        "turns": round(slower * turns),
        "tolerance": options.tolerance,
    }
    try:
        comparison = compare_programs(base, head, options)
    except HarnessError as error:
        seconds = round(time.perf_counter() - start_s, 1)
        return row | {"verdict": "not observed", "message": str(error), "seconds": seconds}
    verdict = comparison.verdict
    pair_s = comparison.wall_clock_s / verdict.num_pairs
    return row | {
        "verdict": str(verdict.verdict),
        "change": round(verdict.step_time.change, 6),
        "named": [part.phase for part in verdict.phases if part.is_named],
        "logs": [round(pair.log_ratio, 6) for pair in comparison.pairs],
        "base_s": [round(pair.base_step_s, 7) for pair in comparison.pairs],
        "drifts": [round(pair.drift, 6) for pair in comparison.pairs],
        "is_time_over": comparison.wall_clock_s + pair_s > options.allowance_s,
        "has_equal_losses": comparison.has_equal_losses,
        "seconds": round(time.perf_counter() - start_s, 1),
    }


def plan_trials(
    num_trials: int,
    slower: list[float],
    tolerance: list[float],
    done: Iterable[tuple[float, float]],
    phases: Sequence[str] = PHASES,
) -> list[tuple[float, float, str]]:
    """Slowdown, tolerance and phase of the trials that are still to be made, all kinds in turn."""
    kinds = [(share, allowed) for share in slower for allowed in tolerance]
    num_done = Counter(done)
    return [
        (*kind, phases[trial % len(phases)])
        for trial in range(num_trials)
        for kind in kinds
        if trial >= num_done[kind]
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Verdicts by slowdown and tolerance, with the interval of the rate of regressed ones."""
    groups: dict[tuple[float, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["slower"], row["tolerance"]].append(row)
    head = (
        *("slower by", "tolerance", "trials", "regressed", "95 %", "pass", "inconclusive", "other"),
        *("phase named", "measured", "pairs", "seconds", f"above {MAX_SECONDS} s", "SD of a pair", "load"),
    )
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for (slower, tolerance), group in sorted(groups.items()):
        print(f"| {' | '.join([f'{slower:.0%}', f'{tolerance:.0%}', *describe_group(group)])} |")


def describe_group(group: list[dict[str, Any]]) -> list[str]:
    """The cells of trials of one kind; medians over those that came to a verdict."""
    verdicts = Counter(row["verdict"] for row in group)
    num = verdicts[Verdict.REGRESSED]
    others = len(group) - num - verdicts[Verdict.PASS] - verdicts[Verdict.INCONCLUSIVE]
    interval = stats.binomtest(num, len(group)).proportion_ci()
    counts = [
        *(str(len(group)), str(num), f"{interval.low:.1%} to {interval.high:.1%}"),
        *(str(verdicts[Verdict.PASS]), str(verdicts[Verdict.INCONCLUSIVE]), str(others)),
    ]
    seen = [row for row in group if "logs" in row]
    if not seen:
        return [*counts, *[""] * 7]
    regressed = [row for row in seen if row["verdict"] == Verdict.REGRESSED and row["phase"]]
    named = sum(row["named"] == [row["phase"]] for row in regressed)

    seconds = [row["seconds"] for row in seen if "seconds" in row]

    def find_median(values: list[float]) -> float:
        return statistics.median(values)

    return [
        *counts,
        f"{named} of {len(regressed)}" if regressed else "",
        f"{find_median([row['change'] for row in seen]):+.1%}",
        f"{find_median([len(row['logs']) for row in seen]):g}",
        f"{find_median(seconds):.0f}" if seconds else "",
        f"{sum(value > MAX_SECONDS for value in seconds)}" if seconds else "",
        f"{find_median([statistics.stdev(row['logs']) for row in seen]):.2%}",
        f"{find_median([row['load'] for row in seen]):.1f}",
    ]


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The arguments, with the program as words, and the setup of its trials."""
    own, program = split_words(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10, help="comparisons of each slowdown and tolerance")
    parser.add_argument("--slower", type=float, nargs="*", default=[0.0], help="shares of a step; 0 is A/A")
    parser.add_argument("--tolerance", type=float, nargs="*", default=[0.02])
    parser.add_argument("--allowance", type=float, default=ComparisonOptions().allowance_s)
    add_arguments(parser)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="those made slower")
    parser.add_argument("--out", type=Path, default=RECORDS, help="the records that are added to")
    parser.add_argument("--table", action="store_true", help="make no trial")
    options = parser.parse_args(own)
    options.subject = read_subject(parser, options, program or REFERENCE)
    how = ComparisonOptions(allowance_s=options.allowance)
    options.setup = describe_setup(list(options.subject.words), how, options.of)
    return options


def plan_missing(
    options: argparse.Namespace, ahead: Sequence[tuple[float, float]] = ()
) -> list[tuple[float, float, str]]:
    """The trials that the records do not hold yet, and that are not of those to be made ahead of them."""
    rows = list_judged(read_trials(options.out, options.setup))
    done = [(row["slower"], row["tolerance"]) for row in rows]
    return plan_trials(options.trials, options.slower, options.tolerance, [*done, *ahead], options.phases)


def tell_missing(options: argparse.Namespace, missing: Sequence[object]) -> str:
    """How many trials are missing, and what they will take by what recorded ones took."""
    seconds = [row["seconds"] for row in read_trials(options.out, options.setup)]
    each_s = statistics.median(seconds) if seconds else USUAL_SECONDS
    total, num = options.trials * len(options.slower) * len(options.tolerance), len(missing)
    hours = num * each_s / 3600
    return f"{total - num} of {total} comparisons are recorded or made ahead, the others take at most {hours:.1f} h"


def main() -> None:
    """Makes the trials that are asked for, and prints the table of all in the records."""
    options = parse_arguments(sys.argv[1:])
    print(tell_left_out(options.out, options.setup), end="", file=sys.stderr)
    # As Ctrl-C does, so that a comparison takes its processes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not options.table:
            make_trials(options)
    except KeyboardInterrupt:
        sys.exit("stopped.\nNext: the same command goes on with the trial that was under way.")
    rows = read_trials(options.out, options.setup)
    print_table(list_judged(rows))
    print(f"\n{tell_origin(rows)}\n{tell_judged_again(rows)}")
    print_other_pools(options.out, options.setup)


def print_other_pools(path: Path, setup: dict[str, Any]) -> None:
    """A table for each pool that does not count here, under what is otherwise in its setup."""
    for differs, rows in list_other_pools(path, setup):
        told = ", ".join(f"{key} {value}" for key, value in differs.items())
        print(f"\nOf another setup, and not counted above: {told}.\n")
        print_table(rows)
        print(f"\n{tell_origin(rows)}")


def make_trials(options: argparse.Namespace) -> None:
    """Makes trials and appends each as it ends, until none is missing; one may count at several tolerances."""
    turns = 0.0
    while missing := plan_missing(options):
        slower, tolerance, phase = missing[0]
        if slower and not turns:
            turns = measure_turns(options.subject)
        how = ComparisonOptions(tolerance=tolerance, allowance_s=options.allowance)
        row = run_trial(options.subject, how, slower=slower, phase=phase, turns=turns)
        append_trial(options.out, options.setup, row)
        told = f"{slower:.0%} slower in {phase}" if slower else "equal"
        print(
            f"{told}, tolerance {tolerance:.0%}: {row['verdict']} {row.get('change', 0):+.1%}, "
            f"{row['seconds']:.0f} s; {len(missing) - 1} more at most",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
