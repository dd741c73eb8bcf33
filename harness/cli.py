"""The command line: `harness check` runs a training command, watches it, applies the rules and explains."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness import clock
from harness.errors import HarnessError, ObservationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.run import TrainingRun
    from harness.rules.catalogue import Diagnosis

EXIT_GOOD, EXIT_FINDING, EXIT_NOT_OBSERVED = 0, 1, 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 good, 1 a finding, 2 misuse or nothing observed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, command = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    options, extra = _build_parser().parse_known_args(own)
    if extra:
        _say(
            f"harness: {shlex.join(extra)} is no option of harness.\n"
            f"Next: put -- before the command: harness check -- {shlex.join(extra)}",
            is_error=True,
        )
        return EXIT_NOT_OBSERVED
    # A SIGTERM unwinds like Ctrl-C, so that the program we run is ended with us.
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _check(options, command)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except HarnessError as error:
        _say(f"harness: {error}", is_error=True)
        if options.json is not None:
            seen = [run.to_json() for run in error.seen] if isinstance(error, ObservationError) else []
            facts = {"outcome": "not observed", "message": str(error), "command": command, "observed": seen}
            return _write_json(options.json, facts, EXIT_NOT_OBSERVED)
        return EXIT_NOT_OBSERVED


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _build_parser() -> argparse.ArgumentParser:
    from harness.session import find_version  # noqa: PLC0415  late

    parser = argparse.ArgumentParser(
        prog="harness",
        description="CI and regression testing for training code.",
        epilog="Exit codes: 0 good; 1 a finding; 2 used wrongly, or the run could not be observed.",
    )
    parser.add_argument("--version", action="version", version=f"harness {find_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
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
    return parser


def _check(options: argparse.Namespace, command: list[str]) -> int:
    from harness.rules.catalogue import diagnose  # noqa: PLC0415  late
    from harness.watch.child import run_command  # noqa: PLC0415
    from harness.watch.launch import RunOptions  # noqa: PLC0415
    from harness.watch.options import build_observer_options  # noqa: PLC0415

    if not command:
        raise UsageError("no command to check.\nNext: harness check -- python train.py --mode ci")
    if options.timeout is not None and options.timeout <= 0:
        raise UsageError(f"--timeout {options.timeout:g} must be above 0.\nNext: --timeout 600")
    if not options.run_dir.is_dir():
        raise UsageError(f"--run-dir {options.run_dir} is no directory.\nNext: make it, or name another.")
    run_options = RunOptions(
        name=shlex.join(command),
        run_dir=options.run_dir.resolve(),
        metrics=options.metrics,
        loss=options.loss,
        watch=build_observer_options(
            options.watch, max_steps=options.max_steps, max_seconds=options.max_seconds
        ),
    )
    run = run_command(command, options=run_options, timeout_s=options.timeout, ranks=options.ranks)
    diagnosis = diagnose(run)
    if not diagnosis.applied:
        reasons = "\n".join(f"{code}: {reason}" for code, reason in diagnosis.not_applied.items())
        raise ObservationError(
            f"no rule applies to {run.name}, so nothing was judged:\n{reasons}", seen=run.ranks
        )
    _say(_explain(run, diagnosis))
    exit_code = EXIT_FINDING if diagnosis.errors else EXIT_GOOD
    return (
        exit_code if options.json is None else _write_json(options.json, _describe(run, diagnosis), exit_code)
    )


def _explain(run: TrainingRun, diagnosis: Diagnosis) -> str:
    from harness.report.curve import draw_curve  # noqa: PLC0415  late
    from harness.report.watched import tell_watched  # noqa: PLC0415

    losses = run.losses
    lines = [
        f"harness: {len(run.steps)} steps in {run.wall_clock_s:.1f} s ({run.source})",
        *tell_watched(run),
    ]
    if losses:
        lines[0] += f"; {run.loss_name} {losses[0]:.4g} -> {losses[-1]:.4g}"
        lines.append(draw_curve(run.loss_curve))
    lines += [f"{finding.severity}: {finding}" for finding in diagnosis.findings]
    lines += [f"not applied: {code}: {reason}" for code, reason in diagnosis.not_applied.items()]
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


def _write_json(path: Path, facts: dict[str, Any], exit_code: int) -> int:
    """Writes the document and returns the exit code, which is 2 where it can't be written."""
    from harness.report.document import SCHEMA_VERSION, replace_non_finite  # noqa: PLC0415  late
    from harness.session import find_version  # noqa: PLC0415

    header = {
        "schema_version": SCHEMA_VERSION,
        "harness_version": find_version(),
        "created_at": clock.now_utc(),
    }
    try:
        text = json.dumps(replace_non_finite(header | facts), indent=1, default=str)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        _say(f"harness: --json {path} can't be written: {error}.\nNext: name a writable file.", is_error=True)
        return EXIT_NOT_OBSERVED
    return exit_code


def _say(text: str, *, is_error: bool = False) -> None:
    print(text, file=sys.stderr if is_error else sys.stdout)
