"""The simulation of `benchmarks/occasions.py`: fixed work helps where the machine is what differs."""

from __future__ import annotations

from benchmarks.occasions import find_share, is_regressed, is_regressed_with_fixed_work


def test_slower_code_is_found_more_often_where_fixed_work_tells_the_machine_from_it() -> None:
    shape, noise, num = (10, 4), 0.02, 40
    unknown, known = (
        [find_share(judge, shape, noise, slowdown, num) for slowdown in (0.0, 0.1)]
        for judge in (is_regressed, is_regressed_with_fixed_work)
    )
    assert unknown[0] == known[0] == 0
    assert known[1] > unknown[1] + 0.2
