"""Two programs that take turns: which steps both make, and how they end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from harness.record.observation import Outcome
from harness.watch.arms import Program
from harness.watch.interleaving import TurnPlan, run_pair
from harness.watch.options import Depth, ObserverOptions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.serial

TRAIN = """
import atexit, os, sys, time
from pathlib import Path

def linger():
    # Registered before the watcher, so that it comes after it.
    time.sleep(5)
    Path(f"{sys.argv[1]}-lingered").touch()

atexit.register(linger)
print(os.getpid(), flush=True)
import torch

parameter = torch.nn.Parameter(torch.ones(4))
optimizer = torch.optim.SGD([parameter], lr=0.1)
try:
    for _ in range(100_000):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
finally:
    Path(f"{sys.argv[1]}-left").touch()
"""


@pytest.mark.parametrize("is_head_first", [False, True])
def test_programs_are_ended_once_they_have_left_and_their_records_are_whole(
    tmp_path: Path, is_head_first: bool
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    programs = [
        Program(name, [sys.executable, "train.py", name], tmp_path, dict(os.environ))
        for name in ("base", "head")
    ]
    folder = tmp_path / "pair"
    folder.mkdir()
    plan = TurnPlan(measured_s=0.01, min_steps=10, max_steps=10)
    watch = ObserverOptions(depth=Depth.LIGHT, counted_steps=(3,))
    pair = run_pair(
        programs[0], programs[1], folder, plan, watch=watch, timeout_s=120, is_head_first=is_head_first
    )
    started = [int((folder / name / "output.txt").read_text()) for name in ("base", "head")]
    assert (started[0] > started[1]) == is_head_first
    for name, arm in (("base", pair.base), ("head", pair.head)):
        assert (tmp_path / f"{name}-left").exists()
        assert not (tmp_path / f"{name}-lingered").exists()
        assert arm.observation.outcome is Outcome.STOPPED
        assert not arm.ended_itself
        assert len(arm.observation.steps) == pair.turns[-1].stop
        assert [counted.step for counted in arm.observation.counted_steps] == [3]
        assert arm.loaded_files["__main__"] == str(tmp_path / "train.py")
