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


class Place(Protocol):
    """Where a callable lives: gives the original, puts an entry in front of it, and takes it away."""

    original: Callable[..., Any]

    def put(self, entry: Callable[..., Any]) -> None:
        """Sends calls to `entry`."""

    def restore(self) -> None:
        """Sends calls to the original again."""


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

    def put(self, entry: Callable[..., Any]) -> None:
        """Sends calls to `entry`, wherever the function was imported to."""
        constants = tuple(entry if value == ENTRY else value for value in _call_entry.__code__.co_consts)
        self._redirected = _call_entry.__code__.replace(
            co_consts=constants,
            co_name=self._code.co_name,
            co_qualname=self._code.co_qualname,
            co_filename=self._code.co_filename,
            co_firstlineno=self._code.co_firstlineno,
        )
        vars(self._function).setdefault("__signature__", self._signature)
        self._function.__code__ = self._redirected

    def restore(self) -> None:
        """Gives the function its own code back, unless somebody else has exchanged it since."""
        if vars(self._function).get("__signature__") is self._signature:
            del vars(self._function)["__signature__"]
        if self._function.__code__ is self._redirected:
            self._function.__code__ = self._code


ENTRY = "harness: where calls go"


def _call_entry(*args: Any, **kwargs: Any) -> Any:
    entry: Any = "harness: where calls go"  # the constant that FunctionPlace.put replaces
    return entry(*args, **kwargs)


class MethodPlace:
    """An attribute of a class; an inherited one is overridden for the time."""

    def __init__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name
        self._own = owner.__dict__.get(name)
        self.original = self._own if self._own is not None else self._call_inherited
        self._entry: list[Callable[..., Any]] = []
        self._replacement: Callable[..., Any] | None = None

    def _call_inherited(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(self._owner, instance), self._name)(*args, **kwargs)

    def put(self, entry: Callable[..., Any]) -> None:
        """Sends calls to `entry`."""
        self._entry[:] = [entry]
        if self._replacement is not None:
            return
        shown = self._own if self._own is not None else getattr(self._owner, self._name)
        current = self._entry

        @functools.wraps(shown)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return current[0](*args, **kwargs)

        self._replacement = replacement
        setattr(self._owner, self._name, replacement)

    def restore(self) -> None:
        """Gives the class its own attribute back, unless somebody else has replaced it since."""
        self._entry[:] = [self.original]
        if self._owner.__dict__.get(self._name) is not self._replacement:
            return
        if self._own is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._own)


class Tap:
    """One callable with its listeners; each is given the next one to call, and the arguments."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Puts a listener around those already there."""
        self._listeners.append(listener)
        self._compose()

    def remove(self, listener: Listener) -> bool:
        """Takes a listener out; True when it was the last and the original is back in its place."""
        self._listeners.remove(listener)
        if self._listeners:
            self._compose()
        else:
            self._place.restore()
        return not self._listeners

    def silence(self) -> None:
        """Lets calls through unheard, in a process that was forked from a watched one."""
        self._place.put(self._place.original)

    def _compose(self) -> None:
        call = self._place.original
        for listener in self._listeners:
            call = _put_around(listener, call)
        self._place.put(call)


def _put_around(listener: Listener, call: Callable[..., Any]) -> Callable[..., Any]:
    def layer(*args: Any, **kwargs: Any) -> Any:
        return listener(call, args, kwargs)

    return layer


_taps: dict[object, Tap] = {}
_lock = threading.RLock()


class TapSet:
    """The taps of one observer, taken off together."""

    def __init__(self) -> None:
        self._mine: list[tuple[object, Listener]] = []

    def on_function(self, function: Callable[..., Any], listener: Listener) -> bool:
        """Listens to a Python function; False when it has a closure or is no Python function."""
        plain = inspect.unwrap(function)
        if not isinstance(plain, types.FunctionType) or plain.__code__.co_freevars:
            return False
        self._add(plain, listener, lambda: FunctionPlace(plain))
        return True

    def on_method(self, owner: type, name: str, listener: Listener) -> None:
        """Listens to a method, as looked up on one class."""
        self._add((owner, name), listener, lambda: MethodPlace(owner, name))

    def is_on(self, key: object) -> bool:
        """Whether this observer already listens to a function, or to `(class, name)`."""
        place = inspect.unwrap(key) if callable(key) else key
        return any(place == mine for mine, _ in self._mine)

    def remove(self, key: object) -> None:
        """Stops listening at one place."""
        with _lock:
            for entry in [entry for entry in self._mine if entry[0] == key]:
                self._mine.remove(entry)
                if _taps[entry[0]].remove(entry[1]):
                    del _taps[entry[0]]

    def remove_all(self) -> None:
        """Stops listening everywhere."""
        for key in dict.fromkeys(key for key, _ in self._mine):
            self.remove(key)

    def _add(self, key: object, listener: Listener, build: Callable[[], Place]) -> None:
        with _lock:
            tap = _taps.get(key)
            if tap is None:
                tap = _taps[key] = Tap(build())
            tap.add(listener)
            self._mine.append((key, listener))


def count_taps() -> int:
    """How many callables are replaced at the moment, by all observers of the process."""
    return len(_taps)


def _silence_after_fork() -> None:
    for tap in _taps.values():
        tap.silence()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cast("Any", _silence_after_fork))
