"""`harness trend`: judges the history of every test."""

from __future__ import annotations

import difflib
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.history import add_launches, find_root, open_history, pin_release
from harness.commands.output import EXIT_FINDING, EXIT_GOOD, EXIT_NOT_OBSERVED, say
from harness.errors import ObservationError, UsageError
from harness.git import END_OF_OPTIONS, run_git

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from harness.report.trends import JudgedHistory
    from harness.tracking.launches import TrackedLaunch

USAGE = """harness trend [TEST] [--metric NAME] [--runner-class NAME] [--json]
       harness trend add PATH ...            a session.json, or a folder of baselines
       harness trend pin NAME --reason WHY   the present pools become the release NAME"""
NUM_SHOWN = 8
WIDTH = 110


def add_parser(commands: Any) -> None:
    """Declares the command and its options."""
    parser = commands.add_parser("trend", help="judge the history of every test over nights", usage=USAGE)
    add = parser.add_argument
    add("what", nargs="*", metavar="TEST", help="a node id, or a part of it; or `add` or `pin`, as above")
    add(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="what to judge; default: step_time_s, or wall_clock_s of a test that has no step times",
    )
    add("--runner-class", metavar="NAME", help="only this class of machines")
    add(
        "--tracking-uri",
        default="",
        metavar="URI",
        help="where the history lies; default: $MLFLOW_TRACKING_URI, the project's ini key harness_tracking_uri, or "
        "sqlite:///mlflow.db in its root",
    )
    add("--baselines", default="baselines", metavar="DIR", help="folder of the stored baselines")
    add("--anchor-nights", type=int, default=30, metavar="N", help="nights of the anchor; default: 30")
    add("--allow-too-few", action="store_true", help="exit with 0 while histories are too short to be judged")
    add("--reason", default="", metavar="WHY", help="why a release is pinned, or launches are added")
    add("--json", action="store_true", help="print the facts as one JSON document")
    parser.set_defaults(run=run_trend)


def run_trend(options: argparse.Namespace) -> int:
    """Judges, adds or pins, and returns the exit code: 1 for a history that got worse, 2 for nothing to judge.

    Raises:
        HarnessError: The options can't be used, or the history can't be read or written.
    """
    if options.words:
        raise UsageError("harness trend runs no command.\nNext: harness check -- " + " ".join(options.words))
    root = find_root(Path.cwd())
    match options.what:
        case ["add", *paths]:
            return add_launches(options, root, paths)
        case ["pin", *names]:
            return pin_release(options, root, names)
        case [] | [_]:
            return _judge(options, root)
    raise UsageError(f"harness trend takes one test, got {' '.join(options.what)}.\nNext: {USAGE}")


def _judge(options: argparse.Namespace, root: Path) -> int:
    from harness.budgets.trend import MIN_ANCHOR_NIGHTS, TrendVerdict  # noqa: PLC0415  late
    from harness.report.tables import align  # noqa: PLC0415
    from harness.report.trends import HEADER, build_trend_rows, describe_history, tell_history  # noqa: PLC0415

    if options.anchor_nights < MIN_ANCHOR_NIGHTS:
        raise UsageError(
            f"--anchor-nights {options.anchor_nights} must be at least {MIN_ANCHOR_NIGHTS}: fewer say too little "
            "of the noise between nights.\nNext: leave it out, which takes 30."
        )
    launches = _choose(open_history(options, root).read(), options)
    histories = _judge_all(launches, options, root)
    failing = [history for history in histories if history.trend.is_failing]
    too_few = [history for history in histories if history.trend.verdict is TrendVerdict.TOO_FEW]
    nothing = EXIT_GOOD if options.allow_too_few else EXIT_NOT_OBSERVED
    code = EXIT_FINDING if failing else nothing if len(too_few) == len(histories) else EXIT_GOOD
    if options.json:
        facts = {"exit_code": code, "histories": [describe_history(history) for history in histories]}
        say(json.dumps(facts, indent=1))
        return code
    say("\n".join(align([HEADER, *build_trend_rows(histories)])))
    for history in histories:
        say("")
        say("\n".join(wrap(line) for line in tell_history(history)))
    return code


