"""`benchmarks/later.py` makes real launches, beside a busy program too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.gate import TIMES
from benchmarks.later import BUSY, busy_elsewhere, record
from benchmarks.trial_records import read_lines
from harness.watch.cores import choose_cores

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_launch_is_recorded_as_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "launches.jsonl"
    path.write_text('{"kind": "pool"}\n', encoding="utf-8")
    record(BUSY, 1, path)
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


def test_the_busy_programs_have_the_other_cores_and_end() -> None:
    with busy_elsewhere() as programs:
        assert len(programs) == len(os.sched_getaffinity(0)) - 1
        assert all(os.sched_getaffinity(program.pid).isdisjoint(choose_cores(1)) for program in programs)
        assert [program.poll() for program in programs] == [None] * len(programs)
    assert all(program.poll() is not None for program in programs)
