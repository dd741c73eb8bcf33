"""What this project's gates and those of other tools say of the same launches: false alarms, and slowdowns found.

    python -m benchmarks.peers --asv PYTHON
    python -m benchmarks.peers --draws 50

The first tables are of the stored launches under `baselines/`, times only, as they are and with their spread doubled.
Each rule gets as many as it takes, drawn from a pool without replacement: those of head, made slower by a known share,
and earlier ones. The last is of the recorded comparisons of head with base (`benchmarks/ab.py`): the peers get the very
launches that the verdict of `harness ab` rests on, which took turns, and then the base's of the trial before, as a tool
that stores results has them.

pytest-benchmark and asv judge by their own code, asv where `--asv PYTHON` is an interpreter that has it
(`nox -s benchmarks` makes one). A launch is one round, or one sample, of theirs.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import parse_compare_fail

from benchmarks.ab import parse_arguments
from benchmarks.gate import ONE, SEVERAL, TIMES, read_pools, spend, split_drawn
from benchmarks.rejudging import TOLERANCES, list_judged
from benchmarks.trial_records import RECORDS, ROOT, read_trials, tell_left_out
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from harness.budgets.launches import LaunchPlan

ASV_SCRIPT = Path(__file__).with_name("peers_asv.py")
SLOWDOWNS = (0.0, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Of stored launches; recorded comparisons have their own."""
SPREADS = {1.0: "as they are", 2.0: "with their spread doubled"}

Case = tuple[list[float], list[float]]
"""Values of head's launches, and of earlier ones."""
FindAlarms = Callable[[Sequence[Case]], list[bool]]
"""Whether a rule fails each of many cases."""


@dataclass(frozen=True)
class Rule:
    """A way to tell whether head is slower.

    Attributes:
        name: What a reader knows it by.
        find_alarms: Whether it fails each of many cases.
        num_head: Launches of head that it gets.
        num_earlier: Earlier launches that it gets; None gives it all that are left.
    """

    name: str
    find_alarms: FindAlarms
    num_head: int = 1
    num_earlier: int | None = 1

    def draw_cases(self, pools: Sequence[Sequence[float]], draws: int, slowdown: float) -> list[Case]:
        """So many cases of each pool, head made slower; the same launches lead for every rule."""
        return [
            ([value * (1 + slowdown) for value in head], earlier[: self.num_earlier])
            for head, earlier in split_drawn(pools, self.num_head, draws)
        ]


def ask_gate(plan: LaunchPlan, tolerance: float) -> FindAlarms:
    """This project's stored-baseline gate; inconclusive is no alarm."""
    return lambda cases: [
        spend(head, [earlier], tolerance=tolerance, plan=plan)[0] is Verdict.REGRESSED
        for head, earlier in cases
    ]


def ask_pytest_benchmark(rule: str) -> FindAlarms:
    """pytest-benchmark with `--benchmark-compare-fail=rule`."""
    check = parse_compare_fail(rule)

    def summarize(values: Sequence[float]) -> dict[str, float]:
        stats = Stats()
        for value in values:
            stats.update(value)
        return {check.field: getattr(stats, check.field)}

    return lambda cases: [bool(check.fails(summarize(head), summarize(earlier))) for head, earlier in cases]


def ask_point(tolerance: float) -> FindAlarms:
    """A gate on the ratio of two numbers: one launch against one."""
    return lambda cases: [head[0] > (1 + tolerance) * earlier[0] for head, earlier in cases]


def ask_asv(python: str, factor: float) -> FindAlarms:
    """`asv compare` with a factor, and its tests of whether the samples differ."""

    def find_alarms(cases: Sequence[Case]) -> list[bool]:
        command = [python, str(ASV_SCRIPT), str(factor)]
        done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=True)
        alarms: list[bool] = json.loads(done.stdout)
        return alarms

    return find_alarms


def list_peers(asv: str | None) -> list[Rule]:
    """The rules of other tools, with the launches that each gets in the table of stored ones.

    Of one round, pytest-benchmark's mean, minimum and median are the same.
    """
    mean, least, middle = (
        (f"pytest-benchmark, `compare-fail={rule}`", ask_pytest_benchmark(rule))
        for rule in ("mean:5%", "min:5%", "median:10%")
    )
    peers = [Rule(f"point gate, {tolerance:.0%}", ask_point(tolerance)) for tolerance in (0.07, 0.1)]
    peers += [Rule(*mean), Rule(*mean, 5, 5), Rule(*least, 5, 5), Rule(*middle, 5, 5)]
    if asv:
        peers += [Rule("asv compare, factor 1.1", ask_asv(asv, 1.1), num, num) for num in (1, 5, 10)]
    return peers


def list_gates() -> list[Rule]:
    """This project's gate, with one launch and with several."""
    return [
        Rule(f"stored gate, tolerance {tolerance:.0%}", ask_gate(plan, tolerance), plan.most, None)
        for tolerance in (0.02, 0.05)
        for plan in (ONE, SEVERAL)
    ]


