"""Fixed work is timed by a process of its own, before a launch and behind it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.record.fixed_work import FixedWork
from harness.watch import fixed_work
from harness.watch.fixed_work import run_beside, time_work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.run import TrainingRun


@pytest.mark.parametrize("times_s", [(0.004, 0.009), (0.009, 0.004)])
def test_a_launch_has_the_time_of_the_quicker_turn(
    make_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch, times_s: tuple[float, float]
) -> None:
    turns = iter(FixedWork(time_s, "1") for time_s in times_s)
    monkeypatch.setattr(fixed_work, "time_work", lambda _: next(turns))
    assert run_beside(make_run).fixed_work == FixedWork(0.004, "1")


@pytest.mark.parametrize("turns", [(None, FixedWork(1.0, "1")), (FixedWork(1.0, "1"), FixedWork(1.0, "2"))])
def test_a_turn_that_can_not_be_told_or_is_of_other_work_leaves_no_time(
    make_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch, turns: tuple[FixedWork | None, ...]
) -> None:
    left = iter(turns)
    monkeypatch.setattr(fixed_work, "time_work", lambda _: next(left))
    assert run_beside(make_run).fixed_work is None


def test_the_work_is_done_on_the_cores_of_the_launch_and_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned_to = []
    run = subprocess.run

    def note_cores(*args: object, **kwargs: object) -> object:
        pinned_to.append(find_cores())
        return run(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("harness.watch.fixed_work.subprocess.run", note_cores)
    cores = find_cores()
    work = time_work(frozenset({max(cores)}))
    assert work is not None
    assert work.time_s > 0
    python, numpy = ".".join(map(str, sys.version_info[:2])), ".".join(np.__version__.split(".")[:2])
    # A pool outlives the small releases of both.
    assert work.made_with == f"1, Python {python}, NumPy {numpy}"
    assert pinned_to == [{max(cores)}]
    assert find_cores() == cores


def find_cores() -> set[int]:
    os = pytest.importorskip("os")
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("the system does not let us choose cores")
    return set(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(3)",
        "print('warning: {}')",
        "print('{\"time_s\": 1.0}')",
        'print(\'{"time_s": 0.0, "made_with": "1"}\')',
    ],
)
def test_work_that_fails_is_no_failure_of_the_launch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    monkeypatch.setattr(fixed_work, "PROGRAM", path)
    assert time_work() is None


def test_what_a_launch_raises_goes_on() -> None:
    def launch() -> TrainingRun:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_beside(launch)
