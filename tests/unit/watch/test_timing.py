"""Time that is no one's, where switches of phases come to the clock later than they happened."""

from __future__ import annotations

from harness.record.step_observation import PHASES
from harness.watch.timing import BACKWARD, DATA, FORWARD, OTHER, PhaseClock


def start_clock(times_s: list[float]) -> PhaseClock:
    """A clock that reads these times, one after the other, and begins at 0 with other things."""
    clock = PhaseClock()
    clock.read_s = iter(times_s).__next__
    clock.switch(OTHER, 0.0)
    return clock


def take(clock: PhaseClock) -> dict[str, float]:
    return {name: time_s for name, time_s in zip(PHASES, clock.take(), strict=True) if time_s}


def test_a_switch_counts_from_the_time_it_is_told() -> None:
    clock = start_clock([])
    clock.switch(DATA, 1.0)
    clock.switch(FORWARD, 4.0)
    clock.switch(OTHER, 9.0)
    assert take(clock) == {"other": 1.0, "data": 3.0, "forward": 5.0}


def test_what_is_left_out_is_no_ones_time() -> None:
    clock = start_clock([15.0])
    clock.switch(FORWARD, 1.0)
    clock.leave_out_since(11.0)
    clock.switch(OTHER, 20.0)
    assert take(clock) == {"other": 1.0, "forward": 15.0}
    clock.switch(DATA, 22.0)
    assert take(clock) == {"other": 2.0}


def test_a_switch_that_was_read_before_keeps_all_of_its_time() -> None:
    clock = start_clock([15.0])
    clock.switch(FORWARD, 1.0)
    clock.leave_out_since(11.0)
    # It is told only now, and had happened before.
    clock.switch(BACKWARD, 10.0)
    clock.switch(OTHER, 20.0)
    assert take(clock) == {"other": 1.0, "forward": 9.0, "backward": 6.0}


def test_time_before_the_last_switch_is_not_left_out_again() -> None:
    clock = start_clock([15.0, 16.0])
    clock.switch(FORWARD, 1.0)
    clock.skip()
    clock.leave_out_since(11.0)
    clock.switch(OTHER, 20.0)
    assert take(clock) == {"other": 1.0, "forward": 4.0}


def test_several_times_are_left_out_where_each_of_them_was() -> None:
    clock = start_clock([3.0, 13.0])
    clock.leave_out_since(2.0)
    clock.leave_out_since(11.0)
    clock.switch(DATA, 4.0)
    clock.switch(FORWARD, 10.0)
    clock.switch(OTHER, 14.0)
    assert take(clock) == {"other": 3.0, "data": 6.0, "forward": 2.0}


def test_a_clock_that_stands_still_has_nothing_to_leave_out() -> None:
    clock = PhaseClock()
    clock.leave_out_since(0.0)
    clock.switch(DATA, 1.0)
    clock.switch(OTHER, 3.0)
    assert take(clock) == {"data": 2.0}