def widen(pool: Sequence[float], factor: float) -> list[float]:
    """A pool whose launches differ by so much more, around the same geometric mean."""
    mean = statistics.geometric_mean(pool)
    return [mean * (value / mean) ** factor for value in pool]


def compare_stored(pools: Sequence[Sequence[float]], rules: Sequence[Rule], draws: int) -> list[list[str]]:
    """A row for each rule: its launches, and the share of cases it fails at each slowdown."""
    rows = []
    for rule in rules:
        earlier = len(pools[0]) - rule.num_head if rule.num_earlier is None else rule.num_earlier
        head = (
            f"up to {rule.num_head}" if rule.num_head > 1 and rule.num_earlier is None else f"{rule.num_head}"
        )
        alarms = [rule.find_alarms(rule.draw_cases(pools, draws, slowdown)) for slowdown in SLOWDOWNS]
        rows.append([rule.name, head, f"{earlier}", *(f"{statistics.fmean(found):.1%}" for found in alarms)])
    return rows


def read_case(trial: dict[str, Any]) -> Case:
    """The step times of the launches of a trial."""
    pairs = zip(trial["logs"], trial["base_s"], strict=True)
    return [base_s * math.exp(log) for log, base_s in pairs], trial["base_s"]


def list_cases(trials: Sequence[dict[str, Any]], slowdown: float, *, from_before: bool) -> list[Case]:
    """The launches of the trials of a slowdown; with the base's of the trial before on that machine as earlier ones."""
    cases = []
    last: dict[str, list[float]] = {}
    for trial in trials:
        head, base = read_case(trial)
        earlier = last.get(trial["machine"]) if from_before else base
        last[trial["machine"]] = base
        if earlier and trial["slower"] == slowdown:
            cases.append((head, earlier))
    return cases


def list_slowdowns(trials: Sequence[dict[str, Any]]) -> list[float]:
    """The slowdowns that the trials are of, none first."""
    return sorted({0.0, *(trial["slower"] for trial in trials)})


def compare_recorded(trials: Sequence[dict[str, Any]], peers: Sequence[Rule]) -> list[list[str]]:
    """A row for each rule, with the share of trials that it fails at each slowdown, and their number."""
    rows, slowdowns, judged = [], list_slowdowns(trials), list_judged(trials)
    for tolerance in TOLERANCES:
        alarms = [
            [
                trial["verdict"] == Verdict.REGRESSED
                for trial in judged
                if (trial["slower"], trial["tolerance"]) == (slowdown, tolerance)
            ]
            for slowdown in slowdowns
        ]
        rows.append([f"`harness ab`, tolerance {tolerance:.0%}", "in turns", *map(tell_share, alarms)])
    for name, find_alarms in {peer.name: peer.find_alarms for peer in peers}.items():
        for from_before, told in ((False, "in turns"), (True, "of the trial before")):
            cases = [list_cases(trials, slowdown, from_before=from_before) for slowdown in slowdowns]
            rows.append([name, told, *(tell_share(find_alarms(some)) for some in cases)])
    return rows


def tell_share(alarms: Sequence[bool]) -> str:
    """The share of alarms and their number."""
    return f"{statistics.fmean(alarms):.0%} of {len(alarms)}" if alarms else "none made"


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], slowdowns: Sequence[float] = SLOWDOWNS
) -> None:
    """Prints a Markdown table with a column for each slowdown behind those of the header."""
    print(f"\n{title}\n")
    columns = [*header, *(f"{slowdown:.0%} slower" if slowdown else "equal" for slowdown in slowdowns)]
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Prints the shares of cases that each rule fails: alarms where the programs are equal, else slowdowns found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--draws", type=int, default=250, help="of each pool")
    parser.add_argument("--asv", metavar="PYTHON", help="an interpreter that has asv")
    options = parser.parse_args()
    pools = read_pools(options.baselines, TIMES)
    if not pools:
        sys.exit("no pools to judge.\nNext: nox -s refresh_baselines")
    peers = list_peers(options.asv)
    for factor, told in SPREADS.items():
        print_table(
            f"Stored launches {told}: cases that fail, of {options.draws * len(pools)}.",
            ("rule", "launches of head", "earlier ones"),
            compare_stored([widen(pool, factor) for pool in pools], [*list_gates(), *peers], options.draws),
        )
    setup = parse_arguments([]).setup
    print(tell_left_out(options.records, setup), end="", file=sys.stderr)
    trials = [trial for trial in read_trials(options.records, setup) if "logs" in trial]
    if not trials:
        print("\nNo comparison of head with base is recorded yet.\nNext: nox -s benchmarks -- ab")
        return
    print_table(
        "Recorded comparisons of head with base: those that fail.",
        ("rule", "earlier launches"),
        compare_recorded(trials, peers),
        list_slowdowns(trials),
    )


if __name__ == "__main__":
    main()
