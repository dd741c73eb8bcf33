"""Builders of records for the tests; session-scoped, so that Hypothesis may use them too."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from harness.baselines.pools import Launch
from harness.baselines.trajectory import (
    DeepPoint,
    InputPoint,
    LossPoint,
    Provenance,
    TensorPoint,
    TracePoint,
    Trajectory,
)
from harness.record.environment import Environment
from harness.record.run import Step, TrainingRun
from harness.settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytest_plugins = ["pytester"]

settings.register_profile("suite", deadline=None, max_examples=50)
settings.load_profile("suite")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Of a session that a shell put into the background: what tests start, and interrupt, would not notice.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENVIRONMENT = Environment(
    python="3.11.9",
    platform="Linux-6.1",
    machine="x86_64",
    host="here",
    cpu="Fast CPU f6m85",
    num_cpus=2,
    torch="2.13.0+cpu",
    commit="1a2b3c4",
    is_dirty=False,
)


@pytest.fixture(scope="session")
def environment() -> Environment:
    """A machine with two processors and no GPU."""
    return ENVIRONMENT


@pytest.fixture(scope="session")
def make_run() -> Callable[..., TrainingRun]:
    """Makes a run of the given losses that cost 10 s and 100 MiB; other attributes by name."""

    def make(
        losses: Sequence[float] = (3.0, 2.5, 2.0, 1.8, 1.6, 1.5, 1.4, 1.3), **changes: Any
    ) -> TrainingRun:
        run = TrainingRun(
            name="train()",
            steps=[Step(step, {"loss": loss}, time_s=0.5) for step, loss in enumerate(losses)],
            source="return value",
            loss_name="loss",
            run_dir=Path("/nowhere"),
            device="cpu",
            seed=0,
            threads=1,
            wall_clock_s=10.0,
            peak_memory_bytes=100 * 2**20,
            environment=ENVIRONMENT,
        )
        return replace(run, **changes)

    return make


@pytest.fixture(scope="session")
def make_launch() -> Callable[..., Launch]:
    """Makes a launch of a pool with the given values."""

    def make(**values: float) -> Launch:
        return Launch(
            values, recorded_at="2026-11-02T10:00:00+00:00", commit=None, is_dirty=None, reason="initial"
        )

    return make


@pytest.fixture(scope="session")
def make_trajectory() -> Callable[..., Trajectory]:
    """Makes a trajectory of the given losses, with two tensors and a deep step; other attributes by name."""

    def make(losses: Sequence[float] = (3.0, 2.5, 2.0, 1.8), **changes: Any) -> Trajectory:
        names = ("body.weight", "head.weight")
        points = tuple(
            TracePoint(
                step=step,
                loss=loss,
                learning_rates=(0.1,),
                grad_norm=1.0 + step,
                clipped_norm=1.0,
                update_norm=0.1,
                shapes="16x8",
                batch=f"{step:08x} {step:08x}",
                generators={"torch": f"{step:08x}"},
                gradients=("ab", "cd"),
                updates=("ef", "gh"),
            )
            for step, loss in enumerate(losses)
        )
        deep = DeepPoint(
            step=0,
            inputs=(InputPoint("16x8", "float32", -1.0, 1.0, 0.0, 1.0),),
            outputs={"body": "11111111", "head": "22222222"},
            losses=(LossPoint("cross_entropy", losses[0], 1.0, "22222222", "33333333"),),
            tensors=tuple(TensorPoint(name, "44444444", 1.0, 0.5, 0.1) for name in names),
        )
        trajectory = Trajectory(
            test="tests/test_a.py::test_a",
            numerics_class="cpu-fast",
            points=points,
            deep=(deep,),
            settings={
                "forward": {"body": "Body(width=8)", "body.linear": "Linear(in_features=8)"},
                "optimizer": {"optimizer 0": "AdamW", "optimizer 0 group 0 weight_decay": 0.01},
            },
            parameters=(names,),
            machine={"device": "cpu", "torch": "2.13.0"},
            sources={"Body": "net.py"},
            project_files=("net.py", "train.py"),
            provenance=Provenance("2026-11-02T10:00:00+00:00", "initial", "1a2b3c4d5e6f"),
        )
        return replace(trajectory, **changes)

    return make


TRAININGS = """
import math


def train(num_steps=20, start=3.0):
    return [start * 0.9**step for step in range(num_steps)]


def train_timed(step_time_s=0.1, **metrics):
    return [{"loss": loss, "step_time_s": step_time_s, **metrics} for loss in train()]


def diverge():
    return [*train(10), math.nan]


def stall():
    return [2.0] * 20


def crash():
    raise RuntimeError("out of cheese")
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project beside a module `trainings`, free of what CI sets; the plugin is installed as ever."""
    for option in OPTIONS:
        if option.env:
            monkeypatch.delenv(option.env, raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider\n")
    pytester.makepyfile(trainings=TRAININGS)
    return pytester
