"""Finds out before a test runs whether it will call a function of ours, by the names in its code."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def names_function(test: object, name: str) -> bool:
    """Whether a test names a function, in its own code or that of a function of its module which it names.

    False: not seen to; it may still be called through another module, or a variable.
    """
    function = inspect.unwrap(test) if callable(test) else None
    function = getattr(function, "__func__", function)
    waiting = [function] if isinstance(function, FunctionType) else []
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        names = set(_list_names(function.__code__))
        if name in names:
            return True
        called = (function.__globals__.get(other) for other in names)
        waiting += [
            other
            for other in called
            if isinstance(other, FunctionType) and other.__module__ == function.__module__
        ]
    return False


def _list_names(code: CodeType) -> Iterator[str]:
    """Names that a function's code uses, with those of functions and comprehensions in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _list_names(constant)
