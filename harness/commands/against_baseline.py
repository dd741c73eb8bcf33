"""What `harness check --baseline NAME` adds: the comparison, accepting, and exit codes for `git bisect run`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.options import (
    add_folder_option,
    check_accepting,
    check_reason,
    name_folder,
    repeat_folder,
)
from harness.commands.output import EXIT_FINDING, EXIT_GOOD, say
from harness.errors import BaselineError, ObservationError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from harness.errors import HarnessError
    from harness.record.request import BaselineRequest
    from harness.record.run import TrainingRun

EXIT_SKIP, EXIT_STOP = 125, 128
"""To `git bisect run`: this commit can't be judged, take another; and end the search, it can't go on."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of the comparison.

    Attributes:
        exit_code: That of the comparison alone.
        text: For people.
        described: As JSON data; None where nothing was compared.
    """

    exit_code: int
    text: str
    described: dict[str, Any] | None


def add_options(add: Callable[..., Any]) -> None:
    """Declares the options."""
    add("--baseline", metavar="NAME", help="compare with the stored trajectory of this name")
    add_folder_option(add)
    add("--accept-baselines", action="store_true", help="store this run as the baseline; needs --reason")
    add("--reason", default="", metavar="TEXT", help="why it is accepted; kept with it")
    add(
        "--accept-with-findings",
        action="store_true",
        help="accept it also where the rules find errors; refused otherwise",
    )
    add(
        "--harness-require-baseline",
        dest="require_baseline",
        action="store_true",
        help="fail where the baseline can't be compared with on this machine",
    )
    add("--exact", action="store_true", help="compare every bit, also with a baseline of another class")
    add("--tolerance", action="store_true", help="compare by tolerance, also with a baseline of this class")
    add(
        "--bisect",
        action="store_true",
        help="exit as `git bisect run` wants it: 0 matches, 1 diverged, 125 not judged, 128 used wrongly; only the "
        "baseline decides, findings are told",
    )


def check_options(options: argparse.Namespace) -> None:
    """Refuses combinations of options that can't be meant.

    Raises:
        UsageError: There is such a combination.
    """
    names = {
        "--accept-baselines": options.accept_baselines,
        "--exact": options.exact,
        "--tolerance": options.tolerance,
        "--bisect": options.bisect,
        "--harness-require-baseline": options.require_baseline,
    }
    for name, is_given in names.items():
        if is_given and options.baseline is None:
            raise UsageError(f"{name} needs a baseline.\nNext: {name} --baseline NAME")
    if options.baseline is not None and not options.baseline.strip():
        raise UsageError("--baseline has no name.\nNext: --baseline NAME, such as --baseline smoke")
    if options.exact and options.tolerance:
        raise UsageError(
            "--exact and --tolerance exclude each other.\nNext: leave out both, which chooses by machine."
        )
    check_reason(options)
    if options.accept_with_findings:
        check_accepting(options, "--accept-with-findings")
    if options.accept_baselines and options.bisect:
        raise UsageError("--bisect accepts nothing.\nNext: accept a baseline first, at a good commit.")
    if options.baseline is not None and options.watch != "deep":
        raise UsageError(
            f"--baseline compares what is watched in depth, and --watch is {options.watch}.\nNext: leave out --watch."
        )


def build_request(options: argparse.Namespace, command: list[str]) -> BaselineRequest | None:
    """What the options ask to compare with; None without `--baseline`.

    Raises:
        UsageError: The baselines are in a commit that is not there, or can't be written into.
        BaselineError: There is none to bisect with.
    """
    if options.baseline is None:
        return None
    from harness.baselines.shelves import open_shelf  # noqa: PLC0415  late
    from harness.baselines.trajectory_store import FOLDER, TrajectoryStore  # noqa: PLC0415
    from harness.record.request import BaselineRequest  # noqa: PLC0415

    words = ["harness", "check", "--baseline", options.baseline]
    words += repeat_folder(options.baselines)
    words += _repeat_options(options)
    request = BaselineRequest(
        test=options.baseline,
        baselines=options.baselines,
        root=Path.cwd(),
        folder=Path.cwd(),
        accept_command=f'{shlex.join(words)} --accept-baselines --reason "{{reason}}" -- {shlex.join(command)}',
        reason=options.reason if options.accept_baselines else None,
        accepts_findings=options.accept_with_findings,
        requires_class=options.require_baseline,
    )
    # Before anything is trained: a wrong name costs no time then.
    shelf = open_shelf(request.baselines, root=request.root)
    if options.accept_baselines:
        shelf.path(FOLDER)
    if options.bisect and not TrajectoryStore(shelf).find_classes(request.test):
        raise BaselineError(
            f"{request.test} has no baseline in any numerics class under {options.baselines}.\n"
            f"Next: at a good commit: {request.tell_accepting('good')}; then --baselines "
            f"COMMIT:{name_folder(options.baselines)}"
        )
    return request


def _repeat_options(options: argparse.Namespace) -> list[str]:
    """The options that decide what is run and seen: a baseline is accepted of the same run."""
    words = []
    for name in ("max_steps", "max_seconds", "ranks", "timeout", "metrics", "loss"):
        value = getattr(options, name)
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            words += [f"--{name.replace('_', '-')}", shown]
    return words if options.run_dir == Path() else [*words, "--run-dir", str(options.run_dir)]


def compare(run: TrainingRun, request: BaselineRequest, options: argparse.Namespace) -> Comparison:
    """Compares a run with its baseline, and stores it where that is asked for.

    Raises:
        HarnessError: Nothing can be compared, or the baseline can't be read or written.
    """
    from harness.assertions import assert_matches_baseline  # noqa: PLC0415  late
    from harness.baselines.lengths import has_too_few_steps  # noqa: PLC0415
    from harness.baselines.trajectory_judge import TrajectoryVerdict, store_accepted  # noqa: PLC0415
    from harness.report.trajectory import tell_accepted, tell_outcome  # noqa: PLC0415
    from harness.report.trajectory_document import describe_trajectory  # noqa: PLC0415

    run.baseline = request
    is_exact = True if options.exact else False if options.tolerance else None
    problem = ""
    try:
        assert_matches_baseline(run, exact=is_exact)
    except AssertionError as error:
        problem = str(error)
    if not request.judged:
        return Comparison(EXIT_FINDING, problem, None)
    result = request.judged[-1]
    described = describe_trajectory(result)
    if problem:
        # With another limit than the baseline's every commit is of another length, and none is to blame.
        has_other_limit = result.divergence is not None and bool(result.divergence.advice)
        is_stop = options.bisect and (result.verdict is TrajectoryVerdict.MISSING_BASELINE or has_other_limit)
        return Comparison(EXIT_STOP if is_stop else EXIT_FINDING, problem, described)
    if request.reason is not None:
        store_accepted(request)
        return Comparison(EXIT_GOOD, tell_accepted(result), described)
    notes = [f"note: {note}" for note in result.comparison.notes] if result.comparison else []
    exit_code = EXIT_GOOD
    if options.bisect and result.verdict is TrajectoryVerdict.NOT_COMPARABLE:
        # What this commit brings may be past comparing, as a run cut short is; where the machine is, every other
        # commit is too.
        is_cut_short = has_too_few_steps(result.baseline, result.observed)
        exit_code = EXIT_SKIP if result.is_of_own_class or is_cut_short else EXIT_STOP
    place = f"\n  {result.place}" if result.baseline else ""
    return Comparison(
        exit_code, "\n".join([f"{request.test} {tell_outcome(result)}.{place}", *notes]), described
    )


def tell_bisect_exit(error: HarnessError) -> int:
    """What an error means to `git bisect run`: a commit to pass over, or the end of the search; says which."""
    if isinstance(error, ObservationError):
        say("harness: this commit can't be judged; git bisect passes over it (exit code 125).", is_error=True)
        return EXIT_SKIP
    say("harness: no commit can be judged like this; git bisect stops (exit code 128).", is_error=True)
    return EXIT_STOP
