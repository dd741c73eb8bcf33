"""The records of trials: a file to which each is appended as it ends, so that those of several days and machines pool.

A line is a trial, or describes a setup once, under the name by which its trials go: what must be the same for trials to
be counted together, the code that decides a verdict with it. What may differ stands in each trial, and is told with
every table: the revision of the code that measures, and the machine.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.budgets.ab import ALPHA, BETA, LOOKS, RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.side_by_side import ComparisonOptions

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records" / "ab.jsonl"
MEASURING = (
    *("harness/side_by_side.py", "harness/budgets", "harness/record", "harness/watch"),
    *("reference_model", "benchmarks/slow_phase.py"),
)
"""The code that a trial's numbers come from. A commit that leaves it alone makes no revision of it."""
DECIDING = (
    *("harness/side_by_side.py", "harness/budgets/ab.py", "harness/budgets/launch_pair.py"),
    *("harness/record/warm_up.py", "harness/watch/interleaving.py", "harness/watch/arms.py"),
    *("harness/watch/turns.py", "harness/watch/cores.py", "benchmarks/slow_phase.py"),
)
"""The code that the proof is of: it lets a pair of processes run, takes the middle of its steps, and decides."""


def describe_setup(program: list[str], options: ComparisonOptions, of: str | None = None) -> dict[str, Any]:
    """What must be the same for trials to be counted together; `of` is what the program is, unless it is ours."""
    plan = options.plan
    return ({"of": of} if of else {}) | {
        "program": program,
        "looks": list(LOOKS),
        "alpha": ALPHA,
        "beta": BETA,
        "resolution": RESOLUTION,
        "turn_s": plan.turn_s,
        "measured_s": plan.measured_s,
        "allowance_s": options.allowance_s,
        "code": digest_code(ROOT),
    }


def digest_code(root: Path) -> str:
    """A short name that only this code has under `DECIDING`; comments, docstrings, imports and format don't count."""
    # Where a name comes from decides nothing.
    return digest_files(root, DECIDING, (ast.Import, ast.ImportFrom))


def digest_files(root: Path, names: Iterable[str], left_out: tuple[type[ast.AST], ...] = ()) -> str:
    """A short name that only this code has in these files; comments, docstrings and format don't count.

    Args:
        root: The folder that the names are of.
        names: Files, in an order that is always the same.
        left_out: Statements that don't count either.
    """
    digest = hashlib.sha256()
    for name in names:
        tree = _LeaveOut(left_out).visit(ast.parse((root / name).read_text(encoding="utf-8")))
        digest.update(f"{name}\n{ast.unparse(tree)}\n".encode())
    return digest.hexdigest()[:10]


class _LeaveOut(ast.NodeTransformer):
    """Without docstrings, and without some statements."""

    def __init__(self, kinds: tuple[type[ast.AST], ...]) -> None:
        self._kinds = kinds

    def visit(self, node: ast.AST) -> Any:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or isinstance(node, self._kinds):
            return None
        return self.generic_visit(node)


def digest_value(value: object) -> str:
    """A short name that only this value has, such as a setup: what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def find_revision(root: Path = ROOT) -> str:
    """The last commit that changed the code that measures, and whether that is as committed; unknown without git."""
    commit = _ask_git(root, "log", "-1", "--format=%h", "--abbrev=10", "--", *MEASURING)
    is_dirty = _ask_git(root, "status", "--porcelain", "--", *MEASURING)
    return (commit or "unknown") + ("-dirty" if is_dirty else "")


def _ask_git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()


def read_trials(path: Path, setup: dict[str, Any]) -> list[dict[str, Any]]:
    """The file's trials of this setup."""
    name = digest_value(setup)
    return [row for row in read_lines(path)[0] if "name" not in row and row["setup"] == name]


def tell_left_out(path: Path, setup: dict[str, Any]) -> str:
    """What else the file has, a line for each kind; empty where there is nothing."""
    rows, num_cut = read_lines(path)
    name = digest_value(setup)
    num_others = sum("name" not in row and row["setup"] != name for row in rows)
    told = {
        f"left out: {num_others} trials of other programs, looks or code\n": num_others,
        f"left out: {num_cut} lines of {path} that were cut off\n": num_cut,
    }
    return "".join(line for line, num in told.items() if num)


def list_other_pools(path: Path, setup: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """What is otherwise in each other setup of the file, and the trials of it."""
    rows, _ = read_lines(path)
    others = {row["name"]: row["setup"] for row in rows if "name" in row}
    others.pop(digest_value(setup), None)
    return [
        (
            {key: other.get(key) for key in (setup | other) if other.get(key) != setup.get(key)},
            [row for row in rows if "name" not in row and row["setup"] == name],
        )
        for name, other in others.items()
    ]


def append_trial(path: Path, setup: dict[str, Any], row: dict[str, Any]) -> None:
    """Adds a trial after what was there, whole or not, and what its setup is where the file does not say so yet."""
    name = digest_value(setup)
    is_known = any(row.get("name") == name for row in read_lines(path)[0])
    lines = [{"setup": name, **row}] if is_known else [{"name": name, "setup": setup}, {"setup": name, **row}]
    append_lines(path, lines)


def append_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Adds lines after what was there, whole or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * bool(is_cut))
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows, and the number of lines that aren't whole."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows, len(lines) - len(rows)


def tell_origin(rows: Sequence[dict[str, Any]]) -> str:
    """How many trials are of which revision and machine, as a line under their table."""
    origins = Counter((row["revision"], row["machine"]) for row in rows)
    told = [f"{num} of {revision} on {machine}" for (revision, machine), num in origins.items()]
    return f"Trials by the revision that measured them: {'; '.join(told) or 'none yet'}."
