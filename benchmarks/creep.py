"""How soon a creep over nights is found, and how often flat histories alarm, beside other gates.

Histories are made from the real launches under `baselines/`. The launches of a night are successive ones of a stored
pool, in blocks of five, so that their order and tails are the measured ones, and by default their spread; to them
comes what a night has in common, an assumed series with the measured tails whose nights are correlated. Every history
has 30 nights of anchor. Flat ones go on for 100 nights; creeping ones stay flat for 10 more, and then get slower every
night by a part of the start.

One run prints every table of docs/performance.md that is about the trend, or those that `--tables` names. With
`--otava PYTHON`, an interpreter that has apache-otava (`nox -s benchmarks` makes one), it judges the same histories.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from harness.baselines.files import read_json
from harness.baselines.pools import SCHEMA_VERSION
from harness.budgets.gate import compare_with_pool
from harness.budgets.nights import Night
from harness.budgets.trend import ANCHOR_NIGHTS, judge_trend
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[1]
OTAVA_SCRIPT = Path(__file__).with_name("creep_otava.py")
METRICS = ("step_time_s", "wall_clock_s")
FLAT_NIGHTS, LEAD_NIGHTS, CREEP_NIGHTS = 100, 10, 30
LAUNCHES = (1, 3, 10, 20)
BLOCK = 5
TREND = "`harness trend`: pinned anchor, CUSUM"
FIRST_DAY = date(2026, 1, 1)
SOON = 5
NEVER = 10**6


@dataclass(frozen=True)
class Setting:
    """What a set of histories is made with; noises are standard deviations of logs.

    Attributes:
        num_launches: Launches a night.
        own_cv: Noise of a launch within its night; None takes that of the stored pools.
        common_cv: Noise that the launches of a night have in common.
        correlation: Of the common noise, between successive nights.
        creep: How much slower each night is.
    """

    num_launches: int
    own_cv: float | None = None
    common_cv: float = 0.0
    correlation: float = 0.5
    creep: float = 0.01


@dataclass(frozen=True)
class Score:
    """What a gate did to the histories: flat ones that alarm, creeps found soon, and the median delay."""

    num_false: int
    num_flat: int
    num_soon: int
    num_early: int
    num_creeping: int
    delay: float

    def to_cell(self) -> str:
        """The score as a cell of a table."""
        false = f"{self.num_false / self.num_flat:.1%}"
        fair = self.num_creeping - self.num_early
        if not fair:
            return f"{false} / all early"
        delay = f"{self.delay:.0f}" if self.delay < NEVER else "never"
        return f"{false} / {self.num_soon / fair:.0%} / {delay}"


def read_residuals(folder: Path) -> list[list[float]]:
    """The logs of every stored pool's times, around their mean, in order."""
    pools = []
    for path in sorted(folder.glob("budgets/*/*.json")):
        document = read_json(path, schema_version=SCHEMA_VERSION) or {}
        for metric in METRICS:
            logs = [math.log(launch["values"][metric]) for launch in document["harness"]["launches"]]
            mean = statistics.fmean(logs)
            pools.append([log - mean for log in logs])
    return pools


def make_history(
    noise: random.Random, pools: Sequence[Sequence[float]], setting: Setting, shifts: Sequence[float]
) -> list[Night]:
    """Nights of launches with the measured noise; `shifts` are added to their logs, a night each."""
    spreads = [statistics.stdev(pool) for pool in pools]
    every = [value / spread for pool, spread in zip(pools, spreads, strict=True) for value in pool]
    common = noise.choice(every)
    nights = []
    # A history is of one test: what its launches differ by is that of one pool.
    index = noise.randrange(len(pools))
    for number, shift in enumerate(shifts):
        common = setting.correlation * common + math.sqrt(1 - setting.correlation**2) * noise.choice(every)
        logs: list[float] = []
        while len(logs) < setting.num_launches:
            pool, start = pools[index], noise.randrange(len(pools[index]))
            scale = 1.0 if setting.own_cv is None else setting.own_cv / spreads[index]
            block = min(BLOCK, setting.num_launches - len(logs))
            logs += [scale * pool[(start + launch) % len(pool)] for launch in range(block)]
        logs = [log + setting.common_cv * common + shift for log in logs]
        mean = statistics.fmean(logs)
        squares = sum((log - mean) ** 2 for log in logs)
        day = (FIRST_DAY + timedelta(number)).isoformat()
        nights.append(Night(day, f"{number:040x}", mean, setting.num_launches, squares))
    return nights


def alarm_of_trend(nights: Sequence[Night]) -> int:
    """The night of this project's first alarm: pinned anchor and CUSUM."""
    first = judge_trend(nights).first_alarm
    return NEVER if first is None else first


