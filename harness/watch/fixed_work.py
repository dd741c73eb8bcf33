"""Times work that never changes, on the cores of a launch: how fast is the machine at the moment?"""

from __future__ import annotations

import math
import mmap
import platform
import statistics
from typing import TYPE_CHECKING

import torch

from harness import clock
from harness.record.fixed_work import FixedWork
from harness.watch.cores import pinned
from harness.watch.devices import limited_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from harness.record.run import TrainingRun

VERSION = 1
"""Of the work: a change to any of it makes its times incomparable."""

ROUNDS = 10
SIZE = 256
NUMBERS = 2**20
BYTES = 8 * 2**20
PAGE = 4096


def run_beside(launch: Callable[[], TrainingRun], cores: AbstractSet[int] = frozenset()) -> TrainingRun:
    """Launches a program between two turns of fixed work, whose time the record then has.

    Args:
        launch: Runs the program once.
        cores: Processors that the program is kept on; none leaves the choice to the system.

    Raises:
        HarnessError: What `launch` raises.
    """
    __tracebackhide__ = True
    before_s = _time_work(cores)
    run = launch()
    run.fixed_work = FixedWork(
        time_s=math.sqrt(before_s * _time_work(cores)),
        made_with=f"{VERSION}, Python {platform.python_version()}, torch {torch.__version__}",
    )
    return run


def _time_work(cores: AbstractSet[int]) -> float:
    """Seconds of one round, the geometric mean of the kinds of work, each of which is the median of its rounds."""
    with pinned(cores), limited_threads(1), torch.no_grad():
        works = (_build_multiply(), _build_scale(), _touch_pages, _build_objects)
        for work in works:
            work()
        rounds = [[_time(work) for work in works] for _ in range(ROUNDS)]
    return statistics.geometric_mean(map(statistics.median, zip(*rounds, strict=True)))


def _time(work: Callable[[], object]) -> float:
    start_s = clock.monotonic_s()
    work()
    return clock.monotonic_s() - start_s


def _build_multiply() -> Callable[[], object]:
    matrix = torch.full((SIZE, SIZE), 1.0)
    product = torch.empty_like(matrix)

    def multiply() -> None:
        for _ in range(30):
            torch.mm(matrix, matrix, out=product)

    return multiply


def _build_scale() -> Callable[[], object]:
    """More numbers than the caches of a core hold."""
    numbers = torch.full((NUMBERS,), 1.0)
    scaled = torch.empty_like(numbers)

    def scale() -> None:
        for _ in range(10):
            torch.mul(numbers, 1.5, out=scaled)

    return scale


def _touch_pages() -> None:
    """Memory that the system gives and takes back: what the steps of a training ask for over and over."""
    with mmap.mmap(-1, BYTES) as memory:
        for place in range(0, BYTES, PAGE):
            memory[place] = 1


def _build_objects() -> None:
    for _ in range(15):
        [{"number": number, "pair": (number, str(number))} for number in range(1000)]
