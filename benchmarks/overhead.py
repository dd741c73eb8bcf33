"""What watching costs: the same training with and without it, in processes that take turns on one core.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --sizes 5 --sets 20 --out overhead.json

Four processes train at the same time, pinned to one core: one unwatched and one at every depth, of which each does
forty steps while the others wait, in an order that rotates. So all meet the same minute of a machine whose speed
drifts, and the same cold caches at the start of a turn. In the next round every process trains at another depth, until
each has had all of them as often (a Latin square): processes of one and the same program differ by some percent, by
the memory they happen to get, and that is no cost of watching. Hooks going in and out, the first step and the deep
steps are all in it.

A set of processes is one sample: several sets are made, and the figure is their mean, with Student's interval of 95 %.
glibc is told to keep what a step frees, as `harness ab` does. Processor time, because with one thread it is the time
the run takes on an idle machine. Memory is the peak resident set of a fresh process, watched and not.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
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
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

# Sequence length and batch size for steps of about 1, 5 and 20 ms; the first without attention.
SIZES = {1: (1, 16), 5: (16, 4), 20: (64, 8)}
MEMORY_SIZE = 5
"""The size of which memory is measured too."""
WIDTH = 128
LIMITS = {Depth.LIGHT: 0.01, Depth.NORMS: 0.03, Depth.DEEP: 0.05}
VOCABULARY = 64
STEPS_PER_TURN = 40
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


class Arm:
    """A process that trains again and again, at one depth or another, and waits for its turn to do the next steps.

    Args:
        num_steps: Per run.
        size: Sequence length and batch size.
    """

    def __init__(self, num_steps: int, size: tuple[int, int]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_train_in_turns, args=(theirs, num_steps, size), daemon=True
        )
        self._process.start()
        theirs.close()

    def take_turn(self, depth: Depth | None) -> float:
        """Lets it go on to the end of its turn; the processor microseconds that took.

        A turn that begins a run begins it at this depth.
        """
        self._pipe.send((True, depth))
        used_us: float = self._pipe.recv()
        return used_us

    def close(self) -> None:
        """Ends the process."""
        self._pipe.send((False, None))
        self._process.join()


def _train_in_turns(pipe: Connection, num_steps: int, size: tuple[int, int]) -> None:
    torch.set_num_threads(1)
    num_done = started_ns = 0

    def begin_turn() -> tuple[bool, Depth | None]:
        nonlocal started_ns
        wanted: tuple[bool, Depth | None] = pipe.recv()
        started_ns = time.process_time_ns()
        return wanted

    def after_step() -> None:
        nonlocal num_done
        num_done += 1
        if num_done % STEPS_PER_TURN == 0:
            pipe.send((time.process_time_ns() - started_ns) / 1e3)
            begin_turn()

    while (wanted := begin_turn())[0]:
        depth = wanted[1]
        with nullcontext() if depth is None else Observer(ObserverOptions(depth=depth)):
            train(num_steps, *size, after_step)
        pipe.send((time.process_time_ns() - started_ns) / 1e3)


def compare(
    num_steps: int, num_rounds: int, num_sets: int, size: tuple[int, int]
) -> dict[Depth, dict[str, float]]:
    """The cost of every depth on one size of step, over several sets of processes."""
    orders = random.Random(0)  # noqa: S311  an order, no secret
    sets = [measure_set(num_steps, num_rounds, size, orders) for _ in range(num_sets)]
    return {depth: _estimate([found[depth] for found in sets]) for depth in Depth}


def measure_set(
    num_steps: int, num_rounds: int, size: tuple[int, int], orders: random.Random
) -> dict[Depth, tuple[float, ...]]:
    """Of fresh processes: microseconds of an unwatched step, those each depth adds, and those of both ends of a run."""
    depths: list[Depth | None] = [None, *Depth]
    orders.shuffle(depths)
    arms = [Arm(num_steps, size) for _ in depths]
    num_turns = num_steps // STEPS_PER_TURN + 1
    used_us = {depth: torch.zeros(num_turns, dtype=torch.float64) for depth in depths}
    # What is imported and kept by the first run is no run's cost.
    _run_round(arms, [Depth.DEEP] * len(arms), num_turns, 0)
    for index in range(num_rounds * len(depths)):
        at = index % len(depths)
        row = [*depths[at:], *depths[:at]]
        for depth, found in zip(row, _run_round(arms, row, num_turns, index), strict=True):
            used_us[depth] += found / (num_rounds * len(depths))
    for arm in arms:
        arm.close()
    step_us = float(used_us[None].sum()) / num_steps
    extra_us = {depth: used_us[depth] - used_us[None] for depth in Depth}
    return {
        depth: (step_us, float(extra.sum()) / num_steps, float(extra[0] + extra[-1]))
        for depth, extra in extra_us.items()
    }


def _run_round(
    arms: Sequence[Arm], depths: Sequence[Depth | None], num_turns: int, index: int
) -> torch.Tensor:
    """One run of every process, in turns: microseconds of each turn, a process a row."""
    used_us = torch.zeros(len(arms), num_turns, dtype=torch.float64)
    for turn in range(num_turns):
        first = (index + turn) % len(arms)
        for place in (*range(first, len(arms)), *range(first)):
            used_us[place, turn] = arms[place].take_turn(depths[place])
    return used_us


def _estimate(sets: list[tuple[float, ...]]) -> dict[str, float]:
    """The mean over sets of processes, with Student's interval of the share."""
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


