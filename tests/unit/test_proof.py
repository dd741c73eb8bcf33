"""The proof of the budgets: a table that was made is made again only where it would come out otherwise."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from benchmarks import ab, proof
from benchmarks.proof import (
    COMMON,
    ROOT,
    TABLES,
    Table,
    find_kept,
    find_words,
    list_files,
    list_packages,
    make_table,
    parse_arguments,
    tell_plan,
)

if TYPE_CHECKING:
    from pathlib import Path

GATE = Table("gate", ("--draws", "1"), takes="1 min", reads=("baselines/budgets",))

STOPPED = """
import signal
from pathlib import Path

signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
print("ready", flush=True)
first = signal.sigwait(BOTH)
second = signal.sigtimedwait(BOTH, 0.5)
with Path(TOLD).open("a") as file:
    file.write(f"{signal.Signals(first).name} {signal.Signals(second.si_signo).name if second else 'ended'} ")
"""
"""A benchmark that writes the signals it gets, while it takes its time to stop."""
DRIVER = """
import sys
from pathlib import Path
from benchmarks import proof

proof.ROOT = Path(sys.argv.pop())
try:
    proof.main()
finally:
    with (proof.ROOT / "told.txt").open("a") as file:
        file.write("left")
"""


@pytest.fixture(autouse=True)
def _keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "KEPT", tmp_path / "kept")


def test_a_table_is_made_once_and_then_printed(capfd: pytest.CaptureFixture[str]) -> None:
    make_table(GATE, None)
    made = capfd.readouterr().out
    assert "| slower by |" in made
    kept = find_kept(GATE, None)
    kept.write_text(kept.read_text() + "kept\n")
    make_table(GATE, None)
    assert capfd.readouterr().out == made + "kept\n"
    make_table(GATE, None, anew=True)
    assert capfd.readouterr().out == made
    assert made.endswith(kept.read_text())


def test_what_is_kept_tells_arguments_peers_packages_and_contents_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    table = Table("creep", ("--tables", "slow"), reads=("baselines/budgets",))
    texts = {
        "harness/budgets/gate.py": "ALPHA = 0.5",
        "pyproject.toml": "[tool]",
        "constraints/ci.txt": "scipy==1.0",
        "benchmarks/creep.py": "import math",
        "baselines/budgets/cpu/test.json": "{}",
    }
    for name in texts:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    first = find_kept(table, None)
    # What Python writes beside a file while it is imported.
    (tmp_path / "harness" / "gate.cpython-311.pyc.140").touch()
    assert find_kept(table, None) == first
    paths = [first, find_kept(table, sys.executable), find_kept(Table("creep"), None)]
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        paths.append(find_kept(table, None))
        (tmp_path / name).write_text("")
        assert find_kept(table, None) == first
    for owner, name, value in ((proof, "list_packages", "scipy 1.0"), (platform, "uname", "another")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *_, value=value: value)
            paths.append(find_kept(table, None))
    assert len(set(paths)) == len(paths) == 10


def test_the_packages_of_an_interpreter_are_listed_with_their_versions() -> None:
    assert f"('scipy', '{version('scipy')}')" in list_packages(sys.executable)


def test_what_is_timed_is_not_kept_and_what_a_table_reads_is_there() -> None:
    assert not any(table.is_kept for table in TABLES if table.benchmark in ("ab", "overhead"))
    places = {name for table in TABLES for name in (*COMMON, *table.reads)} - {"benchmarks/records"}
    assert all(list_files(ROOT / name) for name in places)


def test_a_table_that_fails_is_not_kept() -> None:
    table = Table("gate", ("--baselines", "nowhere"), reads=("baselines/budgets",))
    with pytest.raises(subprocess.CalledProcessError):
        make_table(table, None)
    assert not find_kept(table, None).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_benchmark_is_told_once_that_it_is_to_stop_and_waited_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    told = tmp_path / "told.txt"
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gate.py").write_text(f"BOTH, TOLD = {{2, 15}}, {str(told)!r}\n{STOPPED}")
    command = [sys.executable, "-c", DRIVER, "gate", "--draws", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        try:
            while process.stdout.readline() != "ready\n":
                assert process.poll() is None
            # Ctrl-C reaches all in the foreground; a supervisor knows of the first only.
            if number == signal.SIGINT:
                os.killpg(process.pid, number)
            else:
                process.terminate()
            process.wait(timeout=30)
            assert told.read_text() == f"{number.name} ended left"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        _, error = process.communicate()
    assert error.splitlines()[-2:] == ["stopped.", "Next: the same command goes on from here."]


def test_the_plan_says_what_is_kept_and_how_many_trials_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = Table("ab", ("--trials", "7", "--out", str(tmp_path / "ab.jsonl")))
    tell_plan([GATE, trials], None)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "- gate --draws 1: 1 min",
        f"- {trials.title}: 0 of 7 comparisons are recorded or made ahead, the others take at most 0.1 h",
    ]
    find_kept(GATE, None).parent.mkdir()
    find_kept(GATE, None).write_text("table")
    tell_plan([GATE], None)
    assert capsys.readouterr().out.splitlines()[-1] == "- gate --draws 1: nothing, it is kept"


def test_comparisons_that_an_earlier_table_makes_are_planned_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "ab.jsonl"))
    tell_plan([Table("ab", ("--trials", num, *out)) for num in ("72", "144")], None)
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.endswith(": 0 of 72 comparisons are recorded or made ahead, the others take at most 1.0 h")
    assert second.endswith(
        ": 72 of 144 comparisons are recorded or made ahead, the others take at most 1.0 h"
    )


@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        (["--plan"], None, []),
        (["--plan", "ab", "--trials", "7"], "ab", ["--trials", "7"]),
        (["ab", "--trials", "7", "--plan"], "ab", ["--trials", "7"]),
        (["gate", "--plan"], "gate", []),
    ],
)
def test_a_plan_is_of_what_is_named_wherever_the_option_stands(
    words: list[str], name: str | None, rest: list[str]
) -> None:
    options = parse_arguments(words)
    assert (options.plan, options.benchmark, options.words) == (True, name, rest)


def test_the_options_of_a_program_are_its_own() -> None:
    options = parse_arguments(["ab", "--", "train.py", "--plan"])
    assert (options.plan, options.words) == (False, ["--", "train.py", "--plan"])


def test_false_alarms_are_planned_at_both_tolerances() -> None:
    equal = [table for table in TABLES if table.benchmark == "ab" and "--slower" not in table.words]
    assert len(equal) == 3
    assert all(ab.parse_arguments(table.words).tolerance == [0.0, 0.02] for table in equal)


def test_a_plan_of_a_benchmark_with_arguments_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "ab.jsonl"
    for words, told in (
        (["--plan", "ab", "--trials", "7", "--out", str(records)], "0 of 7 comparisons"),
        (["gate", "--draws", "1", "--plan"], "- gate --draws 1: not known"),
    ):
        monkeypatch.setattr(sys, "argv", ["proof", *words])
        proof.main()
        out = capfd.readouterr().out
        assert told in out
        assert "##" not in out
    assert not records.exists()


def test_every_benchmark_is_there_and_the_peers_of_one_are_told_to_it() -> None:
    assert {"gate", "ab", "overhead", "creep", "peers"} <= {table.benchmark for table in TABLES}
    assert find_words("creep", ("--histories", "5"), "python") == ["--otava", "python", "--histories", "5"]
    assert find_words("peers", (), "python") == ["--asv", "python"]
    assert find_words("gate", (), "python") == []
