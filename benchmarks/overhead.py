"""What watching costs: the same training with and without it, in alternating runs of one process, on one thread.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --sizes 5 --rounds 40 --out overhead.json

Each round is one run unwatched and one at every depth, in an order that rotates. A run is cut into its steps, and
what stands before and after them: hooks going in and out, the first step, the deep steps, all are in it. Of every
such piece the middle half of the rounds is averaged, and the pieces are added up: on a shared machine a run of a
second is seldom left alone, but most of its pieces are. Beside it stands the median over the rounds of the ratio
of whole runs. Both have an interval that holds 95 % of what resampled rounds give. Processor time, because with
one thread it is the time the run takes on an idle machine. Memory is the peak resident set of a fresh process,
watched and not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from harness.watch.memory import read_peak_memory_bytes
from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions

# Sequence length and batch size for steps of about 1, 5 and 20 ms; the first without attention.
SIZES = {1: (1, 16), 5: (16, 4), 20: (64, 8)}
WIDTH = 128
LIMITS = {Depth.LIGHT: 0.01, Depth.NORMS: 0.03, Depth.DEEP: 0.05}
VOCABULARY = 64
NUM_RESAMPLES = 500


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


def train(num_steps: int, length: int, batch_size: int, moments: list[int]) -> None:
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
        moments.append(time.process_time_ns())


def time_run(depth: Depth | None, num_steps: int, size: tuple[int, int]) -> torch.Tensor:
    """Processor microseconds of a run, watched at a depth or not: up to the first step's end, per step, after."""
    watch = nullcontext() if depth is None else Observer(ObserverOptions(depth=depth))
    moments = [time.process_time_ns()]
    with watch:
        train(num_steps, *size, moments)
    moments.append(time.process_time_ns())
    return torch.tensor(moments, dtype=torch.float64).diff() / 1e3


def compare(num_steps: int, num_rounds: int, size: tuple[int, int]) -> dict[Depth, dict[str, float]]:
    """The cost of every depth on one size of step."""
    arms: list[Depth | None] = [None, *Depth]
    runs: dict[Depth | None, list[torch.Tensor]] = {arm: [] for arm in arms}
    for index in range(num_rounds):
        first = index % len(arms)
        for arm in (*arms[first:], *arms[:first]):
            runs[arm].append(time_run(arm, num_steps, size))
    bare = torch.stack(runs[None])
    return {depth: _estimate(bare, torch.stack(runs[depth]), num_steps) for depth in Depth}


def _estimate(bare: torch.Tensor, watched: torch.Tensor, num_steps: int) -> dict[str, float]:
    """The extra time of runs, one row each, as microseconds a step and as shares, with their intervals."""
    generator = torch.Generator().manual_seed(0)
    rows = range(len(bare))
    drawn = [torch.randint(len(bare), (len(bare),), generator=generator) for _ in range(NUM_RESAMPLES)]
    found = []
    for picked in (torch.tensor(rows), *drawn):
        quiet, busy = _average_middle(bare[picked]), _average_middle(watched[picked])
        extra_us, step_us = (busy - quiet).sum() / num_steps, quiet.sum() / num_steps
        ratio = (watched[picked].sum(1) / bare[picked].sum(1)).median() - 1
        fixed_us = (busy - quiet)[[0, -1]].sum()
        found.append(torch.stack([extra_us / step_us, ratio, extra_us, step_us, fixed_us]))
    low, high = torch.stack(found[1:]).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    overhead, ratio, extra_us, step_us, fixed_us = found[0].tolist()
    return {
        "step_ms": step_us / 1e3,
        "overhead": overhead,
        "low": float(low[0]),
        "high": float(high[0]),
        "extra_us": extra_us,
        "fixed_us": fixed_us,
        "whole_runs": ratio,
        "whole_runs_low": float(low[1]),
        "whole_runs_high": float(high[1]),
    }


def _average_middle(runs: torch.Tensor) -> torch.Tensor:
    """Per piece, the mean of the middle half of the runs."""
    cut = len(runs) // 4
    return runs.sort(0).values[cut : len(runs) - cut].mean(0)


def measure_memory(depth: str, num_steps: int) -> int:
    """Peak resident bytes of a fresh process that trains, watched or not."""
    words = [sys.executable, __file__, "--child", depth, "--steps", str(num_steps)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="steps per run")
    parser.add_argument("--rounds", type=int, default=24, help="runs per figure")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child is not None:
        depth = None if options.child == "none" else Depth(options.child)
        time_run(depth, options.steps, SIZES[5])
        print(read_peak_memory_bytes() or 0)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures: list[dict[str, object]] = []
    num_parameters = sum(parameter.numel() for parameter in Model(2).parameters())
    print(
        f"{num_parameters / 1e6:.2f} M parameters, {options.steps} steps a run, {options.rounds} rounds, one thread"
    )
    print(
        f"{'step':>8}  {'depth':<6}{'overhead':>10}{'95 %':>18}{'us/step':>9}{'in and out':>12}"
        f"{'whole runs':>12}{'95 %':>18}  limit at 5 ms"
    )
    for size in options.sizes:
        time_run(None, options.steps, SIZES[size])
        for depth, found in compare(options.steps, options.rounds, SIZES[size]).items():
            figures.append({"size": size, "depth": str(depth), **found})
            spread = f"{found['low']:+.2%} .. {found['high']:+.2%}"
            whole = f"{found['whole_runs_low']:+.2%} .. {found['whole_runs_high']:+.2%}"
            print(
                f"{found['step_ms']:6.2f}ms  {depth:<6}{found['overhead']:>+10.2%}{spread:>18}{found['extra_us']:>9.1f}"
                f"{found['fixed_us']:>9.0f} us{found['whole_runs']:>+12.2%}{whole:>18}  {LIMITS[depth]:.0%}"
            )
    bare = statistics.median(measure_memory("none", options.steps) for _ in range(3))
    for depth in Depth:
        extra = (statistics.median(measure_memory(depth, options.steps) for _ in range(3)) - bare) / 2**20
        figures.append({"depth": str(depth), "memory_mib": extra})
        print(f"memory, {depth}: {extra:+.1f} MiB over {bare / 2**20:.0f} MiB")
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
