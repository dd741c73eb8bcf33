"""How often `harness ab` is wrong: equal programs called regressed, and slowdowns of a known size not found.

    python benchmarks/ab.py --trials 300 --out ab.jsonl
    python benchmarks/ab.py --trials 20 --slower 0.02 0.05 --out ab.jsonl
    python benchmarks/ab.py --trials 20 --tolerance 0.02 --out ab.jsonl -- train.py --steps 500
    python benchmarks/ab.py --trials 0 --out ab.jsonl

A trial is one comparison as a user gets it, from the first process to the verdict, of a program with itself. With
`--slower` one of them spins in a phase of every step, for a share of the step that is measured beforehand; the
phases take turns. Trials are appended to the file, so that they can be made in slices; the last form only prints
the table. The program is the reference model, or the words after `--`, as they follow `python`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from scipy import stats

from harness.budgets.gate import Verdict
from harness.budgets.launch_pair import find_middle_mean
from harness.errors import HarnessError
from harness.side_by_side import ComparisonOptions, compare_programs
from harness.watch.arms import Program
from harness.watch.interleaving import TurnPlan, run_pair
from harness.watch.options import Depth, ObserverOptions

ROOT = Path(__file__).parents[1]
SLOW_PHASE = Path(__file__).with_name("slow_phase.py")
PHASES = ("data", "forward", "backward", "optimizer")
REFERENCE = [
    *("-m", "reference_model", "--device", "cpu", "--max_steps", "2000", "--batch_size", "16"),
    *("--eval_every", "100000", "--checkpoint_every", "100000", "--out", "{out}"),
]
SPIN_TURNS = 200_000
NUM_SPINS = 25


def build_program(name: str, words: list[str], phase: str, num_turns: int) -> Program:
    """The program, with a busy loop of so many turns in a phase."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(SLOW_PHASE), phase, str(num_turns), *words]
    return Program(name, command, ROOT, env)


def measure_turns(words: list[str]) -> float:
    """Turns of the busy loop that take as long as a step does, both at the pace of an idle machine."""
    programs = [build_program(name, words, "forward", 0) for name in ("base", "head")]
    with tempfile.TemporaryDirectory() as folder:
        programs = [
            Program(
                one.name,
                [word.replace("{out}", f"{folder}/{one.name}-out") for word in one.words],
                one.cwd,
                one.env,
            )
            for one in programs
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
    words: list[str], options: ComparisonOptions, *, slower: float, phase: str, turns: float
) -> dict[str, Any]:
    """One comparison, as a row."""
    start_s = time.perf_counter()
    base = build_program("base", words, phase, 0)
    head = build_program("head", words, phase, round(slower * turns))
    row: dict[str, Any] = {
        "slower": slower,
        "phase": phase if slower else None,
        "tolerance": options.tolerance,
        "load": os.getloadavg()[0],
    }
    try:
        comparison = compare_programs(base, head, options)
    except HarnessError as error:
        return row | {"verdict": "not observed", "message": str(error)}
    verdict = comparison.verdict
    return row | {
        "verdict": str(verdict.verdict),
        "change": verdict.step_time.change,
        "named": [part.phase for part in verdict.phases if part.is_named],
        "logs": [pair.log_ratio for pair in comparison.pairs],
        "step_s": find_middle_mean([pair.base_step_s for pair in comparison.pairs]),
        "has_equal_losses": comparison.has_equal_losses,
        "seconds": time.perf_counter() - start_s,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Verdicts by slowdown and tolerance, with the interval of the rate of regressed ones."""
    groups: dict[tuple[float, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["slower"], row["tolerance"]].append(row)
    head = (
        "slower by",
        "tolerance",
        "trials",
        "regressed",
        "95 %",
        "inconclusive",
        "phase named",
        "seconds",
        "SD of a pair",
    )
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for (slower, tolerance), group in sorted(groups.items()):
        seen = [row for row in group if "logs" in row]
        verdicts = Counter(row["verdict"] for row in group)
        num = verdicts[Verdict.REGRESSED]
        interval = stats.binomtest(num, len(group)).proportion_ci()
        regressed = [row for row in seen if row["verdict"] == Verdict.REGRESSED and row["phase"]]
        named = sum(row["named"] == [row["phase"]] for row in regressed)
        spread = statistics.median(statistics.stdev(row["logs"]) for row in seen) if seen else float("nan")
        seconds = statistics.median(row["seconds"] for row in seen) if seen else float("nan")
        cells = (
            *(
                f"{slower:.0%}",
                f"{tolerance:.0%}",
                len(group),
                num,
                f"{interval.low:.1%} to {interval.high:.1%}",
            ),
            *(verdicts[Verdict.INCONCLUSIVE], f"{named} of {len(regressed)}" if regressed else ""),
            *(f"{seconds:.0f}", f"{spread:.2%}"),
        )
        print(f"| {' | '.join(map(str, cells))} |")


def main() -> None:
    """Makes the trials that are asked for, and prints the table of all in the file."""
    words = sys.argv[1:]
    own, program = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, REFERENCE)
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10, help="comparisons for each slowdown and tolerance")
    parser.add_argument("--slower", type=float, nargs="*", default=[0.0], help="shares of a step; 0 is A/A")
    parser.add_argument("--tolerance", type=float, nargs="*", default=[0.02])
    parser.add_argument("--allowance", type=float, default=ComparisonOptions().allowance_s)
    parser.add_argument("--out", type=Path, default=Path("ab.jsonl"))
    options = parser.parse_args(own)
    turns = measure_turns(program) if options.trials and any(options.slower) else 0.0
    for trial in range(options.trials):
        for slower in options.slower:
            for tolerance in options.tolerance:
                how = ComparisonOptions(tolerance=tolerance, allowance_s=options.allowance)
                phase = PHASES[trial % len(PHASES)]
                row = run_trial(program, how, slower=slower, phase=phase, turns=turns)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"program": program, **row}) + "\n")
                print(json.dumps(row), file=sys.stderr, flush=True)
    print_table([json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()
