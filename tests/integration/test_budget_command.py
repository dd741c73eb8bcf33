"""`harness budget`: real launches of a little program, accepted, judged, and all the ways of using it wrongly."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Budget = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = """
import os, sys, torch
torch.manual_seed(0)
model = torch.nn.Linear(64, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(12):
    loss = model(torch.ones(8, 64)).square().mean()
    for _ in range(int(sys.argv[1])):
        loss = loss + model.weight.clone().sum() * 0
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("cores", sorted(os.sched_getaffinity(0)), "threads", torch.get_num_threads())
"""


@pytest.fixture
def budget(harness: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> Budget:
    """Judges the training in the test's folder; `extra` is how many operations more it makes."""
    (tmp_path / "train.py").write_text(PROGRAM, encoding="utf-8")

    def run(*words: str, extra: int = 0) -> subprocess.CompletedProcess[str]:
        return harness("budget", *words, "--", sys.executable, "train.py", str(extra))

    return run


def test_launches_are_accepted_and_counters_judged_exactly(budget: Budget, tmp_path: Path) -> None:
    bounds = ("num_ops=0", "wall_clock=9", "--baseline", "smoke")
    missing = budget(*bounds)
    assert missing.returncode == 1
    assert "num_ops has no baseline for smoke in any runner class" in missing.stdout
    assert "wall_clock_s has no baseline for smoke in any runner class" in missing.stdout
    assert missing.stdout.count("Next: ") == 1
    assert "harness budget num_ops=0 wall_clock=9 --baseline smoke --accept-baselines" in missing.stdout
    accepted = budget(*bounds, "--accept-baselines", "--reason", "first", "--launches", "3")
    assert accepted.returncode == 0, accepted.stderr
    assert "wall_clock_s accepted as launches 1 to 3 of baselines/budgets/" in accepted.stdout
    assert "launch of 3 at most" in accepted.stderr

    same = budget(*bounds, "--json", "same.json", "--launches", "2")
    assert same.returncode == 0, same.stdout
    facts = json.loads((tmp_path / "same.json").read_text(encoding="utf-8"))
    assert facts["outcome"] == "passed"
    assert {line["metric"] for line in facts["budget"]} == {"num_ops", "wall_clock_s"}
    assert all(launch["wall_clock_s"] > 0 for launch in facts["launches"])
    assert [line["machine_change"] is None for line in facts["budget"]] == [True, False]
    (pool,) = (tmp_path / "baselines").glob("budgets/*/*.json")
    stored = json.loads(pool.read_text(encoding="utf-8"))["harness"]["launches"]
    assert all(launch["fixed_work"]["time_s"] > 0 for launch in stored)

    more = budget(*bounds, extra=2)
    assert more.returncode == 1
    assert "num_ops regressed" in more.stdout
    assert "2 more aten::clone a step, in forward" in more.stdout


def test_a_launch_runs_on_one_core_with_one_thread(budget: Budget) -> None:
    pinned = budget("wall_clock_s=100")
    assert pinned.returncode == 0, pinned.stderr
    cores = pinned.stdout.partition("cores [")[2].partition("]")[0]
    assert len(cores.split(",")) == 1
    assert "threads 1" in pinned.stdout


def test_a_limit_that_is_exceeded_is_a_finding(budget: Budget) -> None:
    done = budget("wall_clock_s=0.01")
    assert done.returncode == 1
    assert "is over its limit of 10 ms (the command line)" in done.stdout
    assert "raise wall_clock_s on the command line" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (),
            "the command line sets no bound, so nothing would be judged.\nNext: harness budget wall_clock_s=60 --",
        ),
        (("step_time=0.1",), "step_time: a tolerance is against a stored baseline, and none is named"),
        (("wall_clock_s",), "'wall_clock_s' is not of the form NAME=NUMBER"),
        (("wall_clock_s=soon",), "'wall_clock_s=soon' is not of the form NAME=NUMBER"),
        (("wall_clok_s=1",), "did you mean 'wall_clock_s'?"),
        (("step_time=0.1", "--baseline", "a", "--accept-baselines"), "--accept-baselines needs a reason"),
        (("wall_clock_s=9", "--accept-baselines", "--reason", "r"), "there is none"),
        (("wall_clock_s=9", "--reason", "r"), "--reason belongs to --accept-baselines"),
        (("wall_clock_s=9", "--launches", "0"), "--launches 0 must be above 0"),
        (("wall_clock_s=9", "--allowance", "nan"), "--allowance nan must be above 0"),
        (("wall_clock_s=9", "--timeout", "nan"), "--timeout nan must be above 0"),
        (("wall_clock_s=9", "--launches", "99"), "more than the 40 that a pool keeps"),
        (("wall_clock_s=9", "--run-dir", "nowhere"), "--run-dir nowhere is no directory"),
    ],
)
def test_misuse_is_told_before_anything_is_launched(
    budget: Budget, words: tuple[str, ...], message: str
) -> None:
    done = budget(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Next: " in done.stderr
    assert "cores" not in done.stdout


def test_a_program_that_fails_is_not_measured(budget: Budget, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit(3)", encoding="utf-8")
    done = budget("wall_clock_s=9", "--json", "out.json")
    assert done.returncode == 2
    assert "exited with code 3" in done.stderr
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["outcome"] == "not observed"
