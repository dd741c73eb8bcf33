"""`harness baselines`: lists, shows, compares and prunes what is stored."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import EXIT_FINDING, EXIT_GOOD, EXIT_NOT_OBSERVED, say
from harness.errors import BaselineError, UsageError

if TYPE_CHECKING:
    import argparse

    from harness.baselines.shelves import Shelf
    from harness.baselines.trajectory import Trajectory
    from harness.report.stored import Row

REPEATED = re.compile(r"#\d+$")
"""What is put behind a test's name for its second run."""
FAILED_COLLECTION = re.compile(
    r"^(ERROR[ :].*|!+ Interrupted: .*|(no|\d+) tests? collected.*, \d+ errors?\b.*)$", re.MULTILINE
)
"""What pytest prints where it could not collect every test."""


def add_parser(commands: Any) -> None:
    """Declares the command, its parts and their options."""
    parser = commands.add_parser("baselines", help="list, show, compare or prune stored baselines")
    parts = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, usage: str) -> Any:
        part = parts.add_parser(name, help=text, usage=f"harness baselines {usage}")
        part.add_argument(
            "--baselines", default="baselines", metavar="DIR", help="their folder, or REVISION:DIR of git"
        )
        part.set_defaults(run=run_baselines)
        return part

    part = add("list", "every test with its classes, size, date, commit and reason", "list [--json]")
    part.add_argument("--json", action="store_true", help="as JSON")
    part.set_defaults(part=list_stored)
    part = add("show", "a trajectory's steps and settings", "show NAME [--class CLASS]")
    part.add_argument("name", metavar="NAME", help="test or name of the baseline")
    part.add_argument("--class", dest="of_class", metavar="CLASS", help="numerics class; default: the newest")
    part.set_defaults(part=show_stored)
    part = add(
        "diff",
        "what differs first between two trajectories, and by how much they moved",
        "diff A B [--baseline NAME]",
    )
    help_text = "a file, REVISION:FILE of git, or with --baseline a class, or REVISION:DIR of git"
    part.add_argument("sides", nargs=2, metavar="A B", help=help_text)
    part.add_argument("--baseline", metavar="NAME", help="test or name of the baseline")
    part.set_defaults(part=diff_stored)
    part = add(
        "prune",
        "delete baselines of tests that are gone, or of a class",
        "prune (--tests FILE | --class CLASS) [--yes]",
    )
    part.add_argument(
        "--tests",
        metavar="FILE",
        help="node ids of all tests, as `pytest --collect-only -q` prints them; - reads them from the pipe",
    )
    part.add_argument("--class", dest="of_class", metavar="CLASS", help="a numerics or runner class")
    part.add_argument("--yes", action="store_true", help="delete; otherwise it is only told what would be")
    part.set_defaults(part=prune_stored)


def run_baselines(options: argparse.Namespace) -> int:
    """Runs a part of the command, and returns the exit code.

    Raises:
        UsageError: The options can't be used.
        BaselineError: A baseline is not there, or can't be read or deleted.
    """
    from harness.baselines.shelves import open_shelf  # noqa: PLC0415  late

    if options.words:
        raise UsageError(
            "harness baselines runs no command.\nNext: harness check --baseline NAME -- "
            + " ".join(options.words)
        )
    if ":" not in options.baselines and not Path(options.baselines).is_dir():
        raise UsageError(
            f"there is no folder {options.baselines} here.\n"
            "Next: go to the project's folder, or name it with --baselines DIR."
        )
    return int(options.part(options, open_shelf(options.baselines, root=Path.cwd())))


def list_stored(options: argparse.Namespace, shelf: Shelf) -> int:
    """Lists everything, also what can't be read, which is exit code 2."""
    from harness.report.stored import list_baselines  # noqa: PLC0415  late

    rows, problems = _collect(shelf)
    if options.json:
        say(json.dumps([asdict(row) for row, _ in rows], indent=1))
    elif rows:
        say("\n".join(list_baselines([row for row, _ in rows])))
    elif not problems:
        say(f"no baselines in {options.baselines}")
    for problem in problems:
        say(f"harness: {problem}", is_error=True)
    return EXIT_NOT_OBSERVED if problems else EXIT_GOOD


