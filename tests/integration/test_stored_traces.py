"""Traces of programs in processes of their own reach the trajectory: alone, and of two ranks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from harness.baselines.building import TRACED_STEPS, build_trajectory
from harness.baselines.comparison import Match, compare_trajectories
from harness.watch.child import run_command
from harness.watch.launch import RunOptions
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    from pathlib import Path

    from harness.baselines.trajectory import Trajectory

PROGRAM = """
import os
import sys
import time
import torch
from layers import Head

ranks = int(os.environ.get("WORLD_SIZE", "1"))
if ranks > 1:
    torch.distributed.init_process_group("gloo")
torch.manual_seed(0)
model = Head(4, 2)
if ranks > 1:
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, float(sys.argv[1])))
for step in range(4):
    loss = model(torch.randn(3, 4)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
if ranks > 1:
    # torch aborts a process that ends while a thread of gloo still drops its last exchange, watched or not.
    del model, optimizer, loss
    time.sleep(0.2)
    torch.distributed.destroy_process_group()
"""
LAYERS = "import torch\n\n\nclass Head(torch.nn.Linear):\n    pass\n"


def record(folder: Path, beta: str = "0.999", ranks: int | None = None) -> Trajectory:
    (folder / "train.py").write_text(PROGRAM)
    (folder / "layers.py").write_text(LAYERS)
    watch = ObserverOptions(traced_steps=TRACED_STEPS)
    options = RunOptions("train", folder, threads=1, watch=watch)
    command = [sys.executable, "train.py", beta]
    run = run_command(command, options=options, cwd=folder, ranks=ranks, timeout_s=120)
    return build_trajectory(run, test="train.py")


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_command_repeats_its_trajectory_and_a_changed_one_parts_at_the_optimizer(
    ranks: int | None, tmp_path: Path
) -> None:
    baseline = record(tmp_path, ranks=ranks)
    assert baseline.num_ranks == (ranks or 1)
    assert baseline.parameters == (("weight", "bias"),)
    assert all(point.gradients and point.updates and point.generators for point in baseline.points)
    found = compare_trajectories(baseline, record(tmp_path, ranks=ranks))
    assert (found.match, found.is_exact, found.notes) == (Match.MATCHES, True, ())
    changed = compare_trajectories(baseline, record(tmp_path, "0.9", ranks=ranks))
    assert changed.divergence is not None
    assert changed.divergence.phase == "optimizer"
    assert changed.divergence.causes == ("optimizer 0 group 0 betas: [0.9, 0.999] -> [0.9, 0.9].",)


def test_the_files_of_the_projects_own_classes_are_known(tmp_path: Path) -> None:
    made = record(tmp_path)
    assert made.sources == {"Head": "layers.py"}
    assert made.project_files == ("layers.py", "train.py")