def alarm_of_textbook(nights: Sequence[Night]) -> int:
    """A CUSUM of the same z with the allowance and threshold of an anchor that is known exactly: 0.5 and 8."""
    anchor = [night.log for night in nights[:ANCHOR_NIGHTS]]
    level, width = statistics.fmean(anchor), statistics.stdev(anchor) * math.sqrt(1 + 1 / ANCHOR_NIGHTS)
    g = 0.0
    for i in range(ANCHOR_NIGHTS, len(nights)):
        g = max(0.0, g + (nights[i].log - level) / width - 0.5)
        if g > 8:  # noqa: PLR2004  the textbook's number
            return i
    return NEVER


def alarm_of_last_night(tolerance: float) -> Callable[[Sequence[Night]], int]:
    """A gate that compares each night with the one before."""

    def find(nights: Sequence[Night]) -> int:
        bound = math.log1p(tolerance)
        later = range(ANCHOR_NIGHTS, len(nights))
        return next((i for i in later if nights[i].log - nights[i - 1].log > bound), NEVER)

    return find


def alarm_of_window(nights: Sequence[Night]) -> int:
    """A gate that compares each night with the 30 before it, by the prediction interval of our own gate."""
    for i in range(ANCHOR_NIGHTS, len(nights)):
        window = [[night.value] for night in nights[i - ANCHOR_NIGHTS : i]]
        if (
            compare_with_pool([nights[i].value], window, tolerance=0, is_lower_better=True).verdict
            is Verdict.REGRESSED
        ):
            return i
    return NEVER


def ask_otava(python: str, histories: Sequence[Sequence[Night]]) -> list[int]:
    """The night of Otava's first change point for the worse, run every night on what is there by then."""
    series = [[night.value for night in history] for history in histories]
    done = subprocess.run(
        [python, str(OTAVA_SCRIPT), str(ANCHOR_NIGHTS)],
        input=json.dumps(series),
        capture_output=True,
        text=True,
        check=True,
    )
    return [NEVER if night is None else night for night in json.loads(done.stdout)]


def score(flat: Sequence[int], creeping: Sequence[int]) -> Score:
    """Counts alarms by their nights; an alarm before the creep begins finds nothing, and is not counted as found."""
    start = ANCHOR_NIGHTS + LEAD_NIGHTS
    fair = [night for night in creeping if night >= start]
    return Score(
        num_false=sum(night < NEVER for night in flat),
        num_flat=len(flat),
        num_soon=sum(night < start + SOON for night in fair),
        num_early=len(creeping) - len(fair),
        num_creeping=len(creeping),
        delay=statistics.median([night - start + 1 if night < NEVER else NEVER for night in fair] or [NEVER]),
    )


GATES: dict[str, Callable[[Sequence[Night]], int]] = {
    TREND: alarm_of_trend,
    "the textbook's CUSUM, allowance 0.5, threshold 8": alarm_of_textbook,
    "last night, 2 %": alarm_of_last_night(0.02),
    "last night, 5 %": alarm_of_last_night(0.05),
    "rolling window of 30 nights": alarm_of_window,
}


class Trial:
    """Judges histories of settings by gates, and prints the scores."""

    def __init__(self, options: argparse.Namespace, pools: list[list[float]]) -> None:
        self._options = options
        self._pools = pools

    def compare(self, title: str, settings: dict[str, Setting], *, with_otava: bool = True) -> None:
        """Prints a row for each gate, and a column for each setting."""
        cells: dict[str, list[str]] = {}
        for setting in settings.values():
            flat, creeping = self._make(setting)
            for name, gate in GATES.items():
                found = score([gate(nights) for nights in flat], [gate(nights) for nights in creeping])
                cells.setdefault(name, []).append(found.to_cell())
            if self._options.otava and with_otava:
                some = self._options.otava_histories
                alarms = [ask_otava(self._options.otava, histories[:some]) for histories in (flat, creeping)]
                cells.setdefault("Apache Otava, as it comes", []).append(score(*alarms).to_cell())
        show(title, ["gate", *settings], [[name, *row] for name, row in cells.items()])

    def spread(self, title: str, corner: str, rows: dict[str, dict[str, Setting]]) -> None:
        """Prints what `harness trend` does in each setting."""
        lines = []
        for name, settings in rows.items():
            line = [name]
            for setting in settings.values():
                flat, creeping = self._make(setting)
                line.append(
                    score(list(map(alarm_of_trend, flat)), list(map(alarm_of_trend, creeping))).to_cell()
                )
            lines.append(line)
        show(title, [corner, *next(iter(rows.values()))], lines)

    def _make(self, setting: Setting) -> tuple[list[list[Night]], list[list[Night]]]:
        """Flat and creeping histories of a setting, the same in every run."""
        noise = random.Random(f"{self._options.seed} {setting}")  # noqa: S311  noise need not be secret
        flat = [0.0] * (ANCHOR_NIGHTS + FLAT_NIGHTS)
        creeping = [0.0] * (ANCHOR_NIGHTS + LEAD_NIGHTS)
        creeping += [math.log1p(setting.creep * (night + 1)) for night in range(CREEP_NIGHTS)]
        flats, creeps = (
            [make_history(noise, self._pools, setting, shifts) for _ in range(self._options.histories)]
            for shifts in (flat, creeping)
        )
        return flats, creeps


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    print(f"\n{title}\n")
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |", flush=True)