def show_stored(options: argparse.Namespace, shelf: Shelf) -> int:
    """Shows one trajectory.

    Raises:
        BaselineError: There is none.
    """
    from harness.report.stored import show_trajectory  # noqa: PLC0415  late

    trajectory, others = _find(shelf, options.name, options.of_class)
    say("\n".join(show_trajectory(trajectory)))
    if others:
        say(f"\nalso of class {', '.join(others)}: --class CLASS shows it")
    return EXIT_GOOD


def diff_stored(options: argparse.Namespace, shelf: Shelf) -> int:
    """Compares two trajectories; exit code 1 where they differ, and 2 where nothing could be compared.

    Raises:
        BaselineError: One of them is not there or can't be read.
        UsageError: A side names nothing.
    """
    from harness.baselines.comparison import Match, compare_trajectories  # noqa: PLC0415  late
    from harness.baselines.trajectory_judge import list_missing  # noqa: PLC0415
    from harness.report.stored import show_moves, tell_comparison  # noqa: PLC0415

    first, second = options.sides
    baseline, observed = (_read_side(side, options, shelf) for side in (first, second))
    comparison = compare_trajectories(baseline, observed)
    lacking = {second: list_missing(baseline, observed), first: list_missing(observed, baseline)}
    told = [
        f"{side} lacks what the other holds: {', '.join(what)}; that was not compared."
        for side, what in lacking.items()
        if what
    ]
    say(
        "\n".join([*tell_comparison(comparison, (first, second)), *told, "", *show_moves(baseline, observed)])
    )
    if comparison.match is Match.DIVERGED:
        return EXIT_FINDING
    return EXIT_GOOD if comparison.match is Match.MATCHES and not told else EXIT_NOT_OBSERVED


def prune_stored(options: argparse.Namespace, shelf: Shelf) -> int:
    """Deletes baselines of tests that are gone, or of a class; only tells of them without `--yes`.

    Raises:
        UsageError: It is not said which.
        BaselineError: A file can't be deleted.
    """
    from harness.baselines.trajectory_store import remove_file  # noqa: PLC0415  late

    if (options.tests is None) == (options.of_class is None):
        raise UsageError(
            "prune wants to know which: --tests or --class, one of them.\n"
            "Next: pytest --collect-only -q > tests.txt && harness baselines prune --tests tests.txt"
        )
    shelf.path("any")
    rows, problems = _collect(shelf)
    if options.of_class is not None:
        doomed = [(row, name) for row, name in rows if row.of_class == options.of_class]
        if not doomed:
            known = sorted({row.of_class for row, _ in rows})
            raise UsageError(
                f"no baseline is of class {options.of_class}.\nNext: name one of {', '.join(known) or 'none'}."
            )
    else:
        tests = read_tests(options.tests)
        # What a command line named is no test, and is there whatever pytest collects.
        doomed = [
            (row, name) for row, name in rows if "::" in row.test and REPEATED.sub("", row.test) not in tests
        ]
    for row, name in doomed:
        say(f"{'deleted' if options.yes else 'would delete'} {shelf.locate(name)} ({row.test})")
        if options.yes:
            remove_file(shelf.path(name))
    for problem in problems:
        say(f"harness: left alone: {problem}", is_error=True)
    if not doomed:
        say("nothing to prune")
    elif not options.yes:
        say("nothing was deleted.\nNext: the same with --yes")
    return EXIT_NOT_OBSERVED if problems else EXIT_GOOD


