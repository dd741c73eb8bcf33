"""Fixed work, as a program: what trainings do, in small. Prints how long a round takes, and what does it."""

from __future__ import annotations

import json
import mmap
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
"""Of the work: a change to any of it makes its times incomparable."""

ROUNDS = 10
MATRIX = np.ones((256, 256), dtype=np.float32)
PRODUCT = np.empty_like(MATRIX)
NUMBERS = np.ones(2**20, dtype=np.float32)
"""More than the caches of a core hold."""
SCALED = np.empty_like(NUMBERS)
BYTES, PAGE = 8 * 2**20, 4096


def multiply() -> None:
    """Products of matrices."""
    for _ in range(30):
        np.matmul(MATRIX, MATRIX, out=PRODUCT)


def scale() -> None:
    """Numbers from the memory and back."""
    for _ in range(10):
        np.multiply(NUMBERS, 1.5, out=SCALED)


def touch_pages() -> None:
    """Memory that the system gives and takes back, as steps ask for it over and over."""
    with mmap.mmap(-1, BYTES) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # How many pages are huge is luck.
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for place in range(0, BYTES, PAGE):
            memory[place] = 1


def build_objects() -> None:
    """Python's own work."""
    for _ in range(15):
        [{"number": number, "pair": (number, str(number))} for number in range(1000)]


WORKS = (multiply, scale, touch_pages, build_objects)


def measure_s() -> float:
    """Seconds of a round: the geometric mean over the works, each of which is the median of its rounds."""
    for work in WORKS:
        work()
    rounds = [[_time_s(work) for work in WORKS] for _ in range(ROUNDS)]
    return statistics.geometric_mean(map(statistics.median, zip(*rounds, strict=True)))


def _time_s(work: Callable[[], None]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def main() -> None:
    """Prints the time, and what it is the time of, as a JSON object."""
    python, numpy = (
        ".".join(version.split(".")[:2]) for version in (platform.python_version(), np.__version__)
    )
    made_with = f"{VERSION}, Python {python}, NumPy {numpy}"
    json.dump({"time_s": measure_s(), "made_with": made_with}, sys.stdout)


if __name__ == "__main__":
    main()
