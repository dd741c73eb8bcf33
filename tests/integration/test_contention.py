"""A training slowed by other programs is told from one that got slower itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.watch.contention import read_waiting_s

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        not Path("/proc/self/schedstat").exists(), reason="this system does not tell run queue times"
    ),
]
BUSY = "while True: pass"


def spin(seconds_of_cpu: float) -> None:
    end = time.thread_time() + seconds_of_cpu
    while time.thread_time() < end:
        pass


def test_waiting_for_a_processor_is_counted_and_sleeping_is_not() -> None:
    (core, *_others) = cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    rival = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        before_s = read_waiting_s()
        spin(0.3)
        contended_s = (read_waiting_s() or 0) - (before_s or 0)
    finally:
        rival.kill()
        rival.wait()
        os.sched_setaffinity(0, cores)
    before_s = read_waiting_s()
    time.sleep(0.3)
    sleeping_s = (read_waiting_s() or 0) - (before_s or 0)
    assert contended_s > 0.1
    assert sleeping_s < 0.1


def test_a_process_that_is_gone_tells_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert read_waiting_s(child.pid) is None