def read_tests(source: str) -> set[str]:
    """The node ids that pytest printed.

    Raises:
        UsageError: The file can't be read, is of a collection that failed, or holds none: then baselines of tests
            that are there would seem to be left over.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--tests {source} can't be read: {error}.\nNext: pytest --collect-only -q > tests.txt"
        ) from error
    if (failed := FAILED_COLLECTION.search(text)) is not None:
        raise UsageError(
            f"--tests {source} is of a collection that failed ({failed[0].strip(' =!')}), so baselines of tests that "
            "are there would be deleted.\nNext: mend what it tells, then: "
            "pytest --collect-only -q > tests.txt && harness baselines prune --tests tests.txt"
        )
    tests = {line.strip() for line in text.splitlines() if "::" in line}
    if not tests:
        raise UsageError(
            f"--tests {source} holds no node id, so every baseline would be deleted.\n"
            "Next: pytest --collect-only -q > tests.txt && harness baselines prune --tests tests.txt"
        )
    return tests


def _collect(shelf: Shelf) -> tuple[list[tuple[Row, str]], list[str]]:
    """Every baseline with its name on the shelf, and what is wrong with those that can't be read."""
    from harness.baselines.pools import PoolStore  # noqa: PLC0415  late
    from harness.baselines.trajectory_store import TrajectoryStore  # noqa: PLC0415
    from harness.report.stored import describe_pool_row, describe_trajectory_row  # noqa: PLC0415

    rows: list[tuple[Row, str]] = []
    problems = []
    for stored in TrajectoryStore(shelf).list_all():
        if stored.trajectory is None:
            problems.append(stored.problem)
        else:
            rows.append((describe_trajectory_row(stored.trajectory), stored.name))
    store = PoolStore(shelf)
    for name in store.list_names():
        try:
            pool = store.read_file(name)
        except BaselineError as error:
            problems.append(str(error))
        else:
            if pool is not None:
                rows.append((describe_pool_row(pool), name))
    return rows, problems


def _find(shelf: Shelf, name: str, of_class: str | None) -> tuple[Trajectory, list[str]]:
    """The trajectory of a name in a class, or else the newest; and the other classes that have one."""
    from harness.baselines.trajectory_store import TrajectoryStore  # noqa: PLC0415  late

    store = TrajectoryStore(shelf)
    classes = store.find_classes(name)
    if not classes:
        known = sorted({stored.trajectory.test for stored in store.list_all() if stored.trajectory})
        raise BaselineError(
            f"{name} has no stored trajectory in any class.\nNext: name one of {', '.join(known) or 'none'}; "
            "harness baselines list shows all."
        )
    if of_class is not None and of_class not in classes:
        raise BaselineError(
            f"{name} has no trajectory of class {of_class}.\nNext: name one of {', '.join(classes)}."
        )
    chosen = classes if of_class is None else [of_class]
    found = [trajectory for each in chosen if (trajectory := store.read(name, each)) is not None]
    newest = max(found, key=lambda trajectory: trajectory.provenance.accepted_at)
    return newest, [each for each in classes if each != newest.numerics_class]


def _read_side(side: str, options: argparse.Namespace, shelf: Shelf) -> Trajectory:
    """The trajectory that a side of a comparison names."""
    from harness.baselines.shelves import RevisionShelf  # noqa: PLC0415
    from harness.baselines.trajectory_store import parse_trajectory  # noqa: PLC0415
    from harness.git import END_OF_OPTIONS, run_git  # noqa: PLC0415  late

    path = Path(side)
    if path.is_file():
        try:
            return parse_trajectory(path.read_text(encoding="utf-8"), side)
        except (OSError, UnicodeDecodeError) as error:
            raise BaselineError(
                f"baseline {side} can't be read: {error}.\nNext: name another file."
            ) from error
    if ":" in side and side.endswith(".json"):
        content = run_git("cat-file", "blob", END_OF_OPTIONS, side, folder=Path.cwd())
        if content is None:
            raise BaselineError(
                f"{side} is not in git: no such file in that commit, or no such commit here.\n"
                "Next: name it as git show does: HEAD~3:baselines/trajectories/CLASS/NAME.json"
            )
        return parse_trajectory(content.decode(errors="replace"), side)
    if options.baseline is None:
        raise UsageError(
            f"{side} is no file.\nNext: name a file, or with --baseline NAME a class, or REVISION:DIR of git."
        )
    if ":" in side:
        trajectory, others = _find(RevisionShelf(side, Path.cwd()), options.baseline, None)
        if others:
            say(f"{side} has several classes, taken is {trajectory.numerics_class}", is_error=True)
        return trajectory
    return _find(shelf, options.baseline, side)[0]
