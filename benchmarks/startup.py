"""What the plugin adds to the start of pytest: `pytest --collect-only` with and without it, in fresh processes.

    python benchmarks/startup.py
    python benchmarks/startup.py --pairs 100 --plugins "this plugin" --out startup.json

Each pair collects one test that is no training, in turn with the plugin first and without it first, in the same
environment; the figure is the median over the pairs of the difference, of wall clock and of processor time, with
a bootstrap interval. pytest-benchmark and pytest-timeout load through entry points of their own, whether or not
the plugin is there, and are measured beside it. Python may keep its bytecode, as it does outside this benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_MS = 10.0
# Other plugins that this environment may hold; without them a start is shorter, and so is its noise.
OTHERS = ("-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:cacheprovider")
PLUGINS = {
    "this plugin": ("harness", ()),
    "pytest-benchmark": ("benchmark", ("harness",)),
    "pytest-timeout": ("timeout", ("harness",)),
}
"""What is measured: its name for pytest, and what is blocked in both arms."""
NUM_RESAMPLES = 2000


def time_start(folder: Path, blocked: tuple[str, ...]) -> tuple[float, float]:
    """Wall clock and processor time, in milliseconds, of one `pytest --collect-only`."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-c", "pytest.ini", *OTHERS, "."]
    words += [word for name in blocked for word in ("-p", f"no:{name}")]
    # Without bytecode every start would compile the plugin anew, and rewrite its assertions.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start_s = time.perf_counter()
    child = subprocess.Popen(words, cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - start_s
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} ended with exit code {child.returncode}")
    return 1e3 * wall_s, 1e3 * (usage.ru_utime + usage.ru_stime)


def compare(folder: Path, name: str, num_pairs: int) -> dict[str, Any]:
    """What one plugin adds: medians of the pairs' differences, and 95 % bootstrap intervals of the medians."""
    plugin, blocked = PLUGINS[name]
    arms = {False: (*blocked, plugin), True: blocked}
    for without in arms.values():
        time_start(folder, without)
    walls, processors, base = [], [], []
    for index in range(num_pairs):
        order = (False, True) if index % 2 == 0 else (True, False)
        found = {is_there: time_start(folder, arms[is_there]) for is_there in order}
        walls.append(found[True][0] - found[False][0])
        processors.append(found[True][1] - found[False][1])
        base.append(found[False][1])
    return {
        "plugin": name,
        "start_ms": statistics.median(base),
        "wall_ms": statistics.median(walls),
        "wall_interval_ms": find_interval(walls),
        "processor_ms": statistics.median(processors),
        "processor_interval_ms": find_interval(processors),
    }


def find_interval(values: list[float]) -> tuple[float, float]:
    """The middle 95 % of the medians of resampled values."""
    generator = random.Random(0)  # noqa: S311  resampling is no secret
    medians = sorted(
        statistics.median(generator.choices(values, k=len(values))) for _ in range(NUM_RESAMPLES)
    )
    return medians[NUM_RESAMPLES // 40], medians[-NUM_RESAMPLES // 40]


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30, help="pairs of starts per figure")
    parser.add_argument("--plugins", nargs="+", default=list(PLUGINS), choices=list(PLUGINS), metavar="NAME")
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = []
    print(
        f"{'adds':<17}{'processor time':>15}{'95 %':>17}{'wall clock':>12}{'95 %':>17}  limit {LIMIT_MS:g} ms"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (folder / "test_it.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
        for plugin in options.plugins:
            found = compare(folder, plugin, options.pairs)
            figures.append(found)
            spreads = [
                f"{low:+.1f} .. {high:+.1f}"
                for low, high in (found["processor_interval_ms"], found["wall_interval_ms"])
            ]
            print(
                f"{plugin:<17}{found['processor_ms']:+12.1f} ms{spreads[0]:>17}"
                f"{found['wall_ms']:+9.1f} ms{spreads[1]:>17}  of {found['start_ms']:.0f} ms"
            )
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
