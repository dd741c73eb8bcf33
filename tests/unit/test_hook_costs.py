"""The marks of `benchmarks/hooks.py`: around every hook, in every step, and gone afterwards."""

from __future__ import annotations

import pytest

from benchmarks.hooks import HOOKS, NUM_EARLY, find_mean, measure
from harness.watch.options import Depth
from harness.watch.taps import count_taps

NUM_STEPS = 8


@pytest.mark.parametrize("depth", [None, Depth.LIGHT])
@pytest.mark.parametrize("as_child", [False, True])
def test_every_hook_is_measured_in_every_step(depth: Depth | None, *, as_child: bool) -> None:
    marks = measure(depth, NUM_STEPS, (4, 2), as_child=as_child)
    taken = {hook: len(marks.taken_ns[hook]) for hook in HOOKS}
    # The call of the optimizer has its marks from the start; the end of the loader is one more call.
    late = NUM_STEPS - NUM_EARLY
    assert taken == {
        "loader": late + 1,
        "model": late,
        "backward": late,
        "scheduler": late,
        "before the optimizer": NUM_STEPS,
        "after it": NUM_STEPS,
    }
    assert all(value > 0 for values in marks.taken_ns.values() for value in values)
    assert count_taps() == 0


def test_the_slowest_are_no_part_of_a_mean() -> None:
    assert find_mean([2] * 98 + [1000, 1000]) == 2
    assert find_mean([7]) == 7
