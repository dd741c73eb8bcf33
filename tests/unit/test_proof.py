"""The proof of the budgets: a table that was made is made again only where it would come out otherwise."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks import proof
from benchmarks.proof import TABLES, Table, find_kept, find_words, make_table, tell_plan

if TYPE_CHECKING:
    from pathlib import Path

GATE = Table("gate", ("--draws", "1"), takes="1 min", reads=("baselines/budgets",))


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


def test_what_is_kept_tells_arguments_peers_and_contents_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    (tmp_path / "harness").mkdir()
    (tmp_path / "benchmarks").mkdir()
    code = tmp_path / "harness" / "gate.py"
    for path in (code, tmp_path / "pyproject.toml", tmp_path / "benchmarks" / "creep.py"):
        path.write_text("")
    table = Table("creep", ("--tables", "slow"))
    paths = {find_kept(table, None), find_kept(table, "python"), find_kept(Table("creep"), None)}
    code.write_text("ALPHA = 0.5")
    paths.add(find_kept(table, None))
    assert len(paths) == 4
    code.write_text("")
    assert find_kept(table, None) in paths


def test_a_table_that_fails_is_not_kept() -> None:
    table = Table("gate", ("--baselines", "nowhere"))
    with pytest.raises(subprocess.CalledProcessError):
        make_table(table, None)
    assert not find_kept(table, None).exists()


def test_the_plan_says_what_is_kept_and_how_many_trials_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = Table("ab", ("--trials", "7", "--out", str(tmp_path / "ab.jsonl")))
    tell_plan([GATE, trials], None)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "- gate --draws 1: 1 min",
        f"- {trials.title}: 0 of 7 comparisons are recorded, 0.1 h for the others",
    ]
    find_kept(GATE, None).parent.mkdir()
    find_kept(GATE, None).write_text("table")
    tell_plan([GATE], None)
    assert capsys.readouterr().out.splitlines()[-1] == "- gate --draws 1: nothing, it is kept"


def test_every_benchmark_is_there_and_the_peers_of_one_are_told_to_it() -> None:
    assert {"gate", "ab", "overhead", "creep", "peers"} <= {table.benchmark for table in TABLES}
    assert find_words("creep", ("--histories", "5"), "python") == ["--otava", "python", "--histories", "5"]
    assert find_words("peers", (), "python") == ["--asv", "python"]
    assert find_words("gate", (), "python") == []
