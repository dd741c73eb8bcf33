"""`benchmarks/later.py` makes real launches, beside a busy program too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks.gate import TIMES
from benchmarks.later import BUSY, REFERENCE, busy_elsewhere, main, record
from benchmarks.subject import Subject
from benchmarks.trial_records import read_lines
from harness.watch.cores import choose_cores

if TYPE_CHECKING:
    from pathlib import Path


def test_a_launch_is_recorded_as_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "launches.jsonl"
    path.write_text('{"kind": "pool"}\n', encoding="utf-8")
    record(BUSY, 1, path, Subject(REFERENCE))
    (first, row), _ = read_lines(path)
    assert first == {"kind": "pool"}
    assert row["kind"] == BUSY
    assert row["values"].keys() == set(TIMES)
    assert 0 < row["values"]["step_time_s"] < row["values"]["wall_clock_s"]
    assert 0 <= row["waiting_share"] < 1
    told = capsys.readouterr()
    # What the program says is kept away.
    assert told.out == ""
    assert told.err.startswith("busy 1 of 1: step_time_s ")


PROGRAM = """
import pathlib, sys, torch
weight = torch.nn.Parameter(torch.ones(4))
optimizer = torch.optim.SGD([weight], lr=0.1)
for _ in range(12):
    (weight**2).sum().backward()
    optimizer.step()
pathlib.Path(sys.argv[1]).mkdir()
pathlib.Path("ran.txt").write_text(sys.argv[1])
"""


def test_a_program_of_others_runs_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(PROGRAM, encoding="utf-8")
    path = tmp_path / "launches.jsonl"
    program = ["--of", "owner/name@1234567", "--folder", str(tmp_path), "--", "train.py", "{out}"]
    monkeypatch.setattr(
        "sys.argv", ["later", "--record", "quiet", "--launches", "1", "--out", str(path), *program]
    )
    main()
    (row,), _ = read_lines(path)
    assert row["program"].startswith("owner/name@1234567 ")
    assert (tmp_path / "ran.txt").read_text(encoding="utf-8").endswith("/out")
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert "owner/name@1234567" in capsys.readouterr().out


def test_words_that_records_do_not_know_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "launches.jsonl"
    monkeypatch.setattr("sys.argv", ["later", "--record", "quiet", "--out", str(path), "--", "train.py"])
    with pytest.raises(SystemExit):
        main()
    assert "Next: say what it is, --of owner/name@commit" in capsys.readouterr().err
    assert not path.exists()


def test_the_busy_programs_have_the_other_cores_and_end() -> None:
    with busy_elsewhere() as programs:
        assert len(programs) == len(os.sched_getaffinity(0)) - 1
        assert all(os.sched_getaffinity(program.pid).isdisjoint(choose_cores(1)) for program in programs)
        assert [program.poll() for program in programs] == [None] * len(programs)
    assert all(program.poll() is not None for program in programs)
