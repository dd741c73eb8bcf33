from __future__ import annotations

import os
import platform
import random
from typing import TYPE_CHECKING

import pytest
import torch

from harness.watch.cores import choose_cores
from harness.watch.fixed_work import run_beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun


def test_a_launch_has_the_time_of_the_work_before_it_and_behind_it(
    make_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    times_s = iter([0.004, 0.009])
    monkeypatch.setattr("harness.watch.fixed_work._time_work", lambda _: next(times_s))
    run = run_beside(make_run)
    assert run.fixed_work is not None
    assert run.fixed_work.time_s == pytest.approx(0.006)
    assert run.fixed_work.made_with == f"1, Python {platform.python_version()}, torch {torch.__version__}"


def test_the_work_takes_time_and_leaves_this_process_as_it_was(make_run: Callable[..., TrainingRun]) -> None:
    def find_state() -> tuple[object, ...]:
        streams = (random.getstate(), torch.get_rng_state().tolist())
        return (*streams, torch.get_num_threads(), torch.is_grad_enabled(), os.sched_getaffinity(0))

    inside = []

    def launch() -> TrainingRun:
        inside.append(find_state())
        return make_run()

    before = find_state()
    run = run_beside(launch, choose_cores(1))
    assert run.fixed_work is not None
    assert 1e-4 < run.fixed_work.time_s < 1
    assert inside == [before]
    assert find_state() == before


def test_what_a_launch_raises_goes_on() -> None:
    def launch() -> TrainingRun:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_beside(launch)
