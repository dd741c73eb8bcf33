"""What hooks only note, and handlers go through later, comes to the same as what is handled at once."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from harness.watch.memory import STATUS as RESIDENT
from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions
from tests.integration.watch.programs import STYLES, build_batches, build_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.deep import DeepObservation
    from harness.record.observation import RunObservation
    from harness.record.step_observation import StepObservation

NUM_RUNS = 4
OF_THE_MACHINE = frozenset(
    (
        *("time_s", "phase_times_s", "rss_bytes", "wall_clock_s", "peak_memory_bytes", "first_step_at_s"),
        *("started_at", "process_id", "numerics", "steps", "deep_steps"),
    )
)


class Sink:
    """Keeps the steps as they are handed on."""

    def __init__(self) -> None:
        self.steps: list[StepObservation] = []

    def write_step(self, step: StepObservation, deep: DeepObservation | None) -> None:
        del deep
        self.steps.append(step)

    def write_run(self, run: RunObservation, *, is_last: bool) -> None:
        """Is not kept: the observer has it."""


def keep_what_repeats(plain: Any) -> Any:
    """Without times, memory, and what names a process; a NaN as a text, which equals itself."""
    if isinstance(plain, float) and math.isnan(plain):
        return "nan"
    if isinstance(plain, dict):
        return {key: keep_what_repeats(value) for key, value in plain.items() if key not in OF_THE_MACHINE}
    return [keep_what_repeats(part) for part in plain] if isinstance(plain, (list, tuple)) else plain


def watch(train: Callable[[], object], options: ObserverOptions, *, is_direct: bool) -> Any:
    observer = Observer(options)
    if is_direct:
        observer._session.events.stay_direct()
    with observer:
        train()
    run = observer.observation
    assert all((step.time_s is None) == (not step.phase_times_s) for step in run.steps)
    assert all(time_s >= 0 for step in run.steps for time_s in step.phase_times_s.values())
    return keep_what_repeats(
        {
            "run": run.to_json(),
            "rows": [step.to_json() for step in run.steps],
            "deep": [deep.to_json() for deep in run.deep_steps],
            "timed": [step.step for step in run.steps if step.time_s is not None],
        }
    )


def train_often(style: str) -> None:
    for _ in range(NUM_RUNS):
        STYLES[style]()


def train_with_all_that_interrupts() -> None:
    """Evaluations, a backward that fails, clipping, a rate set by hand, a call without a backward."""
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for step, (inputs, targets) in enumerate(build_batches(30)):
        optimizer.param_groups[0]["lr"] = 0.05 / (step + 1)
        loss = cross_entropy(model(inputs), targets)
        if step % 7 == 3:
            with pytest.raises(RuntimeError):
                torch.autograd.backward(loss, torch.ones(3))
        loss.backward()
        if step % 4 == 1:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 4:
            model(inputs)
            with torch.no_grad():
                model(inputs)


def train_with_optimizers_in_turns() -> None:
    """LBFGS with its forward before the step, behind and before SGD with a loss that is a vector."""
    model = build_model()
    quick = torch.optim.SGD(model.parameters(), lr=0.05)
    slow = torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=3)
    for index, (inputs, targets) in enumerate(build_batches(40)):
        losses = cross_entropy(model(inputs), targets, reduction="none")
        if index % 3 == 2:

            def compute(inputs: torch.Tensor = inputs, targets: torch.Tensor = targets) -> torch.Tensor:
                slow.zero_grad()
                loss = cross_entropy(model(inputs), targets)
                loss.backward()
                return loss

            slow.step(compute)
            continue
        losses.backward(torch.full((8,), 0.125))
        quick.step()
        quick.zero_grad()


def train_with_losses_of_all_kinds() -> None:
    """A complex loss, one that is not finite, accumulation, and backwards that can't even be read."""
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for index, (inputs, targets) in enumerate(build_batches(30)):
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        if index % 5 == 1:
            torch.complex(model(inputs).sum(), torch.zeros(())).backward(torch.ones((), dtype=torch.cfloat))
        if index % 5 == 2:
            with pytest.raises(TypeError):
                torch.autograd.backward(model(inputs).sum(), grad_tensors=3)  # type: ignore[arg-type]
        if index == 20:
            (model(inputs).sum() * math.inf).backward()
        optimizer.step()
        optimizer.zero_grad()


