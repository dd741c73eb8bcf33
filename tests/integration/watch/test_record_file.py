"""A record that can't be written is cut short, and the program that is watched goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.record.observation import Outcome, RunObservation
from harness.record.recording import read_record
from harness.record.step_observation import StepObservation
from harness.watch.bootstrap import watch_environment
from harness.watch.options import ObserverOptions
from harness.watch.record_file import RecordFile

if TYPE_CHECKING:
    from pathlib import Path

FULL_DISK = """
import json, resource, torch
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
torch.manual_seed(0)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
for _ in range(40):
    loss = model(torch.randn(3, 4)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(json.dumps(losses))
"""


def build_step(number: int) -> StepObservation:
    return StepObservation(step=number, loss=1.0, losses=[1.0])


def test_full_disk_ends_the_record_and_not_the_program(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    watched = environment | watch_environment(tmp_path / "record", ObserverOptions(), environment)
    bare, done = (
        subprocess.run(
            [sys.executable, "-c", FULL_DISK], env=env, capture_output=True, text=True, check=False
        )
        for env in (environment, watched)
    )
    assert (done.returncode, done.stderr) == (bare.returncode, bare.stderr) == (0, "")
    assert done.stdout == bare.stdout
    (run,) = read_record(tmp_path / "record")
    losses = json.loads(bare.stdout)
    assert 0 < len(run.losses) < len(losses)
    assert run.losses == losses[: len(run.losses)]
    assert run.outcome is Outcome.CRASHED
    assert any("the record can't be written: " in text for text in run.not_seen)


def test_nothing_is_written_after_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RecordFile(tmp_path)
    record.write_step(build_step(0), None)
    write = os.write
    monkeypatch.setattr("os.write", lambda file, line: write(file, line[:20]))
    with pytest.raises(OSError, match="20 of .* bytes could be written"):
        record.write_step(build_step(1), None)
    monkeypatch.setattr("os.write", write)
    record.write_step(build_step(2), None)
    record.write_run(RunObservation(), is_last=True)
    record.close()
    (run,) = read_record(tmp_path)
    assert [step.step for step in run.steps] == [0]
    assert "steps from here on: the record can't be written: 20 of" in run.not_seen[0]


def test_program_that_becomes_another_goes_on_in_its_file(tmp_path: Path) -> None:
    for number in range(2):
        record = RecordFile(tmp_path)
        record.write_step(build_step(number), None)
        record.close()
    (run,) = read_record(tmp_path)
    assert [step.step for step in run.steps] == [0, 1]


def test_unreadable_line_costs_that_line_alone(tmp_path: Path) -> None:
    record = RecordFile(tmp_path)
    for number in range(4):
        record.write_step(build_step(number), None)
    record.write_run(RunObservation(outcome=Outcome.COMPLETED), is_last=True)
    record.close()
    (path,) = tmp_path.iterdir()
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2][:9]
    path.write_text("\n".join(lines) + '\n{"step', encoding="utf-8")
    (run,) = read_record(tmp_path)
    assert [step.step for step in run.steps] == [0, 2, 3]
    assert run.outcome is Outcome.COMPLETED
    assert run.not_seen == ["1 line of the record can't be read"]
