"""What users write to choose rules, in every place where they can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import UsageError
from harness.project import find_project, read_selection
from harness.selection import RuleSelection, parse_words

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """
[tool.harness]
select = ["T", "A1"]
ignore = ["T102"]
[tool.harness.severity]
T505 = "error"
[tool.harness.bounds.T101]
min_change = 1
"""


def test_a_project_chooses_rules_in_its_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(TABLE, encoding="utf-8")
    below = tmp_path / "src" / "inner"
    below.mkdir(parents=True)
    found = find_project(below)
    assert found == tmp_path / "pyproject.toml"
    assert read_selection(found) == RuleSelection(
        select=("T", "A1"),
        ignore={"T102": "ignored in this project"},
        severity={"T505": "error"},
        bounds={"T101": {"min_change": 1.0}},
    )


def test_a_project_without_the_table_has_all_rules(tmp_path: Path) -> None:
    assert read_selection(None) == RuleSelection()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    assert read_selection(tmp_path / "pyproject.toml") == RuleSelection()
    assert find_project(tmp_path) != tmp_path / "pyproject.toml"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.harness\n", "can't be read"),
        ("[tool.harness]\nselct = []\n", "no argument 'selct' .did you mean 'select'"),
        ("[tool]\nharness = 3\n", "is no table"),
        ("[tool.harness]\nselect = 'T1'\n", "must be a list of codes"),
        ("[tool.harness]\nignore = 'T1'\n", "must give a reason for every code"),
        ("[tool.harness.severity]\nT1 = 'fatal'\n", "must give one of error, warning, note"),
        ("[tool.harness.bounds.T101]\nmin_change = true\n", "must give numbers by code and name"),
        ("[tool.harness.bounds]\nT101 = 1\n", "must give numbers by code and name"),
    ],
)
def test_a_mistake_in_pyproject_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"(?s)pyproject.toml.*{told}.*Next: "):
        read_selection(path)


def test_words_of_the_command_line_make_the_same_selection() -> None:
    assert parse_words(
        select=["T,A1"],
        ignore=["T102=warm start", "A2"],
        severity=["T505=error"],
        bounds=["T101.min_change=0.5"],
    ) == RuleSelection(
        select=("T", "A1"),
        ignore={"T102": "warm start", "A2": "ignored on the command line"},
        severity={"T505": "error"},
        bounds={"T101": {"min_change": 0.5}},
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"bounds": ["T101.min_change=much"]}, "is not CODE.NAME=NUMBER"),
        ({"severity": ["T101"]}, "must give one of error, warning, note"),
        ({"ignore": ["T101="]}, "must give a reason for every code"),
    ],
)
def test_words_that_are_no_selection_are_refused(words: dict[str, Any], told: str) -> None:
    none: dict[str, list[str]] = {"select": [], "ignore": [], "severity": [], "bounds": []}
    with pytest.raises(UsageError, match=told):
        parse_words(**{**none, **words})