INTERRUPTED = {
    "all that interrupts": train_with_all_that_interrupts,
    "optimizers in turns": train_with_optimizers_in_turns,
    "losses of all kinds": train_with_losses_of_all_kinds,
}


@pytest.mark.parametrize("depth", list(Depth))
@pytest.mark.parametrize("style", [*STYLES, *INTERRUPTED])
def test_events_that_wait_tell_what_handling_at_once_tells(style: str, depth: Depth) -> None:
    def train() -> None:
        INTERRUPTED[style]() if style in INTERRUPTED else train_often(style)

    options = ObserverOptions(depth=depth, deep_steps=(0, 1, 10, 21), counted_steps=(5, 15))
    assert watch(train, options, is_direct=False) == watch(train, options, is_direct=True)


def train_plainly(num_steps: int, after_step: Callable[[int], None]) -> nn.Module:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step, (inputs, targets) in enumerate(build_batches(num_steps)):
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        after_step(step)
    return model


def test_ordinary_steps_only_note_what_happens_and_whoever_asks_sees_all_of_it() -> None:
    waiting, seen = [], []
    observer = Observer(ObserverOptions(depth=Depth.LIGHT))
    session = observer._session
    # The time decides when the memory is read.
    observer._resident.next_s = math.inf

    def look(step: int) -> None:
        waiting.append(len(session.events.waiting))
        if step == 40:
            seen.extend([observer.observation.num_backwards, observer.observation.optimizers[0].num_steps])
            waiting.append(len(session.events.waiting))

    with observer:
        train_plainly(50, look)
    # Five events a step, from the ninth on: at the end of the eighth the run is described.
    assert waiting[8:41] == [5 * num for num in range(1, 34)]
    assert seen == [41, 41]
    assert waiting[41] == 0
    assert not session.events.waiting
    assert [step.num_samples for step in observer.observation.steps] == [8] * 50


def test_what_a_crash_has_to_leave_waits_after_the_first_steps_only_and_never_long() -> None:
    sink, now, written = Sink(), [0.0], []
    observer = Observer(ObserverOptions(depth=Depth.LIGHT), sink=sink)
    observer._session.clock.read_s = lambda: now[0]

    def look(step: int) -> None:
        written.append(len(sink.steps))
        # The hundredth step is a slow one.
        now[0] += 1.0 if step == 100 else 0.001

    with observer:
        train_plainly(120, look)
    assert written[:64] == list(range(64))
    assert written[99] < 99 - 16
    # At its own end all before it is written: whether another optimizer joins it, the next step tells.
    assert written[101] == 101
    assert len(sink.steps) == 120


@pytest.mark.parametrize("limit", [1, 9, 40])
def test_a_limit_ends_the_program_at_its_step_although_events_wait(limit: int) -> None:
    ended: list[int] = []
    with Observer(ObserverOptions(depth=Depth.LIGHT, max_steps=limit)) as observer:
        train_plainly(50, ended.append)
    assert len(ended) == limit - 1
    assert len(observer.observation.steps) == limit


def test_a_loader_in_a_thread_of_its_own_is_seen_at_its_step() -> None:
    inputs, targets = zip(*build_batches(4), strict=True)
    loader = DataLoader(TensorDataset(torch.cat(inputs), torch.cat(targets)), batch_size=8)

    def read_in_a_thread(step: int) -> None:
        if step in {20, 40}:
            thread = threading.Thread(target=lambda: list(loader))
            thread.start()
            thread.join()

    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        train_plainly(50, read_in_a_thread)
    (found,) = observer.observation.loaders
    assert [epoch.num_batches for epoch in found.epochs] == [4, 4]
    assert [epoch.after_step for epoch in found.epochs] == [21, 41]
    assert len(observer.observation.steps) == 50


def run_in_a_thread(function: Callable[..., object], *args: object) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def test_a_training_in_a_thread_of_its_own_is_seen_to_its_end() -> None:
    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        run_in_a_thread(train_plainly, 50, lambda _: None)
    assert len(observer.observation.steps) == 50


