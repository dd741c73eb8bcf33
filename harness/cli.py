"""The command line: judges a training (`check`), its cost (`budget`, `ab`, `trend`); tells of rules and baselines."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from harness.commands import ab, baselines, budget, check, rules, trend
from harness.commands.against_baseline import EXIT_STOP, tell_bisect_exit
from harness.commands.output import EXIT_GOOD, EXIT_NOT_OBSERVED, say
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 good, 1 a finding, 2 misuse or nothing observed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, command = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    if "--bisect" in own:
        return _main_for_bisect(own, command)
    try:
        return _main(own, command)
    except Exception:  # noqa: BLE001  a fault of the harness is no finding, for which Python's own 1 stands
        traceback.print_exc()
        say("harness: this is a fault of the harness.\nNext: report it with these lines.", is_error=True)
        return EXIT_NOT_OBSERVED


def _main_for_bisect(own: list[str], command: list[str]) -> int:
    """The same with exit codes for `git bisect run`: to it, 1 to 127 say that a commit is bad, but for 125."""
    try:
        code = _main(own, command)
    except SystemExit as ending:  # of argparse, or of a signal
        code = ending.code if isinstance(ending.code, int) else EXIT_NOT_OBSERVED
    except Exception:  # noqa: BLE001  a fault of the harness says nothing about a commit
        traceback.print_exc()
        return EXIT_STOP
    return EXIT_STOP if code == EXIT_NOT_OBSERVED else code


def _main(own: list[str], command: list[str]) -> int:
    options, extra = _build_parser().parse_known_args(own)
    if extra:
        advice = (
            f"put -- before the command: harness check -- {shlex.join(extra)}"
            if own[0] == "check"
            else f"harness {own[0]} --help"
        )
        say(f"harness: {shlex.join(extra)} is no option of harness.\nNext: {advice}", is_error=True)
        return EXIT_NOT_OBSERVED
    options.words = command
    try:
        with _leaving_on_sigterm():
            return _run(options)
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_GOOD
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except HarnessError as error:
        say(f"harness: {error}", is_error=True)
        return tell_bisect_exit(error) if getattr(options, "bisect", False) else EXIT_NOT_OBSERVED


@contextlib.contextmanager
def _leaving_on_sigterm() -> Iterator[None]:
    """Has a SIGTERM unwind like Ctrl-C, so that the program we run is ended with us; afterwards all is as before."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


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
    budget.add_parser(commands)
    ab.add_parser(commands)
    rules.add_parser(commands)
    baselines.add_parser(commands)
    trend.add_parser(commands)
    return parser
