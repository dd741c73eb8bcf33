"""How the stored-baseline gate judges unchanged launches that were made later in the day than its pool.

    python -m benchmarks.later --record pool --launches 20
    python -m benchmarks.later --record quiet --launches 150
    python -m benchmarks.later --record busy --launches 150
    python -m benchmarks.later --record pool --of owner/name@1234567 --folder ../name -- train.py --out '{out}'
    python -m benchmarks.later

A launch is one of `harness budget`: a fresh process, on one core, watched lightly. The program is the reference model,
or the words after `--` (`benchmarks/subject.py`). A launch is appended to the records as it ends, so that those of
several hours pool, as long as machine and program are the same. `busy` has a program on every other core that
multiplies matrices meanwhile; `others` is for launches beside work that is there anyway. Without `--record`, the tables
of all that is recorded: each launch against the pool of its machine and program alone, and up to eight that followed
one another; where fixed work was timed beside them, with it and without.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import stats

from benchmarks.gate import ONE, SEVERAL, TIMES, TOLERANCES, spend
from benchmarks.subject import Subject, add_arguments, read_subject, split_words
from benchmarks.trial_records import ROOT, append_lines, digest_files, find_revision, read_lines
from harness import clock
from harness.budgets.machine import FixedWorkTimes
from harness.budgets.metrics import measure
from harness.budgets.verdicts import Verdict
from harness.record.environment import derive_runner_class
from harness.watch.child import run_command
from harness.watch.cores import choose_cores, pinned
from harness.watch.fixed_work import run_beside
from harness.watch.launch import RunOptions
from harness.watch.options import Depth, ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.budgets.launches import LaunchPlan

RECORDS = ROOT / "benchmarks" / "records" / "launches.jsonl"
POOL, QUIET, BUSY, OTHERS = "pool", "quiet", "busy", "others"
"""What a launch is for, and what else ran meanwhile: nothing, a busy program on each other core, other work."""
TOLD = {QUIET: "nothing", BUSY: "a busy program on each other core", OTHERS: "other work on the other core"}
REFERENCE = ("-m", "reference_model", "--mode", "ci", "--device", "cpu", "--out", "{out}")
MULTIPLY = (
    "import torch; torch.set_num_threads(1); a = torch.randn(1024, 1024)\nwhile True: a = (a @ a).tanh()\n"
)
MIN_POOL = 8
LONGEST_S = 600.0
"""Launches that took longer than this, from the first to the last, had a break between them."""


def digest_program(root: Path) -> str:
    """A short name that only this code of the reference model has: a pool is of one program."""
    folder = root / "reference_model"
    return digest_files(root, sorted(f"reference_model/{file.name}" for file in folder.glob("*.py")))


def name_program(subject: Subject) -> str:
    """What the records know a program by: ours by its code, one of others by what it is said to be."""
    return digest_program(ROOT) if subject == Subject(REFERENCE) else subject.tell()


def launch_once(kind: str, subject: Subject) -> dict[str, Any]:
    """One launch, as a row of the records."""
    with (
        tempfile.TemporaryDirectory() as folder,
        # What the program says is passed on to these.
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        launch = functools.partial(
            run_command,
            [sys.executable, *subject.fill_in(f"{folder}/out")],
            options=RunOptions(
                name="launch", run_dir=Path(folder), threads=1, watch=ObserverOptions(depth=Depth.LIGHT)
            ),
            cwd=subject.folder,
            cores=choose_cores(1),
        )
        run = run_beside(launch, choose_cores(1))
    values = measure(run)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": find_revision(),
        "machine": derive_runner_class(run.environment, device="cpu", threads=1),
        "program": name_program(subject),
        "load": round(os.getloadavg()[0], 2),
        "kind": kind,
        "values": {name: values[name] for name in TIMES},
        "waiting_share": round(run.waiting_share, 4),
        "fixed_work": None if run.fixed_work is None else asdict(run.fixed_work),
    }


@contextlib.contextmanager
def busy_elsewhere() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keeps a program busy on every core we may use but the one of launches; gives these programs."""
    others = os.sched_getaffinity(0) - choose_cores(1)
    programs = []
    for core in others:
        with pinned({core}):
            programs.append(subprocess.Popen([sys.executable, "-c", MULTIPLY]))
    try:
        yield programs
    finally:
        for program in programs:
            program.kill()
            program.wait()


def record(kind: str, num: int, path: Path, subject: Subject) -> None:
    """Makes launches, and appends each as it ends."""
    with busy_elsewhere() if kind == BUSY else contextlib.nullcontext():
        for index in range(num):
            row = launch_once(kind, subject)
            append_lines(path, [row])
            told = ", ".join(f"{name} {row['values'][name]:.4g}" for name in TIMES)
            print(f"{kind} {index + 1} of {num}: {told}", file=sys.stderr, flush=True)


def judge(
    rows: Sequence[dict[str, Any]],
    pool: Sequence[dict[str, Any]],
    tolerance: float,
    plan: LaunchPlan,
    *,
    knows_machine: bool = False,
) -> tuple[Counter[Verdict], float]:
    """The verdicts on both times of launches, from each on as many as the plan has; and the launches one took.

    Launches with a break between them were not made together, and are not judged so.
    """
    verdicts: Counter[Verdict] = Counter()
    spent = []
    for name in TIMES:
        earlier = [row["values"][name] for row in pool]
        for first in range(len(rows) - plan.most + 1):
            launches = rows[first : first + plan.most]
            if clock.read_utc_s(launches[-1]["at"]) - clock.read_utc_s(launches[0]["at"]) > LONGEST_S:
                continue
            verdict, num = spend(
                [row["values"][name] for row in launches],
                [earlier],
                tolerance=tolerance,
                plan=plan,
                waiting_shares=[row["waiting_share"] for row in launches],
                works=FixedWorkTimes(_list_works(launches), [_list_works(pool)]) if knows_machine else None,
            )
            verdicts[verdict] += 1
            spent.append(num)
    return verdicts, statistics.fmean(spent) if spent else 0.0


