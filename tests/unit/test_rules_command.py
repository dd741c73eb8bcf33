"""`harness rules` lists the catalogue and explains a rule."""

from __future__ import annotations

import json
import signal

import pytest

from harness.cli import main
from harness.rules.catalogue import RULES


def test_all_rules_are_listed_with_their_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    listed = capsys.readouterr().out
    assert "T1xx loss curve" in listed
    for rule in RULES:
        assert f"{rule.code}  {rule.severity}" in listed
        assert rule.name in listed


def test_one_rule_is_explained_with_bounds_and_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "T101"]) == 0
    page = capsys.readouterr().out
    assert "T101 loss-not-decreasing (error)" in page
    assert "min_change = 0.02" in page
    assert "accelerate#2665" in page
    assert "T201" not in page


def test_rules_are_given_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "--json", "T2"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [rule["code"] for rule in listed] == sorted(
        rule.code for rule in RULES if rule.code.startswith("T2")
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [(["rules", "T1O1"], "there is no rule 'T1O1'"), (["rules", "--", "python", "x.py"], "runs no command")],
)
def test_misuse_is_told_and_exits_with_two(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_the_handler_of_sigterm_is_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert main(["rules", "T101"]) == 0
        assert "T101" in capsys.readouterr().out
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
