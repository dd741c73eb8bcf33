"""A capture is off on a CPU runner, takes the steps it was asked for, and is never the timed run."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TESTS = """
import pytest
import torch


def train(num_steps=6):
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@pytest.mark.profile_capture(wait=1, warmup=1, active=2, keep=2)
def test_captured(smoke_training, tmp_path):
    runs = [smoke_training(train) for _ in range(3)]
    assert [run.is_profiled for run in runs] == [smoke_training._settings["profile"] == "always"] * 3
    kept = list(tmp_path.glob("traces/*.json.gz"))
    assert len(kept) == (2 if runs[0].is_profiled else 0)
    assert runs[-1].trace is None or runs[-1].trace in kept


@pytest.mark.profile_capture(wait=0, warmup=0, active=1)
def test_first_step(smoke_training):
    assert smoke_training(train, num_steps=1).losses == [4.0]


@pytest.mark.profile_capture(active=9)
def test_too_few(smoke_training):
    smoke_training(train)


@pytest.mark.profile_capture(max_mb=0)
def test_too_large(smoke_training):
    assert smoke_training(train).trace is None


@pytest.mark.profile_capture
def test_command(smoke_training):
    smoke_training.command(["true"])


def test_unmarked(smoke_training):
    assert not smoke_training(train).is_profiled
"""


def test_no_capture_is_made_on_a_cpu_runner_unless_asked_for(project: pytest.Pytester) -> None:
    project.makeconftest("import torch; torch.cuda.is_available = lambda: False")
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("-k", "captured or too_few")
    result.assert_outcomes(passed=2)
    assert list(project.path.glob("**/*.json.gz")) == []
    result.stdout.fnmatch_lines(
        [
            "note: *test_captured*: profile_capture captured nothing: not a GPU runner; --harness-profile=always *"
        ]
    )


def test_a_capture_holds_the_steps_asked_for_or_says_why_not(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = project.runpytest_subprocess("--harness-profile=always")
    result.assert_outcomes(passed=4, failed=2)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [
            "*the capture takes 11 optimizer steps (wait 1, warm-up 1, active 9), the program made 6.",
            "*Next: train more steps, or shorten it: *",
            "*profile_capture takes the steps of a called function; a command runs in its own process.",
            "test_it.py::test_captured *profiled *passed",
            "test_it.py::test_unmarked *passed",
            "note: test_it.py::test_too_large: trace dropped: * MiB compressed, at most 0 are kept; *",
        ]
    )
    (_, trace) = sorted(project.path.glob("harness-report/traces/*test_captured-*.json.gz"))
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sum(name.startswith("Optimizer.step") for name in names) == 2
