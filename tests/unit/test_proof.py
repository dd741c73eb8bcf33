"""The proof of the budgets: a piece that was made is made again only where it would come out otherwise."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks import proof
from benchmarks.proof import PIECES, Piece, find_kept, find_words, make_piece, tell_plan

if TYPE_CHECKING:
    from pathlib import Path

GATE = Piece("gate", ("--draws", "1"), takes="1 min", reads=("baselines/budgets",))


@pytest.fixture(autouse=True)
def _keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "KEPT", tmp_path / "kept")


def test_a_piece_is_made_once_and_then_printed(capfd: pytest.CaptureFixture[str]) -> None:
    make_piece(GATE, None)
    made = capfd.readouterr().out
    assert "| slower by |" in made
    kept = find_kept(GATE, None)
    kept.write_text(kept.read_text() + "kept\n")
    make_piece(GATE, None)
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
    piece = Piece("creep", ("--tables", "slow"))
    paths = {find_kept(piece, None), find_kept(piece, "python"), find_kept(Piece("creep"), None)}
    code.write_text("ALPHA = 0.5")
    paths.add(find_kept(piece, None))
    assert len(paths) == 4
    code.write_text("")
    assert find_kept(piece, None) in paths


def test_a_piece_that_fails_is_not_kept() -> None:
    piece = Piece("gate", ("--baselines", "nowhere"))
    with pytest.raises(subprocess.CalledProcessError):
        make_piece(piece, None)
    assert not find_kept(piece, None).exists()


def test_the_plan_says_what_is_kept_and_how_many_trials_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = Piece("ab", ("--trials", "7", "--out", str(tmp_path / "ab.jsonl")))
    tell_plan([GATE, trials], None)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "- gate --draws 1: 1 min",
        f"- {trials.title}: 0 of 7 comparisons are recorded, 0.1 h for the others",
    ]
    find_kept(GATE, None).parent.mkdir()
    find_kept(GATE, None).write_text("table")
    tell_plan([GATE], None)
    assert capsys.readouterr().out.splitlines()[-1] == "- gate --draws 1: nothing, it is kept"


def test_every_part_is_there_and_the_peers_of_one_are_told_to_it() -> None:
    assert {"gate", "ab", "overhead", "creep", "peers"} <= {piece.part for piece in PIECES}
    assert find_words("creep", ("--histories", "5"), "python") == ["--otava", "python", "--histories", "5"]
    assert find_words("peers", (), "python") == ["--asv", "python"]
    assert find_words("gate", (), "python") == []
