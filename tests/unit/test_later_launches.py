"""The tables of `benchmarks/later.py`: launches against a pool that was recorded before them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.gate import ONE, SEVERAL, TIMES, spend
from benchmarks.later import REFERENCE, digest_program, judge, name_program, print_tables
from benchmarks.subject import Subject
from benchmarks.trial_records import ROOT, read_lines
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

NOW = digest_program(ROOT)
SPREAD = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0)


def build_rows(
    kind: str,
    values: Sequence[float],
    *,
    waiting_share: float = 0.0,
    machine: str = "ours",
    program: str = NOW,
) -> list[dict[str, Any]]:
    return [
        {
            "at": f"2026-11-30T10:{minute:02}:00+00:00",
            "revision": "abc",
            "machine": machine,
            "program": program,
            "load": 1.0,
            "kind": kind,
            "values": dict.fromkeys(TIMES, value),
            "waiting_share": waiting_share,
        }
        for minute, value in enumerate(values)
    ]


def test_every_launch_is_judged_by_both_times() -> None:
    pool, later = build_rows("pool", SPREAD), build_rows("quiet", [*SPREAD[:9], 1.5])
    verdicts, spent = judge(later, pool, 0.05, ONE)
    assert verdicts == {Verdict.PASS: 18, Verdict.REGRESSED: 2}
    assert spent == 1
    slow, spent = judge(build_rows("quiet", [1.06] * 10), pool, 0.0, SEVERAL)
    assert slow == {Verdict.REGRESSED: 2 * 3}
    assert spent > 1


def test_launches_that_waited_for_a_processor_are_not_called_regressed() -> None:
    pool = build_rows("pool", SPREAD)
    verdicts, _ = judge(build_rows("busy", [1.5] * 4, waiting_share=0.2), pool, 0.05, ONE)
    assert verdicts == {Verdict.INCONCLUSIVE: 8}
    # The middle of the launches that are looked at counts, as in the gate.
    shares = [0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert spend([1.5] * 8, [SPREAD], tolerance=0.05, plan=SEVERAL, waiting_shares=shares) == (
        Verdict.REGRESSED,
        3,
    )


def test_machines_and_programs_have_tables_of_their_own_and_a_pool_that_is_too_small_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "launches.jsonl"
    rows = [
        *build_rows("pool", SPREAD),
        *build_rows("quiet", SPREAD),
        *build_rows("busy", SPREAD[:7]),
        *build_rows("pool", SPREAD[:3], machine="theirs"),
        *build_rows("quiet", SPREAD, machine="theirs"),
        *build_rows("pool", SPREAD[:9], program="as it was"),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print_tables(read_lines(path)[0])
    told = capsys.readouterr().out
    assert f"ours, program {NOW}, against a pool of 10" in told
    assert "| nothing | one launch | 20 | " in told
    assert "| nothing | up to 8 | 6 | " in told
    # Seven launches are too few for a plan of eight.
    assert told.count("a busy program on each other core") == 1
    assert "pool: 10 launches, 2026-11-30T10:00:00+00:00 to 2026-11-30T10:09:00+00:00" in told
    too_small = f"theirs, program {NOW}: a pool of 3 is too small.\nNext, on that machine: --record pool"
    assert too_small in told
    assert "ours, program as it was, against a pool of 9" in told
    # Of a program that has changed since there is nothing to record.
    assert told.endswith("nothing is recorded that was made later.\n")


def test_programs_are_told_apart_by_what_they_import_and_do(tmp_path: Path) -> None:
    texts = ["x = 1\n", "# another comment\nx = 1\n", "import sklearn\nx = 1\n", "x = 2\n"]
    digests = []
    for number, text in enumerate(texts):
        folder = tmp_path / str(number) / "reference_model"
        folder.mkdir(parents=True)
        (folder / "data.py").write_text(text, encoding="utf-8")
        digests.append(digest_program(folder.parent))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_program_of_others_is_known_by_its_name_and_its_words(tmp_path: Path) -> None:
    def name(*words: str, of: str = "owner/name@1234567", folder: Path = tmp_path) -> str:
        return name_program(Subject(words, folder, of))

    told = name("train.py", "--steps=2")
    assert told.startswith("owner/name@1234567 ")
    assert told != name("train.py", "--steps=3")
    # Where it lies is no part of it.
    assert told == name("train.py", "--steps=2", folder=tmp_path.parent)
    assert name_program(Subject(REFERENCE)) == NOW
    # What others have made of it is not ours.
    assert name(*REFERENCE, of="owner/fork@1234567").startswith("owner/fork@1234567 ")


def test_launches_with_a_break_between_them_are_not_judged_together() -> None:
    pool, later = build_rows("pool", SPREAD), build_rows("quiet", SPREAD)
    later[9]["at"] = "2026-11-30T12:00:00+00:00"
    assert judge(later, pool, 0.05, SEVERAL)[0].total() == 2 * 2
    assert judge(later, pool, 0.05, ONE)[0].total() == 2 * 10


def test_launches_with_fixed_work_beside_them_have_a_table_of_their_own_and_one_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def add_work(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            row | {"fixed_work": {"time_s": row["values"][TIMES[0]] / 200, "made_with": "1, torch 2"}}
            for row in rows
        ]

    pool, slow = add_work(build_rows("pool", SPREAD * 2)), add_work(build_rows("quiet", [1.15] * 10))
    assert judge(slow, pool, 0.05, SEVERAL)[0] == {Verdict.REGRESSED: 2 * 3}
    # The launches of one occasion only excuse.
    assert judge(slow, pool, 0.05, SEVERAL, knows_machine=True)[0] == {Verdict.INCONCLUSIVE: 2 * 3}
    print_tables([*pool, *slow, *build_rows("pool", SPREAD)])
    told = capsys.readouterr().out
    assert f"ours, program {NOW}, fixed work 1, torch 2, against a pool of 20" in told
    assert "| nothing | up to 8 | 6 | 6 / 0 / 3.0 |" in told
    assert "| nothing | up to 8, the machine's speed known | 6 | 0 / 6 / 8.0 |" in told
    assert "With fixed work, which differs by 1.1%: step_time_s r 1.00, exponent 1.00, left 0.0%;" in told
    # Of launches beside which it took equally long there is nothing to tell.
    assert told.count("With fixed work") == 1
    assert f"ours, program {NOW}, against a pool of 10" in told
