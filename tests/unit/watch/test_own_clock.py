"""The clock that stands still while others have the processor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from harness.watch.contention import OwnClock

pytestmark = pytest.mark.serial

BUSY = "print(flush=True)\nwhile True: pass"
PATIENCE_S = 30.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be kept on one core here")
def test_what_others_held_of_the_processor_is_left_out_and_it_never_runs_backwards() -> None:
    measured: list[tuple[float, float, bool]] = []

    def measure() -> None:
        # A thread of its own, so that the test's process is not kept on one core.
        os.sched_setaffinity(0, {core})
        clock = OwnClock()
        start_s, start_own_s = time.perf_counter(), clock.read_s()
        last_s, is_monotonic = start_own_s, True
        # As long as it takes the system to give the other one its turns.
        while time.perf_counter() - start_s < PATIENCE_S and not (
            time.perf_counter() - start_s > 1.0
            and last_s - start_own_s < 0.9 * (time.perf_counter() - start_s)
        ):
            now_s = clock.read_s()
            is_monotonic &= now_s >= last_s
            last_s = now_s
        measured.append((time.perf_counter() - start_s, last_s - start_own_s, is_monotonic))

    core = max(os.sched_getaffinity(0))
    other = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        os.sched_setaffinity(other.pid, {core})
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
    finally:
        other.kill()
        other.communicate()
    ((wall_s, own_s, is_monotonic),) = measured
    assert is_monotonic
    assert own_s < 0.9 * wall_s


def test_a_sleep_is_counted() -> None:
    clock = OwnClock()
    start_s = clock.read_s()
    time.sleep(0.05)
    assert clock.read_s() - start_s > 0.04
