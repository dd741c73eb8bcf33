"""What watching costs: the same training with and without it, in alternating runs of one process, on one thread.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --steps 200 --pairs 12 --out overhead.json

Each pair is an unwatched and a watched run of the same training, in turn the one first and the other; the figure
is the median over the pairs of the ratio of their processor times, with the quarter of the pairs to either side.
Processor time, because with one thread it is the time the run takes on an idle machine, and shared machines
are not idle. The runs hold everything: putting the hooks in and out, the first step, the deep steps. Memory is
the peak resident set of a fresh process, watched and not.
"""

from __future__ import annotations

import argparse
import json
import math
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


def train(num_steps: int, length: int, batch_size: int) -> None:
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


def time_run(depth: Depth | None, num_steps: int, size: tuple[int, int]) -> float:
    """Processor seconds of one run; watched at a depth, or not."""
    watch = nullcontext() if depth is None else Observer(ObserverOptions(depth=depth))
    start_s = time.process_time()
    with watch:
        train(num_steps, *size)
    return time.process_time() - start_s


def compare(depth: Depth, num_steps: int, num_pairs: int, size: tuple[int, int]) -> dict[str, float]:
    """The cost of one depth on one size of step."""
    logs, times = [], []
    for index in range(num_pairs):
        arms = (None, depth) if index % 2 == 0 else (depth, None)
        found = {arm: time_run(arm, num_steps, size) for arm in arms}
        logs.append(math.log(found[depth] / found[None]))
        times.append(found[None] / num_steps)
    low, middle, high = statistics.quantiles(logs, n=4)
    return {
        "step_ms": 1e3 * statistics.median(times),
        "overhead": math.expm1(middle),
        "low": math.expm1(low),
        "high": math.expm1(high),
    }


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
    parser.add_argument("--pairs", type=int, default=12, help="pairs of runs per figure")
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
        f"{num_parameters / 1e6:.2f} M parameters, {options.steps} steps a run, {options.pairs} pairs, one thread"
    )
    print(f"{'step':>8}  {'depth':<6}  {'overhead':>8}  {'quartiles':>16}  {'us/step':>8}  limit at 5 ms")
    for size in options.sizes:
        time_run(None, options.steps, SIZES[size])
        for depth in Depth:
            found = compare(depth, options.steps, options.pairs, SIZES[size])
            figures.append({"size": size, "depth": str(depth), **found})
            spread = f"{found['low']:+.2%} .. {found['high']:+.2%}"
            extra_us = 1e3 * found["step_ms"] * found["overhead"]
            print(
                f"{found['step_ms']:6.2f}ms  {depth:<6}  {found['overhead']:+8.2%}  {spread:>16}  "
                f"{extra_us:8.1f}  {LIMITS[depth]:.0%}"
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
