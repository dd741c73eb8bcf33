from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness import clock
from harness.errors import UsageError
from harness.watch.recorder import Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A recorder whose clock goes on by one second with every look at it."""
    seconds = iter(float(second) for second in range(1000))
    monkeypatch.setattr(clock, "monotonic_s", lambda: next(seconds))
    recorder = Recorder()
    recorder.start()
    return recorder


def test_steps_are_numbered_where_the_program_gives_no_number(recorder: Recorder) -> None:
    recorder.record(loss=2.0)
    recorder.record(loss=1.0)
    recorder.record(step=7, loss=1.0)
    recorder.record(loss=1.0)
    assert [step.step for step in recorder.steps] == [0, 1, 7, 8]


def test_the_time_between_two_calls_is_shared_by_the_steps_between_them(recorder: Recorder) -> None:
    recorder.record(step=10, loss=2.0)
    recorder.record(step=14, loss=1.0)
    assert [step.time_s for step in recorder.steps] == [1.0, 0.25]


def test_a_step_time_of_the_programs_own_is_taken_over(recorder: Recorder) -> None:
    recorder.record(loss=2.0, step_time=0.125)
    recorder.record(loss=2.0, step_time=math.nan)
    assert [step.time_s for step in recorder.steps] == [0.125, 1.0]


def test_starting_again_forgets_earlier_steps_and_keeps_those_handed_out(recorder: Recorder) -> None:
    recorder.record(loss=2.0)
    first = recorder.steps
    recorder.start()
    recorder.record(loss=1.0)
    assert [step.metrics for step in first] == [{"loss": 2.0}]
    assert [step.metrics for step in recorder.steps] == [{"loss": 1.0}]


def test_any_number_is_a_metric_and_nan_too(recorder: Recorder) -> None:
    step_number: Any = np.int64(3)
    recorder.record(step=step_number, loss=np.float32(0.5), ok=True, norm=math.nan)
    (step,) = recorder.steps
    assert (step.step, step.metrics["loss"], step.metrics["ok"]) == (3, 0.5, 1.0)
    assert math.isnan(step.metrics["norm"])


def test_a_value_that_is_no_number_is_misuse_and_names_it(recorder: Recorder) -> None:
    with pytest.raises(UsageError, match=r"record\(loss=\.\.\.\) got list"):
        recorder.record(loss=[1.0, 2.0])
    assert recorder.steps == []


def test_a_call_without_a_metric_is_misuse(recorder: Recorder) -> None:
    with pytest.raises(UsageError, match="got no metric"):
        recorder.record(step=1)


@pytest.mark.parametrize("step", ["one", 0.5, math.nan, math.inf, [1]])
def test_a_step_that_is_no_whole_number_is_misuse(recorder: Recorder, step: Any) -> None:
    with pytest.raises(UsageError, match="is not a whole number"):
        recorder.record(step=step, loss=1.0)


@pytest.mark.parametrize("step", [3, 2])
def test_a_step_that_does_not_rise_is_misuse(recorder: Recorder, step: int) -> None:
    recorder.record(step=3, loss=1.0)
    with pytest.raises(UsageError, match=rf"record\(step={step}\) came after step 3"):
        recorder.record(step=step, loss=1.0)
