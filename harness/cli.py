"""The command line: `harness check` judges a training command, `harness trend` a history; `harness rules` explains."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from harness.commands import check, rules, trend
from harness.commands.output import EXIT_GOOD, EXIT_NOT_OBSERVED, say
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 good, 1 a finding, 2 misuse or nothing observed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, command = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    options, extra = _build_parser().parse_known_args(own)
    if extra:
        say(
            f"harness: {shlex.join(extra)} is no option of harness.\n"
            f"Next: put -- before the command: harness check -- {shlex.join(extra)}",
            is_error=True,
        )
        return EXIT_NOT_OBSERVED
    # A SIGTERM unwinds like Ctrl-C, so that the program we run is ended with us.
    signal.signal(signal.SIGTERM, _leave)
    options.words = command
    try:
        return _run(options)
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_GOOD
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except HarnessError as error:
        say(f"harness: {error}", is_error=True)
        return EXIT_NOT_OBSERVED


def _run(options: argparse.Namespace) -> int:
    code = int(options.run(options))
    # Here, where a reader that has left is met with care, and not at exit.
    sys.stdout.flush()
    return code


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
    check.add_parser(commands)
    rules.add_parser(commands)
    trend.add_parser(commands)
    return parser