def measure_memory(depth: str, num_steps: int) -> int:
    """Peak resident bytes of a fresh process that trains, watched or not."""
    words = [sys.executable, __file__, "--child", depth, "--steps", str(num_steps)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def train_and_tell_memory(depth: Depth | None, num_steps: int) -> None:
    """Prints the peak resident bytes of this process after a run."""
    torch.set_num_threads(1)
    with nullcontext() if depth is None else Observer(ObserverOptions(depth=depth)):
        train(num_steps, *SIZES[MEMORY_SIZE], lambda: None)
    print(read_peak_memory_bytes() or 0)


def compare_memory(num_steps: int) -> list[dict[str, object]]:
    """What every depth adds to the peak of a fresh process; prints it too."""
    bare = statistics.median(measure_memory("none", num_steps) for _ in range(3))
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
    parser.add_argument(
        "--steps", type=int, default=200, help=f"steps per run, a multiple of {STEPS_PER_TURN}"
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each process at every depth")
    parser.add_argument("--sets", type=int, default=10, help="sets of processes, at least 2")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps % STEPS_PER_TURN:
        parser.error(f"--steps {options.steps}: must be a multiple of {STEPS_PER_TURN}, the steps of a turn")
    if options.sets < MIN_SETS:
        parser.error(f"--sets {options.sets}: at least {MIN_SETS}, as the interval is of how they differ")
    if options.child is not None:
        train_and_tell_memory(None if options.child == "none" else Depth(options.child), options.steps)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    num_parameters = sum(parameter.numel() for parameter in Model(2).parameters())
    print(
        f"{num_parameters / 1e6:.2f} M parameters, {options.steps} steps a run, {options.rounds} runs at each depth "
        f"of the processes of {options.sets} sets, one thread"
    )
    # Before glibc is told, as it then keeps more.
    figures = compare_memory(options.steps) if MEMORY_SIZE in options.sizes else []
    os.environ.update(ALLOCATOR)
    print(
        f"{'step':>8}  {'depth':<6}{'overhead':>10}{'95 %':>18}{'us/step':>9}{'first and last turn':>22}  limit at 5 ms"
    )
    for size in options.sizes:
        for depth, found in compare(options.steps, options.rounds, options.sets, SIZES[size]).items():
            figures.append({"size": size, "depth": str(depth), **found})
            spread = f"{found['low']:+.2%} .. {found['high']:+.2%}"
            print(
                f"{found['step_ms']:6.2f}ms  {depth:<6}{found['overhead']:>+10.2%}{spread:>18}{found['extra_us']:>9.1f}"
                f"{found['ends_us']:>19.0f} us  {LIMITS[depth]:.0%}",
                flush=True,
            )
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
