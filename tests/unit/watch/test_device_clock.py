from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from harness.watch.device_clock import DeviceClock, Event
from harness.watch.steps import OpenStep, StepLedger, build_step
from harness.watch.timing import BACKWARD, DATA, FORWARD, OPTIMIZER, OTHER, PhaseClock


@dataclass
class Device:
    """A device whose events are a number of milliseconds apart, and passed when it says so."""

    ms_between: list[float]
    num_passed: int = 0
    num_built: int = 0
    num_recorded: int = 0
    num_waits: int = 0
    is_capturing: bool = False
    moments: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.moments = list(itertools.accumulate(self.ms_between, initial=0.0))

    def record(self, event: Event | None) -> Event:
        if event is None:
            self.num_built += 1
            event = FakeEvent(self)
        assert isinstance(event, FakeEvent)
        event.position = self.num_recorded
        self.num_recorded += 1
        return event


class FakeEvent:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.position = -1

    def query(self) -> bool:
        return self.position < self.device.num_passed

    def synchronize(self) -> None:
        self.device.num_waits += 1
        self.device.num_passed = max(self.device.num_passed, self.position + 1)

    def elapsed_time(self, end_event: Event) -> float:
        assert isinstance(end_event, FakeEvent)
        assert self.query()
        assert end_event.query()
        return self.device.moments[end_event.position] - self.device.moments[self.position]


def build_clock(device: Device) -> DeviceClock:
    return DeviceClock(device.record, lambda: device.is_capturing)


def take_step(clock: DeviceClock) -> None:
    for phase in (DATA, FORWARD, BACKWARD, OPTIMIZER, OTHER):
        clock.note(phase)


def test_phases_are_the_times_between_events() -> None:
    device = Device([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
    clock = build_clock(device)
    take_step(clock)
    assert clock.take() is None  # whose beginning nobody saw
    take_step(clock)
    times = clock.take()
    assert times is not None
    assert not times.is_known()
    device.num_passed = 10
    assert times.is_known()
    assert times.read() == pytest.approx([0.032, 0.064, 0.128, 0.256, 0.016])


def test_events_are_used_again_once_they_are_read() -> None:
    device = Device([1.0] * 50)
    clock = build_clock(device)
    for _ in range(10):
        take_step(clock)
        times = clock.take()
        device.num_passed = device.num_recorded
        if times is not None:
            assert times.is_known()
            read = times.read()
            assert read == times.read() == pytest.approx([0.001] * 5)
    assert device.num_recorded == 50
    assert device.num_built <= 16
    assert device.num_waits == 0


def test_what_the_watcher_does_between_steps_is_no_ones_time() -> None:
    device = Device([1.0] * 4 + [100.0] + [1.0] * 10)
    clock = build_clock(device)
    take_step(clock)
    clock.take()
    clock.skip()
    take_step(clock)
    times = clock.take()
    device.num_passed = device.num_recorded
    assert times is not None
    assert sum(times.read() or []) == pytest.approx(0.005)
    clock.skip()
    take_step(clock)
    assert clock.take() is not None


def test_a_step_in_which_a_graph_was_captured_has_no_device_times() -> None:
    device = Device([1.0] * 50)
    clock = build_clock(device)
    take_step(clock)
    clock.take()
    clock.note(DATA)
    device.is_capturing = True
    clock.note(FORWARD)
    assert device.num_recorded == 6
    device.is_capturing = False
    clock.note(OTHER)
    assert clock.take() is None
    take_step(clock)
    assert clock.take() is not None


def test_nothing_is_asked_of_a_device_that_captures_a_graph() -> None:
    device = Device([1.0] * 50)
    clock = build_clock(device)
    for _ in range(2):
        take_step(clock)
        times = clock.take()
    device.num_passed = device.num_recorded
    device.is_capturing = True
    assert times is not None
    assert not times.is_known()
    device.is_capturing = False
    assert times.is_known()


def test_a_device_that_fails_is_left_alone() -> None:
    def fail(event: Event | None) -> Event:
        del event
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    clock = DeviceClock(fail)
    take_step(clock)
    assert clock.take() is None
    assert "illegal memory access" in str(clock.error)


def test_phase_clock_passes_its_switches_on() -> None:
    device = Device([1.0] * 20)
    clock = PhaseClock()
    clock.device = build_clock(device)
    clock.switch(DATA)
    clock.device.take()
    clock.switch(OTHER)
    clock.rename(FORWARD)
    clock.switch(BACKWARD)
    clock.switch(OTHER)
    times = clock.device.take()
    device.num_passed = device.num_recorded
    assert times is not None
    assert times.read() == pytest.approx([0.001, 0.001, 0.001, 0.0, 0.0])


def test_steps_wait_for_their_device_times_in_order_and_nothing_waits_before_the_end() -> None:
    device = Device([1.0] * 60)
    clock = build_clock(device)
    emitted = []
    ledger = StepLedger(lambda step, _: emitted.append(step), is_prompt=True)
    for _ in range(4):
        take_step(clock)
        ledger.close(0, [0.5] * 5, clock)
        ledger.begin()
    assert [step.step for step in emitted] == [0]
    assert device.num_waits == 0
    device.num_passed = 11
    take_step(clock)
    ledger.close(0, [0.5] * 5, clock)
    ledger.begin()
    assert [step.step for step in emitted] == [0, 1]
    ledger.finish()
    assert [step.step for step in emitted] == [0, 1, 2, 3, 4]
    assert [step.has_device_times for step in emitted] == [False, True, True, True, True]
    assert emitted[0].time_s == 2.5
    assert emitted[1].time_s == pytest.approx(0.005)


def test_times_of_joined_optimizers_are_added() -> None:
    device = Device([1.0] * 60)
    clock = build_clock(device)
    take_step(clock)
    clock.take()
    take_step(clock)
    first = clock.take()
    take_step(clock)
    second = clock.take()
    device.num_passed = device.num_recorded
    row = OpenStep(3, times_s=[1.0] * 5, device_times=[first, second])
    assert row.is_known()
    assert build_step(row).time_s == pytest.approx(0.010)


def test_what_the_watcher_does_within_a_step_is_no_ones_time() -> None:
    device = Device([1.0, 1.0, 100.0, 1.0, 1.0, 1.0])
    clock = PhaseClock()
    clock.device = build_clock(device)
    clock.switch(DATA)
    clock.device.take()
    clock.switch(FORWARD)
    with clock.leave_out():
        pass
    clock.switch(BACKWARD)
    clock.switch(OTHER)
    times = clock.device.take()
    device.num_passed = device.num_recorded
    assert times is not None
    assert times.read() == pytest.approx([0.001, 0.002, 0.001, 0.0, 0.0])