def wrap(line: str) -> str:
    """A line of at most 110 columns: what goes on is indented by two more."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _choose(launches: list[TrackedLaunch], options: argparse.Namespace) -> list[TrackedLaunch]:
    """The launches of the test and the runner class that were asked for."""
    if not launches:
        raise ObservationError(
            "there is no history to judge.\nNext: pytest --harness-track on every night, or harness trend add "
            "baselines for the launches that are stored there."
        )
    if options.what:
        asked = options.what[0]
        tests = sorted({launch.test for launch in launches})
        wanted = {asked} if asked in tests else {test for test in tests if asked in test}
        if not wanted:
            near = difflib.get_close_matches(asked, tests, n=1, cutoff=0.4)
            suggestion = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(
                f"the history has no test {asked!r}{suggestion}.\nNext: one of {', '.join(tests[:NUM_SHOWN])}."
            )
        launches = [launch for launch in launches if launch.test in wanted]
    if options.runner_class:
        classes = sorted({launch.runner_class for launch in launches})
        if options.runner_class not in classes:
            raise UsageError(
                f"the history has no runner class {options.runner_class!r} here.\nNext: one of {', '.join(classes)}."
            )
    return launches


def _judge_all(
    launches: Sequence[TrackedLaunch], options: argparse.Namespace, root: Path
) -> list[JudgedHistory]:
    from harness.baselines.pools import PoolStore  # noqa: PLC0415  late
    from harness.baselines.shelves import FolderShelf  # noqa: PLC0415
    from harness.budgets.nights import Sample, gather_nights  # noqa: PLC0415
    from harness.budgets.trend import judge_trend  # noqa: PLC0415
    from harness.report.trends import JudgedHistory, find_metric, find_suspects  # noqa: PLC0415

    samples: dict[tuple[str, str, str], list[Sample]] = {}
    for launch in launches:
        for metric in _find_metrics(launch, options.metric):
            sample = Sample(launch.recorded_at, launch.commit, launch.values[metric])
            samples.setdefault((launch.test, metric, launch.runner_class), []).append(sample)
    nights = {key: found for key, history in samples.items() if (found := gather_nights(history))}
    former = {key: earlier for key in nights if (earlier := _find_former(key, nights))}
    # A machine that was given up has no trend any more, unless it is asked for by name.
    ended = {(key[0], key[1], other) for key, (other, _) in former.items()}
    judged = sorted(
        key
        for key in nights
        if (key[2] == options.runner_class if options.runner_class else key not in ended)
    )
    if not judged:
        known = sorted({metric for launch in launches for metric in launch.values})
        raise ObservationError(
            f"the history has no {' or '.join(options.metric) or 'time'} above 0 to judge.\n"
            f"Next: --metric {' or --metric '.join(known) or 'NAME'}."
        )
    store = PoolStore(FolderShelf(root / options.baselines))
    histories = []
    for key in judged:
        test, metric, runner_class = key
        pool = store.read(test, runner_class)
        release = pool.anchor if pool else None
        trend = judge_trend(
            nights[key],
            is_lower_better=find_metric(metric).is_lower_better,
            num_anchor=options.anchor_nights,
            pinned=release.pinned_at[:10] if release else None,
            num_histories=len(judged),
        )
        history = JudgedHistory(test, metric, runner_class, trend, former=former.get(key), release=release)
        if trend.is_failing and (suspects := find_suspects(trend)):
            history = replace(history, commits=list_commits(root, *suspects))
        histories.append(history)
    return histories


def _find_metrics(launch: TrackedLaunch, asked: Sequence[str]) -> list[str]:
    from harness.budgets.metrics import STEP_TIME, WALL_CLOCK  # noqa: PLC0415  late

    if asked:
        return [metric for metric in asked if metric in launch.values]
    return [metric.name for metric in (STEP_TIME, WALL_CLOCK) if metric.name in launch.values][:1]


def _find_former(
    key: tuple[str, str, str], nights: dict[tuple[str, str, str], Any]
) -> tuple[str, str] | None:
    """The class that a test was measured on just before the first night on this one, if it was given up for it."""
    test, metric, runner_class = key
    first = nights[key][0].date
    ended = [
        (history[-1].date, other)
        for (name, measured, other), history in nights.items()
        if (name, measured) == (test, metric) and other != runner_class and history[-1].date < first
    ]
    return (max(ended)[1], max(ended)[0]) if ended else None


def list_commits(root: Path, before: str, last: str) -> list[str] | None:
    """One line for each commit after `before` up to `last`, newest first; None where git has no answer."""
    words = ("log", "--oneline", "--no-decorate", END_OF_OPTIONS, f"{before}..{last}", "--")
    listed = run_git(*words, folder=root)
    return None if listed is None else listed.decode(errors="replace").splitlines()
