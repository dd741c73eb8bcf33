"""Options that several commands have: declared in one way, and checked in one way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

FOLDER = "baselines"


def add_folder_option(add: Callable[..., Any]) -> None:
    """Declares where baselines lie."""
    add(
        "--baselines",
        default=FOLDER,
        metavar="DIR",
        help=f"folder of the baselines, or REVISION:DIR to read them from git; default: {FOLDER}",
    )


def add_inconclusive_option(add: Callable[..., Any]) -> None:
    """Declares what an inconclusive verdict does."""
    add(
        "--inconclusive",
        choices=("warn", "fail"),
        default="warn",
        help="what an inconclusive verdict does: exit 0 or 1; default: warn",
    )


def check_reason(options: argparse.Namespace) -> None:
    """Refuses to accept without a reason, and a reason for nothing.

    Raises:
        UsageError: It is so.
    """
    if options.accept_baselines and not options.reason.strip():
        raise UsageError(
            '--accept-baselines needs a reason, which is kept with it.\nNext: --accept-baselines --reason "why"'
        )
    if options.reason:
        check_accepting(options, "--reason")


def check_accepting(options: argparse.Namespace, flag: str) -> None:
    """Refuses a flag that was given and belongs to accepting, where nothing is accepted.

    Raises:
        UsageError: It is so.
    """
    if not options.accept_baselines:
        raise UsageError(f"{flag} belongs to --accept-baselines, which is not given.\nNext: leave it out.")


def check_above_zero(options: argparse.Namespace, *names: str) -> None:
    """Refuses numbers of options that are not above 0, NaN among them.

    Raises:
        UsageError: There is one.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} {value:g} must be above 0.\nNext: leave it out for the default.")


def name_folder(baselines: str) -> str:
    """The folder that can be accepted into: of `REVISION:DIR` the latter."""
    is_folder = ":" not in baselines or Path(baselines).is_dir()
    return baselines if is_folder else baselines.partition(":")[2] or "."


def repeat_folder(baselines: str) -> list[str]:
    """The words that name that folder in a command that accepts; none by default."""
    folder = name_folder(baselines)
    return [] if folder == FOLDER else ["--baselines", folder]
