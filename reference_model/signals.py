"""Asks a run to end when SIGINT or SIGTERM arrives, instead of dying in the middle of a step."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class StopRequest:
    """The signal that arrived, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Record the first SIGINT or SIGTERM; a second one acts as it did before.

    Outside of the main thread Python allows no handlers, and signals keep their effect.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is given
        request.signal = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield request
    finally:
        restore()
