"""What tests of judging share: a test, a class of machines, and budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.budgets.spec import parse_budget

if TYPE_CHECKING:
    from harness.budgets.spec import Budget

TEST = "tests/test_a.py::test_a"
CLASS = "this-class"


def make_budget(**arguments: float) -> Budget:
    return parse_budget(arguments, source="the marker")
