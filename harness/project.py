"""Reads `[tool.harness]` of a project's pyproject.toml."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from harness.arguments import check_names
from harness.errors import UsageError
from harness.selection import ARGUMENTS, RuleSelection

if TYPE_CHECKING:
    from pathlib import Path

FILE = "pyproject.toml"
BUDGET = "budget"


def find_project(folder: Path) -> Path | None:
    """The nearest pyproject.toml with a `[tool.harness]` table, in a folder or above it; None without one."""
    for place in (folder, *folder.parents):
        path = place / FILE
        if path.is_file() and "harness" in _read(path).get("tool", {}):
            return path
    return None


def read_selection(path: Path | None) -> RuleSelection:
    """Which rules a project's `[tool.harness]` asks for; all of them without a file or a table.

    Raises:
        UsageError: The file is no TOML, or the table holds what the harness does not know.
    """
    if path is None or not path.is_file():
        return RuleSelection()
    table: Any = _read(path).get("tool", {}).get("harness", {})
    source = f"[tool.harness] in {path}"
    if not isinstance(table, dict):
        raise UsageError(f'{source} is no table.\nNext: [tool.harness] and select = ["T1"] on a line below.')
    check_names("[tool.harness]", table, (*ARGUMENTS, BUDGET), source=source)
    rules = {name: value for name, value in table.items() if name != BUDGET}
    return RuleSelection.parse(rules, source=source, needs_reasons=False)


def read_budget_defaults(path: Path) -> dict[str, Any]:
    """What `[tool.harness.budget]` sets for every budget marker of a project, which may set it otherwise.

    Raises:
        UsageError: The file is no TOML, or the table is none.
    """
    if not path.is_file():
        return {}
    table: Any = _read(path).get("tool", {}).get("harness", {})
    defaults: Any = table.get(BUDGET, {}) if isinstance(table, dict) else {}
    if not isinstance(defaults, dict):
        raise UsageError(
            f"[tool.harness] in {path}: {BUDGET} = {defaults!r} is no table.\nNext: [tool.harness.budget] and "
            "throughput = 0.1 on a line below."
        )
    return defaults


def read_ini(root: Path, key: str) -> str:
    """A key of pytest's configuration in a project's pyproject.toml, as pytest reads it there; empty without one."""
    path = root / FILE
    tool: Any = _read(path).get("tool", {}) if path.is_file() else {}
    pytest = tool.get("pytest", {})
    return str(pytest.get("ini_options", pytest).get(key, ""))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}.\nNext: mend the file.") from error
