"""What watching costs: the same training with and without it, run after run in one process.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --sizes 5 --sets 20 --out overhead.json

A fresh process, pinned to one core, trains some sixty times: in every round once at each depth and twice unwatched, in
an order drawn anew. So all meet the same minutes of a machine whose speed drifts, the same process, whose memory is
luck (equal processes differ by some percent), and the same caches. Before every run the heap is moved by blocks of
random sizes; else each depth would keep, for all the runs of a process, the addresses that it happened to get first.
And garbage is collected, so that later collections come at the same steps of every run.

Each step has its own time, and the time of a step is the middle mean of its runs: what others do on the machine hits
single steps of single runs, while hooks going in and out, the first step, deep steps, the working out of what was
noted and collections are at the same steps each time. The cost is the sum over the steps, less the mean of the two
unwatched ones; how these differ is the benchmark's own error, and is shown. A process is one sample: the figure is the
mean over several, with Student's interval of 95 %.

glibc is told to keep what a step frees, as `harness ab` does. Processor time, because with one thread it is the time
the run takes on an idle machine. Memory is the peak resident set of a fresh process, watched and not.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from scipy import stats
from torch import nn

from harness.side_by_side import ALLOCATOR
from harness.watch.memory import read_peak_memory_bytes
from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Callable

# Sequence length and batch size for steps of about 1, 5 and 20 ms; the first without attention.
SIZES = {1: (1, 16), 5: (16, 4), 20: (64, 8)}
MEMORY_SIZE = 5
"""The size of which memory is measured too."""
WIDTH = 128
LIMITS = {Depth.LIGHT: 0.01, Depth.NORMS: 0.03, Depth.DEEP: 0.05}
VOCABULARY = 64
BARE, BARE_AGAIN = "none", "none, again"
ARMS = (BARE, BARE_AGAIN, *LIMITS)
TRIMMED = 0.25
"""Share of the runs of a step that is left out at either end."""
BLOCK_SIZES = (16, 60_000)
MAX_BLOCKS = 40
MIN_ROUNDS = 4
MIN_SETS = 2
CONFIDENCE = 0.95


class Model(nn.Module):
    """0.4 million parameters: a transformer of two blocks, or where there is one position only, three layers."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        layers: list[nn.Module] = [
            nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True) for _ in range(2)
        ]
        if length == 1:
            layers = [nn.Linear(WIDTH, 12 * WIDTH), nn.ReLU(), nn.Linear(12 * WIDTH, WIDTH)]
        self.blocks = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Logits for every position."""
        hidden_BTD = self.embedding(tokens_BT)  # noqa: N806
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD)  # noqa: N806
        logits_BTV: torch.Tensor = self.head(hidden_BTD)  # noqa: N806
        return logits_BTV


def train(num_steps: int, length: int, batch_size: int, after_step: Callable[[], None]) -> None:
    """The training that is timed: a DataLoader, AdamW, a schedule; it does not clip, so norms cost all they can."""
    torch.manual_seed(0)
    model = Model(length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    tokens = torch.randint(0, VOCABULARY, (num_steps * batch_size, length))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(tokens), batch_size=batch_size, shuffle=True
    )
    for (batch,) in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()
        after_step()


def compare(
    num_steps: int, num_rounds: int, num_sets: int, size: tuple[int, int]
) -> dict[str, dict[str, float]]:
    """The cost of every depth on one size of step, and that of nothing, over several processes."""
    sets = []
    for number in range(num_sets):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            sets.append(fresh.submit(measure_set, num_steps, num_rounds, size, number).result())
    return {arm: _estimate([found[arm] for found in sets]) for arm in sets[0]}


def measure_set(
    num_steps: int, num_rounds: int, size: tuple[int, int], number: int
) -> dict[str, tuple[float, float, float]]:
    """In this process: microseconds of an unwatched step, those each depth adds, and those of both ends of a run."""
    torch.set_num_threads(1)
    draws = random.Random(number)  # noqa: S311  an order, no secret
    # What is imported and kept by the first run is no run's cost.
    _time_steps(Depth.DEEP, num_steps, size)
    rounds = []
    for _ in range(num_rounds):
        used_us = {}
        for arm in draws.sample(ARMS, len(ARMS)):
            # Held while it trains.
            blocks = [torch.empty(draws.randrange(*BLOCK_SIZES)) for _ in range(draws.randrange(MAX_BLOCKS))]
            del blocks[::2]
            used_us[arm] = _time_steps(arm, num_steps, size)
        rounds.append(used_us)
    taken_us = {arm: stats.trim_mean([used_us[arm] for used_us in rounds], TRIMMED, axis=0) for arm in ARMS}
    bare_us = (taken_us[BARE] + taken_us[BARE_AGAIN]) / 2
    step_us = float(bare_us.sum()) / num_steps
    extra_us = {arm: taken_us[arm] - bare_us for arm in LIMITS} | {
        BARE: taken_us[BARE_AGAIN] - taken_us[BARE]
    }
    return {
        arm: (step_us, float(extra.sum()) / num_steps, float(extra[0] + extra[-1]))
        for arm, extra in extra_us.items()
    }


def _watch(arm: str) -> AbstractContextManager[object]:
    return Observer(ObserverOptions(depth=Depth(arm))) if arm in LIMITS else nullcontext()


def _time_steps(arm: str, num_steps: int, size: tuple[int, int]) -> list[float]:
    """Processor microseconds of each step of one run, and of what comes behind the last; in the first is its start."""
    gc.collect()
    marks_ns = [time.process_time_ns()]
    with _watch(arm):
        train(num_steps, *size, lambda: marks_ns.append(time.process_time_ns()))
    marks_ns.append(time.process_time_ns())
    return [(end_ns - start_ns) / 1e3 for start_ns, end_ns in itertools.pairwise(marks_ns)]


def _estimate(sets: list[tuple[float, float, float]]) -> dict[str, float]:
    """The mean over processes, with Student's interval of the share."""
    step_us, extra_us, ends_us = (statistics.fmean(values) for values in zip(*sets, strict=True))
    shares = [extra / step for step, extra, _ in sets]
    error = statistics.stdev(shares) / math.sqrt(len(shares))
    low, high = stats.t.interval(CONFIDENCE, len(shares) - 1, statistics.fmean(shares), error)
    return {
        "step_ms": step_us / 1e3,
        "overhead": statistics.fmean(shares),
        "low": float(low),
        "high": float(high),
        "extra_us": extra_us,
        "ends_us": ends_us,
    }


