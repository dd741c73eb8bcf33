from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness.record.step_observation import ClippingCall, StepObservation
from harness.watch.steps import OpenStep, StepLedger, build_step
from harness.watch.timing import BACKWARD, DATA, PhaseClock

if TYPE_CHECKING:
    from harness.watch.steps import OpenStep as Row

NO_TIME = [0.0] * 5


def build_ledger() -> tuple[StepLedger, list[StepObservation]]:
    emitted: list[StepObservation] = []

    def emit(step: StepObservation, row: Row) -> None:
        del row
        emitted.append(step)

    return StepLedger(emit), emitted


def test_second_optimizer_joins_the_step_until_the_next_backward() -> None:
    ledger, emitted = build_ledger()
    ledger.open.num_micro_batches = 1
    assert ledger.close(0, [1.0, 0.0, 0.0, 0.0, 0.0]) is not None
    assert ledger.close(1, [0.5, 0.0, 0.0, 0.0, 0.0]) is None
    ledger.begin()
    ledger.open.num_micro_batches = 1
    assert ledger.close(1, NO_TIME) is not None
    ledger.finish()
    assert [step.optimizers for step in emitted] == [[0, 1], [1]]
    assert emitted[0].time_s == 1.5


def test_same_optimizer_without_a_backward_makes_a_step_of_its_own() -> None:
    ledger, emitted = build_ledger()
    for _ in range(3):
        ledger.close(0, NO_TIME)
    ledger.finish()
    assert [step.step for step in emitted] == [0, 1, 2]
    assert [step.loss for step in emitted] == [None] * 3


def test_what_is_still_open_at_the_end_is_no_step() -> None:
    ledger, emitted = build_ledger()
    ledger.open.losses.append(1.0)
    ledger.finish()
    assert emitted == []


def test_nan_loss_stays_nan_and_zero_loss_is_not_lost_in_json() -> None:
    row = OpenStep(0, losses=[math.nan], times_s=NO_TIME)
    loss = build_step(row).loss
    assert loss is not None
    assert math.isnan(loss)
    written = build_step(OpenStep(1, losses=[0.0], times_s=NO_TIME)).to_json()
    assert written["loss"] == 0.0
    assert StepObservation.from_json(written).losses == [0.0]


@pytest.mark.parametrize(("norm", "clipped"), [(0.5, 0.5), (4.0, 1.0)])
def test_clipped_norm_follows_from_norm_and_bound(norm: float, clipped: float) -> None:
    row = OpenStep(0, clipping=[(ClippingCall("norm", 1.0), norm)], times_s=NO_TIME)
    step = build_step(row)
    assert step.grad_norm == norm
    assert step.clipped_grad_norm == pytest.approx(clipped, rel=1e-5)


def test_clipping_calls_of_one_step_are_joined() -> None:
    clipping = [(ClippingCall("norm", 10.0), 3.0), (ClippingCall("norm", 10.0), 4.0)]
    assert build_step(OpenStep(0, clipping=list(clipping), times_s=NO_TIME)).grad_norm == pytest.approx(5.0)


def test_every_moment_belongs_to_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr("harness.clock.monotonic_s", lambda: next(moments))
    clock = PhaseClock()
    clock.switch(DATA)
    clock.switch(BACKWARD)
    clock.switch(DATA)
    clock.switch(DATA)
    assert clock.take() == [1.0 + 3.0, 0.0, 2.0, 0.0, 0.0]
