"""Refuses a record whose values are not of the kinds that its class declares: it was read from a file."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any


def check_kinds(record: Any, place: str = "") -> None:
    """Looks at every value of a record, and of the records in it.

    Args:
        record: One of a class that declares its fields by `int`, `float`, `str`, `bool`, `Any`, optional ones of these,
            records, and tuples and dictionaries of them. A whole number may stand for a `float`.
        place: Where the record is, for the message.

    Raises:
        TypeError: A value is of another kind; tells where it is.
    """
    of: Any = type(record)
    for name, kind in _read_kinds(of).items():
        _check(getattr(record, name), kind, f"{place}{name}")


@functools.cache
def _read_kinds(of: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(of)
    return {field.name: hints[field.name] for field in fields(of)}


def _check(value: Any, kind: Any, place: str) -> None:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is not None:
            _check(value, parts[0], place)
    elif origin in (tuple, dict):
        _require(value, origin, place)
        named = value.items() if origin is dict else enumerate(value)
        for name, part in named:
            _check(part, parts[origin is dict], f"{place}[{name!r}]")
    elif is_dataclass(kind):
        _require(value, kind, place)
        check_kinds(value, f"{place}.")
    elif kind is not Any:
        _check_plain(value, kind, place)


def _check_plain(value: Any, kind: type, place: str) -> None:
    _require(value, (int, float) if kind is float else kind, place)
    if isinstance(value, bool) and kind is not bool:
        raise TypeError(f"{place} is {value!r}")
    if kind is float:
        try:
            float(value)
        except OverflowError as error:
            raise TypeError(f"{place} is too large a number") from error


def _require(value: object, kind: Any, place: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{place} is {value!r}")
