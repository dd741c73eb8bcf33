"""Kernel launches, as the profiler counts them; without a GPU, named ranges stand for the calls of the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.profiler import record_function

from harness.watch.kernel_launches import KernelLaunches, count_launches
from harness.watch.taps import TapSet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def taps() -> Iterator[TapSet]:
    taps = TapSet()
    yield taps
    taps.remove_all()


def launch(num: int) -> None:
    for _ in range(num):
        with record_function("cudaLaunchKernel"):
            torch.ones(2).add_(1)
        with record_function("cudaMemcpyAsync"):
            torch.ones(2)


def test_calls_that_launch_are_told_from_others() -> None:
    names = ["cudaLaunchKernel", "cudaLaunchKernelExC_v11060", "cuLaunchKernel", "hipExtModuleLaunchKernel"]
    others = ["cudaMemcpyAsync", "aten::mm", "cudaLaunchHostFunc", "", "ampere_sgemm_128x64_tn"]
    assert count_launches([*names, *others]) == len(names)


def test_every_step_is_counted_by_itself(taps: TapSet) -> None:
    kernels = KernelLaunches(taps)
    found = []
    for num in (3, 0, 2):
        assert kernels.open()
        launch(num)
        found.append(kernels.close())
        launch(1)
    assert found == [3, 0, 2]
    assert kernels.close() is None


def test_a_profiler_that_the_program_begins_sees_all_of_its_own_and_ends_the_counting(taps: TapSet) -> None:
    kernels = KernelLaunches(taps)
    assert kernels.open()
    launch(1)
    with torch.profiler.profile() as profile:
        launch(2)
    assert sum(event.name == "cudaLaunchKernel" for event in profile.events()) == 2
    assert kernels.close() is None
    assert not kernels.open()


def test_a_profiler_that_the_program_has_on_is_left_alone(taps: TapSet) -> None:
    with torch.profiler.profile() as profile:
        kernels = KernelLaunches(taps)
        assert not kernels.open()
        launch(2)
    assert sum(event.name == "cudaLaunchKernel" for event in profile.events()) == 2
    assert kernels.close() is None


def test_a_profiler_that_is_warming_up_is_not_ended(taps: TapSet) -> None:
    kernels = KernelLaunches(taps)
    schedule = torch.profiler.schedule(wait=0, warmup=1, active=1, repeat=1)
    with torch.profiler.profile(schedule=schedule, acc_events=True) as profile:
        assert not kernels.open()
        launch(1)
        profile.step()
        launch(2)
        profile.step()
    assert sum(event.name == "cudaLaunchKernel" for event in profile.events()) == 2
