"""Checks arguments that users write on markers, so that every mistake reads the same way."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST = sys.float_info.max


def check_names(kind: str, arguments: Mapping[str, object], known: Iterable[str], *, source: str) -> None:
    """Refuses arguments that `kind` does not have, and suggests the nearest name.

    Raises:
        UsageError: An argument is unknown.
    """
    names = list(known)
    for name in arguments:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            suggestion = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(
                f"{source}: {kind} has no argument {name!r}{suggestion}.\nNext: use {', '.join(names)}."
            )


def check_number(
    name: str, value: object, *, source: str, least: float, most: float = MOST, whole: bool = False
) -> float:
    """`value` as a number from `least` to `most`.

    Raises:
        UsageError: It is not a finite number, not whole where that is asked for, too small or too large.
    """
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        wanted = f"a {'whole ' if whole else ''}number of at least {least:g}"
        wanted += f" and at most {most:g}" if most < MOST else ""
        raise UsageError(f"{source}: {name}={value!r} must be {wanted}.\nNext: correct it, or leave it out.")
    return value


def check_text(name: str, value: object, *, source: str) -> str:
    """`value` as text that is not empty.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(value, str) or not value:
        raise UsageError(f"{source}: {name}={value!r} must be text.\nNext: correct it, or leave it out.")
    return value