def measure_memory(arm: str, num_steps: int) -> int:
    """Peak resident bytes of a fresh process that trains, watched or not."""
    words = [sys.executable, __file__, "--child", arm, "--steps", str(num_steps)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def train_and_tell_memory(arm: str, num_steps: int) -> None:
    """Prints the peak resident bytes of this process after a run."""
    torch.set_num_threads(1)
    with _watch(arm):
        train(num_steps, *SIZES[MEMORY_SIZE], lambda: None)
    print(read_peak_memory_bytes() or 0)


def compare_memory(num_steps: int) -> list[dict[str, object]]:
    """What every depth adds to the peak of a fresh process; prints it too."""
    bare = statistics.median(measure_memory(BARE, num_steps) for _ in range(3))
    figures: list[dict[str, object]] = []
    for depth in Depth:
        extra = (statistics.median(measure_memory(depth, num_steps) for _ in range(3)) - bare) / 2**20
        figures.append({"depth": str(depth), "memory_mib": extra})
        print(f"memory, {depth}: {extra:+.1f} MiB over {bare / 2**20:.0f} MiB")
    return figures


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="steps per run")
    parser.add_argument(
        "--rounds", type=int, default=12, help="runs of each process at every depth, at least 4"
    )
    parser.add_argument("--sets", type=int, default=10, help="processes, at least 2")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < MIN_ROUNDS:
        parser.error(
            f"--rounds {options.rounds}: at least {MIN_ROUNDS}, as a quarter is left out at either end"
        )
    if options.sets < MIN_SETS:
        parser.error(f"--sets {options.sets}: at least {MIN_SETS}, as the interval is of how they differ")
    if options.child is not None:
        train_and_tell_memory(options.child, options.steps)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    num_parameters = sum(parameter.numel() for parameter in Model(2).parameters())
    print(
        f"{num_parameters / 1e6:.2f} M parameters, {options.steps} steps a run, {options.rounds} runs at each depth "
        f"in each of {options.sets} processes, one thread"
    )
    # Before glibc is told, as it then keeps more.
    figures = compare_memory(options.steps) if MEMORY_SIZE in options.sizes else []
    os.environ.update(ALLOCATOR)
    print(
        f"{'step':>8}  {'depth':<6}{'overhead':>10}{'95 %':>18}{'us/step':>9}{'first step and end':>20}  limit at 5 ms"
    )
    for size in options.sizes:
        for arm, found in compare(options.steps, options.rounds, options.sets, SIZES[size]).items():
            figures.append({"size": size, "depth": str(arm), **found})
            spread = f"{found['low']:+.2%} .. {found['high']:+.2%}"
            limit = f"{LIMITS[Depth(arm)]:.0%}" if arm in LIMITS else "the benchmark's own error"
            print(
                f"{found['step_ms']:6.2f}ms  {arm:<6}{found['overhead']:>+10.2%}{spread:>18}{found['extra_us']:>9.1f}"
                f"{found['ends_us']:>17.0f} us  {limit}",
                flush=True,
            )
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
