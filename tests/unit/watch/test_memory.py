from __future__ import annotations

import sys

import pytest

from harness.watch.memory import ResidentSet


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_the_resident_set_is_read_every_tenth_of_a_second_and_then_ever_more_rarely() -> None:
    resident = ResidentSet()
    read_s = []
    for step in range(10_000):
        # Steps of 10 ms, on a clock that begins anywhere.
        at_s = 1000 + step / 100
        if at_s >= resident.next_s:
            told = resident.read(at_s)
            assert told is not None
            assert resident.find_bytes(told) > 2**20
            read_s.append(at_s - 1000)
    resident.close()

    first = [at_s for at_s in read_s if at_s < 3]
    assert first == pytest.approx([number / 10 for number in range(30)], abs=0.011 * 30)
    # Sixteen times before the time has doubled, or a few more, as the last step is not over yet.
    for since_s in (6, 12, 24, 48):
        assert 16 <= sum(since_s <= at_s < 2 * since_s for at_s in read_s) <= 24
