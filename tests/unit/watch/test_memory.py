from __future__ import annotations

import sys

import pytest

from harness.watch.memory import ResidentSet


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_the_resident_set_is_read_every_eighth_step_and_then_ever_more_rarely() -> None:
    resident = ResidentSet()
    read = []
    for step in range(1025):
        if step >= resident.next_call:
            assert (resident.read_bytes(step) or 0) > 2**20
            read.append(step)
    resident.close()

    assert read == [*range(0, 256, 8), *range(256, 512, 16), *range(512, 1024, 32), 1024]
