"""What a step with very many calls, or a very large model, may cost: past a bound, less is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import mse_loss

from harness.watch import deep, loss_inputs, trace
from harness.watch.observer import Observer
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    import pytest

    from harness.record.observation import RunObservation

INPUTS = torch.linspace(-1, 1, 32).reshape(4, 8)
FEW = 3


def train(num_micro_batches: int = 1) -> RunObservation:
    """Two steps of a student, whose frozen teacher is called for every micro-batch."""
    torch.manual_seed(0)
    student, teacher = nn.Linear(8, 1), nn.Linear(8, 1).requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with Observer(ObserverOptions(traced_steps=2)) as observer:
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(num_micro_batches):
                with torch.no_grad():
                    wanted = teacher(INPUTS)
                mse_loss(student(INPUTS), wanted).backward()
            optimizer.step()
    assert not any("failed" in text for text in observer.observation.not_seen)
    return observer.observation


def test_of_many_micro_batches_the_first_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> list[int]:
        step = train(2 * FEW).steps[1]
        assert step.trace is not None
        assert (step.num_micro_batches, len(step.losses)) == (2 * FEW, 2 * FEW)
        return [len(step.trace.called_with), len(step.trace.outputs), len(step.trace.side_calls)]

    assert count() == [2 * FEW] * 3
    monkeypatch.setattr(trace, "MAX_CALLS", FEW)
    assert count() == [FEW] * 3


def test_of_many_loss_functions_of_a_deep_step_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(step.loss_functions) for step in train(2 * FEW).deep_steps] == [2 * FEW] * 2
    monkeypatch.setattr(loss_inputs, "MAX_CALLS", FEW)
    assert [len(step.loss_functions) for step in train(2 * FEW).deep_steps] == [FEW] * 2


def test_contents_of_parameters_are_not_taken_of_a_model_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def list_known(run: RunObservation) -> list[bool]:
        first = run.deep_steps[0]
        prints = [row.fingerprint for row in first.parameters] + [row.fingerprint for row in first.still]
        return [found is not None for found in prints]

    # Weight and bias of the student, and of the teacher.
    assert list_known(train()) == [True] * 4
    monkeypatch.setattr(deep, "MAX_FINGERPRINT_BYTES", 4 * 9 - 1)
    # Of the teacher there is nothing left to tell.
    assert list_known(train()) == [False] * 2
