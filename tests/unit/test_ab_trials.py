"""The trials of `benchmarks/ab.py`: what a run that was cut off has made is not made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.ab import append_trial, describe_setup, plan_trials, print_table, read_trials
from harness.side_by_side import ComparisonOptions

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SETUP = describe_setup(["train.py"], ComparisonOptions())


def test_trials_that_the_file_holds_are_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trials.jsonl"
    assert read_trials(path, SETUP) == []
    for _ in range(3):
        append_trial(path, {"setup": SETUP, "slower": 0.05, "tolerance": 0.0})
    other = describe_setup(["train.py"], ComparisonOptions(allowance_s=300))
    append_trial(path, {"setup": other, "slower": 0.02, "tolerance": 0.0})
    planned = plan_trials(4, [0.02, 0.05], [0.0], read_trials(path, SETUP))
    assert planned.count((0.05, 0.0, "optimizer")) == 1
    assert [phase for share, _, phase in planned if share == 0.02] == [
        "data",
        "forward",
        "backward",
        "optimizer",
    ]
    assert len(planned) == 5


def test_a_line_that_was_cut_off_costs_one_trial_only(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text('{"setup": {"prog')
    append_trial(path, {"setup": SETUP, "slower": 0.0, "tolerance": 0.02})
    assert len(read_trials(path, SETUP)) == 1


def test_the_table_counts_verdicts_phases_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "slower": 0.05,
        "tolerance": 0.02,
        "phase": "forward",
        "named": ["forward"],
        "change": 0.051,
        "verdict": "regressed",
        "logs": [0.05, 0.051, 0.049],
        "seconds": 61.0,
        "load": 0.5,
    }
    silent = {"slower": 0.05, "tolerance": 0.02, "phase": "data", "verdict": "not observed", "seconds": 3.0}
    print_table([row, row, silent])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("| 5% | 2% | 3 | 2 | 9.4% to 99.2% | 0 | 0 | 1 | 2 of 2 | +5.1% | 3 | 61 | 2 |")
