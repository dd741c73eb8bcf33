"""`harness check`: runs a training command, watches it, applies the rules and explains."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.against_baseline import add_options, build_request, check_options, compare
from harness.commands.options import check_above_zero
from harness.commands.output import (
    EXIT_FINDING,
    EXIT_GOOD,
    EXIT_NOT_OBSERVED,
    say,
    write_json,
)
from harness.errors import HarnessError, ObservationError, UsageError
from harness.project import find_project, read_selection
from harness.selection import parse_words

if TYPE_CHECKING:
    import argparse

    from harness.record.run import TrainingRun
    from harness.rules.diagnosis import Diagnosis
    from harness.selection import RuleSelection


def add_parser(commands: Any) -> None:
    """Declares the command and its options."""
    check = commands.add_parser(
        "check",
        help="run a training command, watch it, apply the rules, explain",
        usage="harness check [options] -- command [argument ...]",
    )
    add = check.add_argument
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the same facts, and all that was seen, as one document",
    )
    add("--max-steps", type=int, metavar="N", help="end the program after N optimizer steps")
    add("--max-seconds", type=float, metavar="S", help="end the program after S seconds of training")
    add("--ranks", type=int, metavar="N", help="launch the command in N processes with torchrun")
    add(
        "--timeout",
        type=float,
        metavar="S",
        help="end the command and its children after S seconds: it hangs",
    )
    depths = ("light", "norms", "deep", "off")
    add("--watch", choices=depths, default="deep", help="how closely to watch; default: deep")
    add("--run-dir", type=Path, default=Path(), metavar="DIR", help="where the program writes; default: .")
    add("--metrics", metavar="GLOB", help="metrics file under the run directory that has to be there")
    add("--loss", metavar="NAME", help="logged metric that is the loss, instead of what reaches backward")
    add(
        "--select", action="append", default=[], metavar="CODES", help="rules to apply: T1,A101; default: all"
    )
    add(
        "--ignore",
        action="append",
        default=[],
        metavar="CODE=REASON",
        help="a rule whose findings are told and fail nothing",
    )
    add(
        "--severity",
        action="append",
        default=[],
        metavar="CODE=LEVEL",
        help="another severity for a rule: error, warning or note",
    )
    add(
        "--bound",
        action="append",
        default=[],
        metavar="CODE.NAME=NUMBER",
        help="another bound for a rule: T101.min_change=0.05",
    )
    add_options(check.add_argument_group("comparing with a baseline").add_argument)
    check.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit code.

    Raises:
        HarnessError: The options can't be used, or the run could not be observed.
    """
    try:
        return _check(options, options.words)
    except HarnessError as error:
        unfinished = _explain_unfinished(options, error)
        if options.json is not None:
            seen = [run.to_json() for run in error.seen] if isinstance(error, ObservationError) else []
            facts = {
                "outcome": "not observed",
                "message": error.whole if isinstance(error, ObservationError) else str(error),
                "command": options.words,
                "observed": seen,
            } | unfinished
            write_json(options.json, facts, EXIT_NOT_OBSERVED)
        raise


