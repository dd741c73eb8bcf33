from __future__ import annotations

import sys
from itertools import pairwise

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

    gaps_s = [after - before for before, after in pairwise(read_s)]
    assert gaps_s[:30] == pytest.approx([0.1] * 30, abs=0.011)
    for at_s, gap_s in zip(read_s[40:], gaps_s[40:], strict=False):
        assert gap_s == pytest.approx(at_s / 32, abs=0.011)
