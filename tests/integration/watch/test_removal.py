from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pytest
import torch

from harness.record.limit import MAX_SECONDS, MAX_STEPS, Limit
from harness.record.observation import Outcome, RunObservation
from harness.watch.limits import TrainingStopped
from harness.watch.observer import Observer, observe_call
from harness.watch.options import Depth, ObserverOptions
from harness.watch.taps import count_taps
from tests.integration.watch.programs import NUM_STEPS, build_batches, build_model, train_plain

# The fixture of conftest.py checks after every test that nothing is left behind.


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_exception_passes_through_and_is_in_the_record(error: BaseException) -> None:
    observer = Observer()

    def train() -> None:
        train_plain()
        raise error

    with pytest.raises(type(error)), observer:
        train()
    run = observer.observation
    assert run.outcome is Outcome.RAISED
    assert run.error == f"{type(error).__name__}: {error}"
    assert len(run.steps) == NUM_STEPS


def test_exception_inside_a_forward_and_a_backward_leaves_nothing_behind() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
            return value * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
            raise RuntimeError("broken backward")

    model = build_model()
    with Observer() as observer:
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            model(torch.ones(1, 3))
        with pytest.raises(RuntimeError, match="broken backward"):
            Broken.apply(model(torch.ones(1, 8)).sum()).backward()
        train_plain()
    steps = observer.observation.steps
    assert len(steps) == NUM_STEPS
    assert [len(step.losses) for step in steps] == [1] * NUM_STEPS


@pytest.mark.parametrize("inner_first", [True, False])
def test_two_observers_see_the_same_and_may_leave_in_any_order(inner_first: bool) -> None:
    outer, inner = Observer(ObserverOptions(deep_steps=(1, 3))), Observer(ObserverOptions(depth=Depth.NORMS))
    outer.__enter__()
    inner.__enter__()
    unwatched_losses = train_plain().losses
    first, second = (inner, outer) if inner_first else (outer, inner)
    first.__exit__(None, None, None)
    train_plain()
    second.__exit__(None, None, None)
    assert count_taps() == 0
    assert first.observation.losses == unwatched_losses
    assert second.observation.losses == unwatched_losses * 2
    assert not outer.observation.not_seen + inner.observation.not_seen


def test_models_pickle_and_copy_while_they_are_watched() -> None:
    model = build_model()
    with Observer():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for inputs, _ in build_batches(2):
            model(inputs).sum().backward()
            optimizer.step()
        copy = pickle.loads(pickle.dumps(model))  # noqa: S301  its own bytes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copy.modules())
    assert all(map(torch.equal, copy.parameters(), model.parameters()))


def test_replacement_put_over_ours_stays_and_lets_calls_through() -> None:
    scheduler = torch.optim.lr_scheduler.LRScheduler
    original = scheduler.step
    try:
        with Observer() as observer:
            watched = scheduler.step

            def mine(*args: Any, **kwargs: Any) -> None:
                watched(*args, **kwargs)

            scheduler.step = mine  # type: ignore[method-assign]
        assert scheduler.step is mine
        assert train_plain().learning_rates[1] == pytest.approx(0.045)
        assert observer.observation.schedulers == []
    finally:
        scheduler.step = original  # type: ignore[method-assign]


def test_failure_of_the_watcher_is_noted_and_does_not_reach_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.watch.data.BatchSize._add", lambda *_: 1 / 0)
    with Observer() as observer:
        facts = train_plain()
    assert observer.observation.losses == facts.losses
    assert "forward: the watcher itself failed with ZeroDivisionError" in observer.observation.not_seen[0]


def test_max_steps_passes_except_exception_and_runs_finally() -> None:
    ended = []

    def train() -> None:
        try:
            while True:
                with contextlib.suppress(Exception):
                    train_plain()
        finally:
            ended.append(True)

    result, run = observe_call(train, options=ObserverOptions(max_steps=9))
    assert (result, ended) == (None, [True])
    assert len(run.steps) == 9
    assert run.outcome is Outcome.STOPPED
    assert run.outcome.is_complete
    assert "max_steps=9" in run.notes[0]


def test_program_that_swallows_everything_is_stopped_again_and_again() -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    num_swallowed = 0
    with Observer(ObserverOptions(max_steps=2)) as observer:
        for inputs, _ in build_batches(4):
            try:
                model(inputs).sum().backward()
                optimizer.step()
            except BaseException:  # noqa: BLE001  what the program does
                num_swallowed += 1
    assert num_swallowed == 3
    assert observer.observation.outcome is Outcome.STOPPED


def test_limit_of_the_inner_observer_is_the_inner_ones_end_only() -> None:
    with Observer() as outer:
        with Observer(ObserverOptions(max_steps=2)) as inner:
            train_plain()
        train_plain()
    assert inner.observation.outcome is Outcome.STOPPED
    assert outer.observation.outcome is Outcome.COMPLETED
    assert len(outer.observation.steps) == 2 + NUM_STEPS


def test_limit_of_the_outer_observer_ends_both() -> None:
    with Observer(ObserverOptions(max_steps=2)) as outer:
        with pytest.raises(TrainingStopped), Observer() as inner:
            train_plain()
        raise TrainingStopped("again", outer)
    assert inner.observation.outcome is Outcome.STOPPED


def test_max_seconds_ends_an_endless_program(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def tick() -> float:
        nonlocal now_s
        now_s += 0.01
        return now_s

    monkeypatch.setattr("harness.clock.monotonic_s", tick)

    def train() -> None:
        while True:
            train_plain()

    _, run = observe_call(train, options=ObserverOptions(max_seconds=5.0))
    assert run.outcome is Outcome.STOPPED
    assert "max_seconds=5" in run.notes[0]
    assert run.ended_by == Limit(MAX_SECONDS, 5.0, len(run.steps))


def test_record_survives_json() -> None:
    import json

    with Observer(ObserverOptions(max_steps=4)) as observer:
        train_plain()
    run = observer.observation
    assert run.deep_steps
    assert run.ended_by == Limit(MAX_STEPS, 4, 4)
    assert RunObservation.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_long_runs_keep_their_ends() -> None:
    with Observer(ObserverOptions(depth=Depth.LIGHT, max_kept_steps=4)) as observer:
        train_plain()
        train_plain()
    run = observer.observation
    assert [step.step for step in run.steps] == [0, 1, 10, 11]
    assert run.not_seen == ["8 steps in the middle were not kept"]