def _list_works(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [row["fixed_work"]["time_s"] for row in rows]


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """A table for each machine and program that has a pool, with a row for each kind of launches and plan."""
    groups: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        work = (row.get("fixed_work") or {}).get("made_with", "")
        groups[row["machine"], row["program"], work][row["kind"]].append(row)
    for (machine, program, work), kinds in groups.items():
        name, pool = f"{machine}, program {program}", kinds.pop(POOL, [])
        name += f", fixed work {work}" if work else ""
        if len(pool) < MIN_POOL:
            print(f"\n{name}: a pool of {len(pool)} is too small.{advise(program, 'pool --launches 20')}")
            continue
        print(f"\n{name}, against a pool of {len(pool)}: regressed / inconclusive / launches spent\n")
        if not kinds:
            print(f"nothing is recorded that was made later.{advise(program, 'quiet --launches 150')}")
            continue
        print_table(kinds, pool, has_works=bool(work))


def print_table(
    kinds: Mapping[str, Sequence[dict[str, Any]]], pool: Sequence[dict[str, Any]], *, has_works: bool
) -> None:
    """A row for each kind of launches and plan, without and with fixed work; and what the launches are like."""
    print(
        f"| meanwhile | verdict over | comparisons | {' | '.join(f'tolerance {one:.0%}' for one in TOLERANCES)} |"
    )
    print(f"|{' --- |' * (len(TOLERANCES) + 3)}")
    plans = ((ONE, "one launch"), (SEVERAL, f"up to {SEVERAL.most}"))
    for (kind, launches), (plan, told) in itertools.product(kinds.items(), plans):
        if len(launches) < plan.most:
            continue
        for is_known in (False, True) if has_works else (False,):
            cells = describe(launches, pool, plan, knows_machine=is_known)
            known = ", the machine's speed known" if is_known else ""
            print(f"| {TOLD[kind]} | {told}{known} | {' | '.join(cells)} |")
    for kind, launches in (*kinds.items(), (POOL, pool)):
        print(f"\n{tell_launches(kind, launches)}")
        if has_works and len(launches) >= MIN_POOL and len(set(_list_works(launches))) > 1:
            print(tell_line(launches))


def advise(program: str, words: str) -> str:
    """What to record next, where the program is still the same."""
    return f"\nNext, on that machine: --record {words}" if program == digest_program(ROOT) else ""


def describe(
    launches: Sequence[dict[str, Any]],
    pool: Sequence[dict[str, Any]],
    plan: LaunchPlan,
    *,
    knows_machine: bool,
) -> list[str]:
    """The cells of a row: how many comparisons, and what came of them at each tolerance."""
    judged = [judge(launches, pool, tolerance, plan, knows_machine=knows_machine) for tolerance in TOLERANCES]
    return [
        str(judged[0][0].total()),
        *(
            f"{verdicts[Verdict.REGRESSED]} / {verdicts[Verdict.INCONCLUSIVE]} / {num:.1f}"
            for verdicts, num in judged
        ),
    ]


def tell_launches(kind: str, launches: Sequence[dict[str, Any]]) -> str:
    """How many launches of a kind there are, when they were made, and how far they spread."""
    spreads = [
        f"{name} {statistics.stdev(values) / statistics.fmean(values):.1%}"
        for name in TIMES
        if len(values := [row["values"][name] for row in launches]) > 1
    ]
    loads = statistics.median(row["load"] for row in launches)
    waiting = statistics.median(row["waiting_share"] for row in launches)
    return (
        f"{kind}: {len(launches)} launches, {launches[0]['at']} to {launches[-1]['at']}; coefficients of variation "
        f"{', '.join(spreads)}; load {loads:.1f}, waited {waiting:.1%} of the time (medians)."
    )


def tell_line(launches: Sequence[dict[str, Any]]) -> str:
    """How far the times of launches go with fixed work, and what they differ by besides."""
    works = [math.log(time_s) for time_s in _list_works(launches)]
    told = []
    for name in TIMES:
        logs = [math.log(row["values"][name]) for row in launches]
        line = stats.linregress(works, logs)
        left = statistics.stdev(logs) * math.sqrt(1 - line.rvalue**2)
        told.append(f"{name} r {line.rvalue:.2f}, exponent {line.slope:.2f}, left {left:.1%}")
    return f"With fixed work, which differs by {statistics.stdev(works):.1%}: {'; '.join(told)}."


def main() -> None:
    """Records launches, or prints the tables of those that are."""
    own, words = split_words(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", choices=(POOL, *TOLD), help="make launches of this kind")
    parser.add_argument("--launches", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RECORDS, help="the records that are added to, and read")
    add_arguments(parser)
    options = parser.parse_args(own)
    if options.record is not None:
        if words and not options.of:
            parser.error(
                "records can't tell what these words train.\nNext: say what it is, --of owner/name@commit"
            )
        subject = read_subject(parser, options, words or REFERENCE)
        record(options.record, options.launches, options.out, subject)
    rows, _ = read_lines(options.out)
    if not rows:
        sys.exit("no launches are recorded.\nNext: python -m benchmarks.later --record pool --launches 20")
    print_tables(rows)


if __name__ == "__main__":
    main()