def test_another_thread_sees_the_record_as_it_is(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(step: int) -> None:
        if step % 10 == 9:
            run_in_a_thread(torch.save, {"step": step}, tmp_path / f"{step}.pt")
            run_in_a_thread(lambda: seen.append(observer.observation.num_backwards))

    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        train_plainly(50, look)
    assert seen == [10, 20, 30, 40, 50]
    assert [found.after_step for found in observer.observation.checkpoints] == seen


@pytest.mark.parametrize(
    "options",
    [
        ObserverOptions(deep_steps=(0, 10)),
        ObserverOptions(depth=Depth.LIGHT, counted_steps=(10,)),
        ObserverOptions(depth=Depth.LIGHT, max_steps=10),
    ],
)
def test_an_interrupt_while_events_are_gone_through_leaves_nothing_behind(
    options: ObserverOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = Observer(options)
    clock = observer._session._clock

    def interrupt(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    def look(step: int) -> None:
        if step == 8:
            monkeypatch.setattr(clock, "switch", interrupt)

    with pytest.raises(KeyboardInterrupt), observer:
        train_plainly(50, look)
    run = observer.observation
    assert run.outcome == "raised"
    assert 9 <= len(run.steps) <= 10
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


@pytest.mark.parametrize(
    "options",
    [ObserverOptions(depth=Depth.LIGHT, max_steps=40), ObserverOptions(deep_steps=(0, 40), max_steps=42)],
)
def test_steps_that_end_while_another_thread_plans_are_planned_with(
    options: ObserverOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = Observer(options)
    events = observer._session.events
    plan = events._plan_settling
    has_asked, may_plan = threading.Event(), threading.Event()
    asker = threading.Thread(target=lambda: observer.observation)

    def plan_late() -> None:
        if threading.current_thread() is asker:
            has_asked.set()
            may_plan.wait(20)
        plan()

    def look(step: int) -> None:
        if step == 20:
            asker.start()
            assert has_asked.wait(20)
        if step == 25:
            assert len(events.waiting) > 20
            may_plan.set()
            asker.join(20)

    monkeypatch.setattr(events, "_plan_settling", plan_late)
    with observer:
        train_plainly(60, look)
    run = observer.observation
    assert len(run.steps) == options.max_steps
    assert [bool(deep.parameters) for deep in run.deep_steps] == [True] * (
        2 if options.depth is Depth.DEEP else 0
    )


@pytest.mark.skipif(not RESIDENT.exists(), reason="the resident set is read from /proc")
@pytest.mark.parametrize("is_direct", [False, True])
def test_the_resident_set_is_that_of_steps_a_tenth_of_a_second_apart(is_direct: bool) -> None:
    observer = Observer(ObserverOptions(depth=Depth.LIGHT))
    now_s = 0.0

    def take_time(step: int) -> None:
        nonlocal now_s
        now_s = 0.03 * (step + 1)

    observer._session._clock.read_s = lambda: now_s
    if is_direct:
        observer._session.events.stay_direct()
    with observer:
        train_plainly(30, take_time)
    assert [step.step for step in observer.observation.steps if step.rss_bytes] == [*range(0, 30, 4)]


def test_a_failure_of_a_handler_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.watch.loss.LossHooks._end_backward", lambda *_: 1 / 0)
    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        train_plainly(20, lambda _: None)
    assert len(observer.observation.steps) == 20
    (told,) = observer.observation.not_seen
    assert told.endswith("the watcher itself failed with ZeroDivisionError: division by zero")


def test_steps_of_changing_threads_are_all_seen() -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step_once(inputs: torch.Tensor, targets: torch.Tensor) -> None:
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    with Observer(ObserverOptions(depth=Depth.LIGHT)) as observer:
        for index, batch in enumerate(build_batches(30)):
            if index < 12:
                step_once(*batch)
                continue
            thread = threading.Thread(target=step_once, args=batch)
            thread.start()
            thread.join()
    assert [len(step.losses) for step in observer.observation.steps] == [1] * 30
