"""Replaces callables of other packages while somebody listens, and gives back the very same objects.

A tap is shared: the first listener puts the replacement in, the last one to leave takes it out, in any order,
so observers nest. Functions are redirected in place, by their code object, because programs hold references
of their own (`from torch.nn.utils import clip_grad_norm_`); methods are replaced on their class. A redirected
function still shows its own source and signature, which is what `torch.jit.script` compiles.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import types
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    Listener = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
    Builder = Callable[[Callable[..., Any]], Callable[..., Any]]


class Place(Protocol):
    """Where a callable lives: gives the original, puts an entry in front of it, and takes it away."""

    original: Callable[..., Any]

    def put(self, entry: Callable[..., Any]) -> None:
        """Sends calls to `entry`."""

    def restore(self) -> None:
        """Sends calls to the original again."""


class _Cell:
    """Holds where calls go."""

    __slots__ = ("entry",)

    def __init__(self, entry: Callable[..., Any]) -> None:
        self.entry = entry


class FunctionPlace:
    """A plain Python function, redirected by exchanging its code."""

    def __init__(self, function: types.FunctionType) -> None:
        self._function = function
        self._code = function.__code__
        self.original: Callable[..., Any] = types.FunctionType(
            self._code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        self.original.__kwdefaults__ = function.__kwdefaults__
        self._signature = inspect.signature(function)
        self._cell = _Cell(self.original)
        constants = tuple(self._cell if value == ENTRY else value for value in _call_entry.__code__.co_consts)
        self._redirected = _call_entry.__code__.replace(
            co_consts=constants,
            co_name=self._code.co_name,
            co_qualname=self._code.co_qualname,
            co_filename=self._code.co_filename,
            co_firstlineno=self._code.co_firstlineno,
        )

    def put(self, entry: Callable[..., Any]) -> None:
        """Sends calls to `entry`, wherever the function was imported to."""
        self._cell.entry = entry
        vars(self._function).setdefault("__signature__", self._signature)
        self._function.__code__ = self._redirected

    def restore(self) -> None:
        """Gives the function its own code back, unless somebody else has exchanged it since."""
        self._cell.entry = self.original
        if vars(self._function).get("__signature__") is self._signature:
            del vars(self._function)["__signature__"]
        if self._function.__code__ is self._redirected:
            self._function.__code__ = self._code


def is_redirected(code: types.CodeType) -> bool:
    """Whether code only sends calls on, though it shows the name and the file of a function."""
    return any(type(value) is _Cell for value in code.co_consts)


# To make one takes as long as watching a step, and deep steps redirect the same functions again.
@functools.lru_cache(maxsize=256)
def _build_place(function: types.FunctionType, code: types.CodeType) -> FunctionPlace:
    del code
    return FunctionPlace(function)


ENTRY = "harness: where calls go"


def _call_entry(*args: Any, **kwargs: Any) -> Any:
    cell: Any = "harness: where calls go"  # the constant that FunctionPlace replaces by its cell
    return cell.entry(*args, **kwargs)


class MethodPlace:
    """An attribute of a class; an inherited one is overridden for the time."""

    def __init__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name
        self._own = owner.__dict__.get(name)
        self.original = self._own if self._own is not None else self._call_inherited
        self._send_to: Callable[[Callable[..., Any]], None] | None = None
        self._replacement: Callable[..., Any] | None = None

    def _call_inherited(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(self._owner, instance), self._name)(*args, **kwargs)

    def put(self, entry: Callable[..., Any]) -> None:
        """Sends calls to `entry`."""
        if self._send_to is not None:
            self._send_to(entry)
            return
        shown = self._own if self._own is not None else getattr(self._owner, self._name)

        @functools.wraps(shown)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return entry(*args, **kwargs)

        def send_to(other: Callable[..., Any]) -> None:
            nonlocal entry
            entry = other

        self._send_to = send_to
        self._replacement = replacement
        setattr(self._owner, self._name, replacement)

    def restore(self) -> None:
        """Gives the class its own attribute back, unless somebody else has replaced it since."""
        if self._send_to is not None:
            self._send_to(self.original)
        if self._owner.__dict__.get(self._name) is not self._replacement:
            return
        if self._own is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._own)


class Tap:
    """One callable with those who build around it; each is given the next one to call, and gives its own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._builders: list[Builder] = []

    def add(self, builder: Builder) -> None:
        """Puts one more around those already there."""
        self._builders.append(builder)
        self._compose()

    def remove(self, builder: Builder) -> bool:
        """Takes one out; True when it was the last and the original is back in its place."""
        self._builders.remove(builder)
        if self._builders:
            self._compose()
        else:
            self._place.restore()
        return not self._builders

    def silence(self) -> None:
        """Lets calls through unheard, in a process that was forked from a watched one."""
        self._place.put(self._place.original)

    def _compose(self) -> None:
        call = self._place.original
        for builder in self._builders:
            call = builder(call)
        self._place.put(call)


def _build_layer(listener: Listener) -> Builder:
    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        def layer(*args: Any, **kwargs: Any) -> Any:
            return listener(call, args, kwargs)

        return layer

    return build


_taps: dict[object, Tap] = {}
_lock = threading.RLock()


class TapSet:
    """The taps of one observer, taken off together.

    A listener is given the callable, the arguments and the keywords of each call. What is called in every step
    goes without that layer: a builder is given the callable once, and returns what is called in its place.
    """

    def __init__(self) -> None:
        self._mine: dict[object, list[Builder]] = {}

    def on_function(self, function: Callable[..., Any], listener: Listener) -> bool:
        """Listens to a Python function; False when it has a closure or is no Python function."""
        return self.wrap_function(function, _build_layer(listener))

    def wrap_function(self, function: Callable[..., Any], builder: Builder) -> bool:
        """Lets calls of a Python function go to what is built around it; False as for `on_function`."""
        plain = inspect.unwrap(function)
        if not isinstance(plain, types.FunctionType) or plain.__code__.co_freevars:
            return False
        self._add(plain, builder, lambda: _build_place(plain, plain.__code__))
        return True

    def on_method(self, owner: type, name: str, listener: Listener) -> None:
        """Listens to a method, as looked up on one class."""
        self.wrap_method(owner, name, _build_layer(listener))

    def wrap_method(self, owner: type, name: str, builder: Builder) -> None:
        """Lets calls of a method, as looked up on one class, go to what is built around it."""
        self._add((owner, name), builder, lambda: MethodPlace(owner, name))

    def is_on(self, key: object) -> bool:
        """Whether this observer already listens to a function, or to `(class, name)`."""
        return (inspect.unwrap(key) if callable(key) else key) in self._mine

    def remove(self, key: object) -> None:
        """Stops listening at one place."""
        with _lock:
            for builder in self._mine.pop(key, ()):
                if _taps[key].remove(builder):
                    del _taps[key]

    def remove_all(self) -> None:
        """Stops listening everywhere."""
        for key in list(self._mine):
            self.remove(key)

    def _add(self, key: object, builder: Builder, build: Callable[[], Place]) -> None:
        with _lock:
            tap = _taps.get(key)
            if tap is None:
                tap = _taps[key] = Tap(build())
            tap.add(builder)
            self._mine.setdefault(key, []).append(builder)


def count_taps() -> int:
    """How many callables are replaced at the moment, by all observers of the process."""
    return len(_taps)


def _silence_after_fork() -> None:
    for tap in _taps.values():
        tap.silence()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cast("Any", _silence_after_fork))