def name_launches(num: int) -> str:
    """The launches of a night, in words."""
    return f"{num} launch{'es' if num > 1 else ''}"


def halve(cv: float, num_launches: int, **more: float) -> Setting:
    """Launches of a noise of which one half (of the variance) is their own, and one the night's."""
    half = cv * math.sqrt(0.5)
    return Setting(num_launches, own_cv=half, common_cv=half, **more)


def compare_on_one_percent(trial: Trial) -> None:
    """All gates on launches that differ by 1 %."""
    trial.compare(
        "Noise of a launch 1 %, half of it the night's; creep 1 % a night",
        {name_launches(num): halve(0.01, num) for num in (1, 3, 20)},
    )


def compare_as_measured(trial: Trial) -> None:
    """All gates on launches with the stored pools' own noise."""
    trial.compare(
        "Launches as measured, nights' own noise 0.5 %; creep 1 % a night",
        {name_launches(num): Setting(num, common_cv=0.005) for num in (1, 3, 20)},
    )


def compare_on_slow_creep(trial: Trial) -> None:
    """All gates but Otava on a creep three tenths as steep."""
    trial.compare(
        "Noise of a launch 1 %, half of it the night's; creep 0.3 % a night",
        {name_launches(num): halve(0.01, num, creep=0.003) for num in (3, 20)},
        with_otava=False,
    )


def spread_over_nights(trial: Trial) -> None:
    """`harness trend` by the noise of whole nights."""
    trial.spread(
        "Launches as measured, by the noise that a night's launches have in common; creep 1 % a night",
        "noise of nights",
        {
            f"{cv:.2%}": {name_launches(num): Setting(num, common_cv=cv) for num in LAUNCHES}
            for cv in (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.02)
        },
    )


def spread_over_launches(trial: Trial) -> None:
    """`harness trend` by the noise of a launch."""
    trial.spread(
        "Half of the noise the night's, by the noise of a launch; creep 1 % a night",
        "noise of a launch",
        {
            f"{cv:.2%}": {name_launches(num): halve(cv, num) for num in LAUNCHES}
            for cv in (0.005, 0.0075, 0.01, 0.015, 0.025)
        },
    )


def spread_over_correlations(trial: Trial) -> None:
    """`harness trend` by how alike successive nights are."""
    trial.spread(
        "Noise of a launch 1 %, half of it the night's, by how alike successive nights are; creep 1 % a night",
        "correlation",
        {
            f"{rho}": {name_launches(num): halve(0.01, num, correlation=rho) for num in LAUNCHES}
            for rho in (0.0, 0.3, 0.7, 0.9)
        },
    )


TABLES: dict[str, Callable[[Trial], None]] = {
    "one-percent": compare_on_one_percent,
    "as-measured": compare_as_measured,
    "slow": compare_on_slow_creep,
    "nights": spread_over_nights,
    "launches": spread_over_launches,
    "correlation": spread_over_correlations,
}


def main() -> None:
    """Prints tables: flat histories that alarm / creeps found within five nights / median night."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baselines", type=Path, default=ROOT / "baselines")
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--otava", metavar="PYTHON", help="an interpreter that has apache-otava")
    parser.add_argument("--otava-histories", type=int, default=100)
    options = parser.parse_args()
    pools = read_residuals(options.baselines)
    if not pools:
        sys.exit("no pools to make histories of.\nNext: nox -s refresh_baselines")
    spreads = ", ".join(f"{statistics.stdev(pool):.1%}" for pool in pools)
    print(
        f"{len(pools)} series of stored launches, which differ by {spreads}; {options.histories} histories a cell"
    )
    trial = Trial(options, pools)
    for name in options.tables:
        TABLES[name](trial)


if __name__ == "__main__":
    main()
