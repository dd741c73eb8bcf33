"""The floors of docs/architecture.md: imports run downwards, and heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

FLOORS = (
    ("errors", "clock"),
    ("git",),
    ("arguments", "selection", "calls"),
    ("record",),
    ("rules", "watch", "baselines", "markers"),
    ("probes", "budgets", "profiling"),
    ("report", "tracking"),
    ("assertions",),
    (
        *(
            "__init__",
            "plugin",
            "settings",
            "fixtures",
            "state",
            "gates",
            "session",
            "tracebacks",
            "project",
            "commands",
            "cli",
            "__main__",
        ),
        *("worktrees", "versions", "side_by_side"),
    ),
)
"""From the ground up. Rooms of one floor know nothing of each other, but for the top floor."""

ROOMS_OF_LIBRARIES = {
    "torch": ("watch/", "probes/", "profiling/"),
    "matplotlib": ("report/picture.py",),
    "mlflow": ("tracking/store.py",),
    "pandas": ("record/frames.py", "report/"),
    "pytest": ("plugin.py", "settings.py", "fixtures.py", "gates.py", "session.py"),
}


class Import(NamedTuple):
    """One import: where it stands, what it names, and whether it is there for the type checker only."""

    path: str
    line: int
    module: str
    is_for_types: bool


def find_imports(package: Path) -> Iterator[Import]:
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
            for statement in block.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the floor they lead to"
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                yield Import(path.relative_to(package).as_posix(), node.lineno, name, id(node) in for_types)


def find_floor(room: str) -> int:
    return next(floor for floor, rooms in enumerate(FLOORS) if room in rooms)


def find_upward_arrows(package: Path) -> list[str]:
    """Imports that lead to the same or a higher floor, as text."""
    arrows = []
    for path, line, module, _ in find_imports(package):
        words = module.split(".")
        if words[0] != package.name or len(words) == 1:
            continue
        room, other = path.split("/")[0].removesuffix(".py"), words[1]
        if room != other and find_floor(other) >= find_floor(room) and room not in FLOORS[-1]:
            arrows.append(f"{path}:{line}: {room} imports {module}")
    return arrows


def find_strays(package: Path) -> list[str]:
    """Imports of a library outside its rooms, as text; names for the type checker cost nothing."""
    return [
        f"{path}:{line}: {module}"
        for path, line, module, is_for_types in find_imports(package)
        for library, rooms in ROOMS_OF_LIBRARIES.items()
        if module.split(".")[0] == library and not is_for_types and not path.startswith(rooms)
    ]


def find_libraries(package: Path) -> set[str]:
    return {module.split(".")[0] for _, _, module, _ in find_imports(package)}


def test_imports_of_the_harness_run_downwards() -> None:
    assert find_upward_arrows(ROOT / "harness") == []


def test_heavy_libraries_stay_in_their_rooms() -> None:
    assert find_strays(ROOT / "harness") == []


def test_harness_and_reference_model_know_nothing_of_each_other() -> None:
    assert "reference_model" not in find_libraries(ROOT / "harness")
    assert "harness" not in find_libraries(ROOT / "reference_model")


def test_every_room_of_the_harness_has_a_floor() -> None:
    rooms = {path.stem for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__pycache__"} <= {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize(
    ("path", "source", "arrow"),
    [
        ("record/a.py", "from harness.rules.loss import X", "record imports harness.rules.loss.X"),
        ("record/a.py", "import harness.watch.call", "record imports harness.watch.call"),
        ("rules/a.py", "from harness import plugin", "rules imports harness.plugin"),
        ("rules/a.py", "def f():\n    from harness.watch import call", "rules imports harness.watch.call"),
        (
            "watch/a.py",
            "if TYPE_CHECKING:\n    from harness.report.a import B",
            "watch imports harness.report.a.B",
        ),
        ("errors.py", "from harness.record.run import Step", "errors imports harness.record.run.Step"),
    ],
)
def test_an_arrow_that_runs_up_is_found(tmp_path: Path, path: str, source: str, arrow: str) -> None:
    file = tmp_path / "harness" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    (found,) = find_upward_arrows(tmp_path / "harness")
    assert found.startswith(f"{path}:")
    assert found.endswith(arrow)


@pytest.mark.parametrize(
    ("path", "source", "num_strays"),
    [
        ("rules/a.py", "import torch", 1),
        ("rules/a.py", "if TYPE_CHECKING:\n    import torch", 0),
        ("watch/a.py", "from torch import nn", 0),
        ("record/run.py", "def f():\n    import pandas as pd", 1),
        ("record/frames.py", "import pandas as pd", 0),
        ("cli.py", "import pytest", 1),
    ],
)
def test_a_library_outside_its_rooms_is_found(
    tmp_path: Path, path: str, source: str, num_strays: int
) -> None:
    file = tmp_path / "harness" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert len(find_strays(tmp_path / "harness")) == num_strays
