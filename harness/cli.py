"""The command line: `harness check` runs a training command, applies the rules and explains."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.run import TrainingRun
    from harness.rules.catalogue import Diagnosis

EXIT_GOOD, EXIT_FINDING, EXIT_NOT_OBSERVED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 good, 1 a finding, 2 misuse or nothing observed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, command = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    options = _build_parser().parse_args(own)
    try:
        return _check(options, command)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)  # noqa: T201  the command line speaks by printing
        if options.json is not None:
            _write_json(options.json, {"outcome": "not observed", "message": str(error), "command": command})
        return EXIT_NOT_OBSERVED


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
        help="run a training command, apply the rules, explain",
        usage="harness check [options] -- command [argument ...]",
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="write the same facts as one JSON document")
    check.add_argument(
        "--run-dir", type=Path, default=Path(), metavar="DIR", help="where the program writes; default: ."
    )
    check.add_argument(
        "--metrics", metavar="GLOB", help="metrics file under the run directory; default: **/metrics.csv"
    )
    check.add_argument("--loss", metavar="NAME", help="name of the metric that is the training loss")
    check.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="end the command and its children after this"
    )
    return parser


def _check(options: argparse.Namespace, command: list[str]) -> int:
    from harness.rules.catalogue import diagnose  # noqa: PLC0415  late
    from harness.watch.child import run_command  # noqa: PLC0415
    from harness.watch.launch import RunOptions  # noqa: PLC0415

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
    )
    run = run_command(command, options=run_options, timeout_s=options.timeout)
    diagnosis = diagnose(run)
    if not diagnosis.applied:
        reasons = "\n".join(f"{code}: {reason}" for code, reason in diagnosis.not_applied.items())
        raise HarnessError(f"no rule applies to {run.name}, so nothing was judged:\n{reasons}")
    print(_explain(run, diagnosis))  # noqa: T201
    if options.json is not None:
        _write_json(options.json, _describe(run, diagnosis))
    return EXIT_FINDING if diagnosis.errors else EXIT_GOOD


def _explain(run: TrainingRun, diagnosis: Diagnosis) -> str:
    from harness.report.curve import draw_curve  # noqa: PLC0415  late

    losses = run.losses
    lines = [
        f"harness: {len(run.steps)} steps of {run.source} in {run.wall_clock_s:.1f} s; "
        f"{run.loss_name} {losses[0]:.4g} -> {losses[-1]:.4g}",
        draw_curve(run.metric(run.loss_name or "")),
    ]
    lines += [f"{finding.severity}: {finding}" for finding in diagnosis.findings]
    lines += [f"not applied: {code}: {reason}" for code, reason in diagnosis.not_applied.items()]
    if not diagnosis.findings:
        lines.append(f"{len(diagnosis.applied)} rules applied, no finding.")
    return "\n".join(lines)


def _describe(run: TrainingRun, diagnosis: Diagnosis) -> dict[str, Any]:
    from harness.report.document import describe_run  # noqa: PLC0415  late

    return {
        "outcome": "failed" if diagnosis.errors else "passed",
        "message": "",
        "run": describe_run(run, diagnosis),
    }


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    from harness.report.document import SCHEMA_VERSION  # noqa: PLC0415  late
    from harness.session import find_version  # noqa: PLC0415

    header = {
        "schema_version": SCHEMA_VERSION,
        "harness_version": find_version(),
        "created_at": clock.now_utc(),
    }
    try:
        path.write_text(json.dumps(header | facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--json {path} can't be written: {error}.\nNext: name a writable file.") from error
