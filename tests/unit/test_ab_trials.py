"""The trials of `benchmarks/ab.py`: what is recorded is not made again, and what was measured alike is pooled."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.ab import (
    build_program,
    main,
    parse_arguments,
    plan_missing,
    print_other_pools,
    print_table,
    tell_missing,
)
from benchmarks.trial_records import (
    DECIDING,
    ROOT,
    append_trial,
    digest_code,
    find_revision,
    read_trials,
    tell_left_out,
    tell_origin,
)

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

TRIAL: dict[str, Any] = {
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


def ask(path: Path, *words: str) -> argparse.Namespace:
    return parse_arguments(["--out", str(path), *words, "--", "train.py"])


def test_trials_that_the_records_hold_are_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ab.jsonl"
    options = ask(path, "--trials", "4", "--slower", "0.02", "0.05", "--tolerance", "0")
    assert len(plan_missing(options)) == 8
    for _ in range(3):
        append_trial(path, options.setup, TRIAL | {"tolerance": 0.0})
    append_trial(path, ask(path, "--allowance", "300").setup, TRIAL | {"slower": 0.02, "tolerance": 0.0})
    planned = plan_missing(options)
    assert planned.count((0.05, 0.0, "optimizer")) == 1
    assert [phase for share, _, phase in planned if share == 0.02] == [
        "data",
        "forward",
        "backward",
        "optimizer",
    ]
    assert len(planned) == 5
    told = tell_missing(options, planned)
    assert told == "3 of 8 comparisons are recorded or made ahead, the others take at most 0.1 h"


def test_a_setup_is_described_once_and_its_trials_pool_over_revisions_and_machines(tmp_path: Path) -> None:
    path, setup = tmp_path / "ab.jsonl", ask(tmp_path / "ab.jsonl").setup
    for revision, machine in (("a1", "cpu-x"), ("b2", "cpu-x"), ("b2", "cpu-y"), ("b2", "cpu-y")):
        append_trial(path, setup, TRIAL | {"revision": revision, "machine": machine})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["setup"] for line in lines if "name" in line] == [setup]
    rows = read_trials(path, setup)
    assert len(rows) == 4
    assert tell_origin(rows).endswith("1 of a1 on cpu-x; 1 of b2 on cpu-x; 2 of b2 on cpu-y.")


@pytest.mark.parametrize(
    ("name", "before", "after", "is_same"),
    [
        ("harness/budgets/ab.py", "ALPHA = 0.01", "ALPHA = 0.02", False),
        ("harness/budgets/launch_pair.py", "TRIM = 4", "TRIM = 5", False),
        ("harness/side_by_side.py", '"""Compares', '"""Runs', True),
        (
            "harness/budgets/launch_pair.py",
            "from harness.record.warm_up import",
            "from elsewhere import",
            True,
        ),
        ("harness/watch/turns.py", "import os\n", "import os  # of this process\n", True),
    ],
)
def test_other_code_that_decides_has_another_digest(
    tmp_path: Path, name: str, before: str, after: str, is_same: bool
) -> None:
    for file in DECIDING:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    assert digest_code(tmp_path) == digest_code(ROOT) == ask(tmp_path).setup["code"]
    text = (tmp_path / name).read_text()
    assert before in text
    (tmp_path / name).write_text(text.replace(before, after, 1))
    assert (digest_code(tmp_path) == digest_code(ROOT)) == is_same


def test_trials_of_other_code_stay_and_are_shown_apart_but_count_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ab.jsonl"
    options = ask(path, "--trials", "1", "--slower", "0.05")
    append_trial(path, options.setup | {"code": "0ld"}, TRIAL | {"revision": "a1", "machine": "cpu-x"})
    assert len(plan_missing(options)) == 1
    print_other_pools(path, options.setup)
    told = capsys.readouterr().out
    assert "not counted above: code 0ld." in told
    assert "| 5% | 2% | 1 | 1 |" in told
    assert "1 of a1 on cpu-x" in told
    append_trial(path, options.setup, TRIAL)
    assert plan_missing(options) == []
    print_other_pools(path, options.setup)
    assert capsys.readouterr().out == told


def test_trials_of_a_program_of_others_are_shown_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ab.jsonl"
    row = TRIAL | {"revision": "a1", "machine": "cpu-x"}
    append_trial(path, ask(path).setup | {"of": "owner/name@1234567"}, row)
    print_other_pools(path, ask(path).setup)
    assert "not counted above: of owner/name@1234567." in capsys.readouterr().out


def test_a_line_that_was_cut_off_costs_one_trial_only(tmp_path: Path) -> None:
    path, setup = tmp_path / "ab.jsonl", ask(tmp_path / "ab.jsonl").setup
    append_trial(path, setup, TRIAL)
    path.write_text(path.read_text() + '{"setup":"')
    append_trial(path, setup, TRIAL)
    assert len(read_trials(path, setup)) == 2
    assert tell_left_out(path, setup) == f"left out: 1 lines of {path} that were cut off\n"


def test_all_that_is_recorded_is_shown_and_what_is_left_out_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ab.jsonl"
    origin = {"revision": "a1", "machine": "cpu-x"}
    append_trial(path, ask(path).setup | {"code": "0ld"}, TRIAL | origin)
    pairs = {"logs": [0.0, 0.001, -0.001], "drifts": [0.0] * 3, "base_s": [0.03] * 3, "is_time_over": False}
    append_trial(
        path, ask(path).setup, TRIAL | origin | pairs | {"slower": 0.0, "tolerance": 0.0, "phase": None}
    )
    monkeypatch.setattr(sys, "argv", ["ab", "--table", "--out", str(path), "--", "train.py"])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    out, error = capsys.readouterr()
    assert error == "left out: 1 trials of other programs, looks or code\n"
    assert "\n| 0% | 0% | 1 | 1 | 2.5% to 100.0% | 0 |" in out
    assert "\n| 0% | 2% | 1 | 0 | 0.0% to 97.5% | 1 |" in out
    assert "their pairs judged again: 0 at 0%" in out
    assert "not counted above: code 0ld." in out


def test_the_revision_is_the_last_commit_of_the_code_that_measures(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert find_revision(tmp_path) == "unknown"
    code, other = tmp_path / "harness" / "budgets" / "ab.py", tmp_path / "README.md"
    code.parent.mkdir(parents=True)
    git("init", "--quiet")
    for path in (code, other):
        path.write_text("1")
        git("add", ".")
        git("commit", "--quiet", "--message", path.name)
    assert find_revision(tmp_path) == git("rev-parse", "HEAD~1")[:10]
    other.write_text("2")
    assert find_revision(tmp_path) == git("rev-parse", "HEAD~1")[:10]
    code.write_text("2")
    assert find_revision(tmp_path) == git("rev-parse", "HEAD~1")[:10] + "-dirty"


def test_the_table_counts_verdicts_phases_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    silent = {"slower": 0.05, "tolerance": 0.02, "phase": "data", "verdict": "not observed", "seconds": 3.0}
    print_table([TRIAL, TRIAL, silent])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("| 5% | 2% | 3 | 2 | 9.4% to 99.2% | 0 | 0 | 1 | 2 of 2 | +5.1% | 3 | 61 | 2 |")


def test_a_program_of_others_is_known_by_its_name_and_runs_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "ab.jsonl"), "--folder", str(tmp_path), "--of", "owner/name@1234567"]
    options = parse_arguments([*words, "--trials", "3", "--phases", "forward", "optimizer", "--", "train.py"])
    program = build_program("head", options.subject, "forward", 7)
    assert program.cwd == tmp_path
    assert program.words[-3:] == ["forward", "7", "train.py"]
    assert options.setup["of"] == "owner/name@1234567"
    assert str(tmp_path) not in json.dumps(options.setup)
    assert [phase for _, _, phase in plan_missing(options)] == ["forward", "optimizer", "forward"]
    assert "of" not in ask(tmp_path / "ab.jsonl").setup
    with pytest.raises(SystemExit):
        parse_arguments(["--folder", str(tmp_path), "--", "train.py"])
    assert "Next: say what is there, --of owner/name@commit" in capsys.readouterr().err