def _check(options: argparse.Namespace, command: list[str]) -> int:
    from harness.baselines.building import TRACED_STEPS  # noqa: PLC0415  late
    from harness.rules.diagnosis import check_selection, diagnose  # noqa: PLC0415
    from harness.watch.child import run_command  # noqa: PLC0415
    from harness.watch.launch import RunOptions  # noqa: PLC0415
    from harness.watch.options import build_observer_options  # noqa: PLC0415

    if not command:
        raise UsageError("no command to check.\nNext: harness check -- python train.py --mode ci")
    check_above_zero(options, "timeout")
    if not options.run_dir.is_dir():
        raise UsageError(f"--run-dir {options.run_dir} is no directory.\nNext: make it, or name another.")
    check_options(options)
    request = build_request(options, command)
    run_options = RunOptions(
        name=shlex.join(command),
        run_dir=options.run_dir.resolve(),
        metrics=options.metrics,
        loss=options.loss,
        watch=build_observer_options(
            options.watch,
            max_steps=options.max_steps,
            max_seconds=options.max_seconds,
            traced_steps=0 if request is None else TRACED_STEPS,
        ),
    )
    selection = _choose_rules(options)
    check_selection(selection)
    run = run_command(command, options=run_options, timeout_s=options.timeout, ranks=options.ranks)
    run.selection = selection
    diagnosis = diagnose(run)
    if not diagnosis.applied:
        reasons = "\n".join(f"{code}: {reason}" for code, reason in diagnosis.not_applied.items())
        raise ObservationError(
            f"no rule applies to {run.name}, so nothing was judged:\n{reasons}", seen=run.ranks
        )
    say(_explain(run, diagnosis))
    exit_code = EXIT_FINDING if diagnosis.errors else EXIT_GOOD
    facts = _describe(run, diagnosis)
    if request is not None:
        comparison = compare(run, request, options)
        say(comparison.text)
        facts["trajectory"] = comparison.described
        # Under --bisect a commit is bad when it left the baseline, whatever the rules think of it.
        exit_code = comparison.exit_code if options.bisect else max(exit_code, comparison.exit_code)
        if comparison.exit_code:
            facts |= {"outcome": "failed", "message": comparison.text}
    return exit_code if options.json is None else write_json(options.json, facts, exit_code)


def _explain_unfinished(options: argparse.Namespace, error: HarnessError) -> dict[str, Any]:
    """Tells what the rules find in what was seen before the program failed; the same for the JSON document."""
    from harness.report.diagnosis import tell_diagnosis  # noqa: PLC0415  late
    from harness.report.document import describe_run  # noqa: PLC0415
    from harness.rules.diagnosis import diagnose  # noqa: PLC0415

    if not isinstance(error, ObservationError) or error.run is None:
        return {}
    error.run.selection = _choose_rules(options)
    diagnosis = diagnose(error.run)
    if diagnosis.findings:
        say(
            "\n".join(
                [
                    f"harness: seen in {len(error.run.steps)} steps, before the end:",
                    *tell_diagnosis(diagnosis),
                ]
            )
        )
    return {"run": describe_run(error.run, diagnosis)}


def _choose_rules(options: argparse.Namespace) -> RuleSelection:
    """The project's rules, with those of the command line over them."""
    given = parse_words(
        select=options.select, ignore=options.ignore, severity=options.severity, bounds=options.bound
    )
    return read_selection(find_project(Path.cwd())).merge(given)


def _explain(run: TrainingRun, diagnosis: Diagnosis) -> str:
    from harness.report.curve import draw_curve  # noqa: PLC0415  late
    from harness.report.diagnosis import tell_diagnosis, tell_ignored, tell_not_applied  # noqa: PLC0415
    from harness.report.watched import tell_watched  # noqa: PLC0415

    losses = run.losses
    lines = [
        f"harness: {len(run.steps)} steps in {run.wall_clock_s:.1f} s ({run.source})",
        *tell_watched(run),
    ]
    if losses:
        lines[0] += f"; {run.loss_name} {losses[0]:.4g} -> {losses[-1]:.4g}"
        lines.append(draw_curve(run.loss_curve))
    lines += [*tell_diagnosis(diagnosis), *tell_ignored(diagnosis), *tell_not_applied(diagnosis)]
    lines += [f"note: {note}" for note in (*run.notes, *(run.observed.notes if run.observed else ()))]
    if not diagnosis.findings:
        lines.append(f"{len(diagnosis.applied)} rules applied, no finding.")
    return "\n".join(lines)


def _describe(run: TrainingRun, diagnosis: Diagnosis) -> dict[str, Any]:
    from harness.report.document import describe_run  # noqa: PLC0415  late

    return {
        "outcome": "failed" if diagnosis.errors else "passed",
        "message": "",
        "run": describe_run(run, diagnosis),
        "observed": [rank.to_json() for rank in run.ranks],
    }
