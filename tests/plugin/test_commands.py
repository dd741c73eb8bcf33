"""Trainings that are commands of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SCRIPT = """
import argparse, os, sys
from trainings import train
parser = argparse.ArgumentParser()
parser.add_argument("--fault")
fault = parser.parse_args().fault
print("training with", os.environ["OMP_NUM_THREADS"], "threads")
if fault == "exit":
    sys.exit("no data")
if fault != "silent":
    with open("metrics.csv", "w") as file:
        print("step,loss", *(f"{step},{loss}" for step, loss in enumerate(train())), sep="\\n", file=file)
        if fault == "torn":
            print("20", file=file)
if fault == "hang":
    import signal
    signal.pause()
"""

TESTS = """
import sys
from pathlib import Path
import pytest
from harness import ObservationError, assert_artifacts, assert_healthy

SCRIPT = Path("train.py").resolve()


def run(training, *arguments, **options):
    return training.command([sys.executable, SCRIPT, *arguments], cwd=training._options.run_dir, **options)


@pytest.fixture(autouse=True)
def _import_from_here(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parent))
    monkeypatch.setattr("harness.fixtures.COMMAND_SLACK_S", 0)


@pytest.mark.budget(wall_clock_s=60)
def test_good(smoke_training):
    result = run(smoke_training)
    assert_healthy(result)
    assert_artifacts(result, "metrics.csv")
    assert result.command[1] == str(SCRIPT)


def test_exits(smoke_training):
    run(smoke_training, "--fault=exit")


def test_silent(smoke_training):
    run(smoke_training, "--fault=silent")


def test_torn(smoke_training):
    run(smoke_training, "--fault=torn")


def test_stranger(smoke_training):
    smoke_training.command(["no-such-trainer", "--fast"])


def test_text(smoke_training):
    smoke_training.command("python train.py")


@pytest.mark.budget(wall_clock_s=1)
def test_hangs(smoke_training):
    run(smoke_training, "--fault=hang")


def test_hangs_over_its_own_limit(smoke_training):
    with pytest.raises(ObservationError, match="was still running after 0.5 s"):
        run(smoke_training, "--fault=hang", timeout_s=0.5)
"""


def test_a_command_is_judged_or_says_why_it_can_not_be(project: pytest.Pytester) -> None:
    project.makepyfile(train=SCRIPT, test_it=TESTS)
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=6)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [
            "*ObservationError: * --fault=exit exited with code 1 after *s (before any step was seen).",
            "*training with 1 threads",
            "*no data",
            "*no optimizer step was seen in test_it.py::test_silent: *",
            "*metrics file *metrics.csv can't be parsed at line 22: 1 cells under 2 column names.",
            "*UsageError: no-such-trainer --fast can't be started: *No such file*",
            "*UsageError: the command 'python train.py' is not a list of texts and paths.",
            "*ObservationError: * --fault=hang was still running after * s (before any step was seen) and was *",
        ]
    )
    result.stdout.fnmatch_lines(["test_it.py::test_good * 20 *passed"])
