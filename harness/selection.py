"""Which rules a run is judged by: selected, ignored with a reason, made milder or stricter, with which bounds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from harness.errors import UsageError

SEVERITIES = ("error", "warning", "note")
ARGUMENTS = ("select", "ignore", "severity", "bounds")
IN_PROJECT = "ignored in this project"


@dataclass(frozen=True, slots=True)
class RuleSelection:
    """Which rules apply, by code (`T101`) or by the beginning of codes (`T1`, `A`).

    Attributes:
        select: What applies; empty is everything.
        ignore: Reason by code: what is found is told as ignored, and fails nothing.
        severity: Severity by code: `error`, `warning` or `note`.
        bounds: Numbers the rules compare with: by code, then by name.
    """

    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    severity: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, arguments: Mapping[str, Any], *, source: str, needs_reasons: bool = True) -> Self:
        """The selection in the arguments of a marker, an assertion or a table of pyproject.toml.

        Args:
            arguments: Those among `select`, `ignore`, `severity` and `bounds` that were given.
            source: Where they stand, for messages.
            needs_reasons: Whether `ignore` must give a reason for every code, as it must on a test.

        Raises:
            UsageError: A value is of another kind than asked for.
        """
        select = arguments.get("select") or ()
        if isinstance(select, str) or not _are_texts(select):
            raise UsageError(
                f'{source}: select={select!r} must be a list of codes.\nNext: select=["T1", "A101"].'
            )
        return cls(
            select=tuple(select),
            ignore=_parse_ignore(arguments.get("ignore"), source, needs_reasons=needs_reasons),
            severity=_parse_severity(arguments.get("severity"), source),
            bounds=_parse_bounds(arguments.get("bounds"), source),
        )

    def merge(self, nearer: RuleSelection) -> RuleSelection:
        """This selection with another one, which stands nearer to the run, over it."""
        codes = [*self.bounds, *(code for code in nearer.bounds if code not in self.bounds)]
        return RuleSelection(
            select=nearer.select or self.select,
            ignore={**self.ignore, **nearer.ignore},
            severity={**self.severity, **nearer.severity},
            bounds={code: {**self.bounds.get(code, {}), **nearer.bounds.get(code, {})} for code in codes},
        )

    def is_selected(self, code: str) -> bool:
        """Whether a rule applies."""
        return not self.select or code.startswith(self.select)

    def find_reason_to_ignore(self, code: str) -> str | None:
        """Why findings of a rule are ignored; None when they are not."""
        return _find_nearest(self.ignore, code)

    def find_severity(self, code: str) -> str | None:
        """The severity set for a rule; None when none is."""
        return _find_nearest(self.severity, code)

    def check(self, known: Mapping[str, Iterable[str]]) -> None:
        """Refuses codes and bounds that there are not.

        Args:
            known: Names of the bounds of every rule, by its code.

        Raises:
            UsageError: A code is not the beginning of any rule's, or a rule has no such bound.
        """
        for code in (*self.select, *self.ignore, *self.severity):
            if not any(rule.startswith(code) for rule in known) or not code:
                raise UsageError(f"there is no rule {code!r}{_suggest(code, known)}.\nNext: harness rules")
        for code, bounds in self.bounds.items():
            if code not in known:
                raise UsageError(f"there is no rule {code!r}{_suggest(code, known)}.\nNext: harness rules")
            for name in bounds:
                names = list(known[code])
                if name not in names:
                    raise UsageError(
                        f"{code} has no bound {name!r}{_suggest(name, names)}; it has {', '.join(names) or 'none'}.\n"
                        f"Next: harness rules {code}"
                    )


def parse_words(
    *, select: Iterable[str], ignore: Iterable[str], severity: Iterable[str], bounds: Iterable[str]
) -> RuleSelection:
    """The selection in words of the command line: `T1,A101`, `T102=reason`, `T505=error`, `T101.min_change=0.05`.

    Raises:
        UsageError: A word is not of that form.
    """
    split = {
        name: [part for word in words for part in word.split(",") if part]
        for name, words in (("select", select), ("severity", severity), ("bounds", bounds))
    }
    table: dict[str, dict[str, float]] = {}
    for word in split["bounds"]:
        name, _, text = word.partition("=")
        code, _, bound = name.partition(".")
        try:
            table.setdefault(code, {})[bound] = float(text)
        except ValueError as error:
            raise UsageError(
                f"--bound {word!r} is not CODE.NAME=NUMBER.\nNext: --bound T101.min_change=0.05"
            ) from error
    reasons: dict[str, str] = {}
    for word in ignore:
        code, separator, reason = word.partition("=")
        reasons |= (
            {code: reason} if separator else dict.fromkeys(code.split(","), "ignored on the command line")
        )
    return RuleSelection.parse(
        {
            "select": split["select"],
            "ignore": reasons,
            "severity": dict(word.partition("=")[::2] for word in split["severity"]),
            "bounds": table,
        },
        source="command line",
    )


def _find_nearest(table: Mapping[str, str], code: str) -> str | None:
    """The value of the longest beginning of a code."""
    found = max((key for key in table if code.startswith(key)), key=len, default=None)
    return None if found is None else table[found]


def _parse_ignore(value: Any, source: str, *, needs_reasons: bool) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, Mapping) and _are_texts([*value.keys(), *value.values()]) and all(value.values()):
        return dict(value)
    if not needs_reasons and not isinstance(value, (str, Mapping)) and _are_texts(value):
        return dict.fromkeys(value, IN_PROJECT)
    raise UsageError(
        f"{source}: ignore={value!r} must give a reason for every code.\n"
        'Next: ignore={"T102": "starts from random labels on purpose"}.'
    )


def _parse_severity(value: Any, source: str) -> dict[str, str]:
    table = {} if value is None else value
    if not isinstance(table, Mapping) or not all(level in SEVERITIES for level in table.values()):
        raise UsageError(
            f"{source}: severity={value!r} must give one of {', '.join(SEVERITIES)} for every code.\n"
            'Next: severity={"T505": "error"}.'
        )
    return dict(table)


def _parse_bounds(value: Any, source: str) -> dict[str, dict[str, float]]:
    table = {} if value is None else value
    is_good = isinstance(table, Mapping) and all(
        isinstance(bounds, Mapping)
        and all(
            isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
            for number in bounds.values()
        )
        for bounds in table.values()
    )
    if not is_good:
        raise UsageError(
            f"{source}: bounds={value!r} must give numbers by code and name.\n"
            'Next: bounds={"T101": {"min_change": 0.05}}.'
        )
    return {code: {name: float(number) for name, number in bounds.items()} for code, bounds in table.items()}


def _are_texts(values: Any) -> bool:
    return isinstance(values, Iterable) and all(isinstance(value, str) for value in values)


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
