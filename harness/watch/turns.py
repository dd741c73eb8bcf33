"""Makes a watched program take turns with another one: after a step it waits until its turn comes again.

The program's side of a conversation over a socket, one line each way: it says `at 13 2041.5` when its thirteenth
step has ended, with the time, and hears `run 25`, to go on to its twenty-fifth, or `stop`. Once it was told to stop
it says `over` when its record is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import TYPE_CHECKING

import torch

from harness import clock
from harness.watch.bootstrap import LOADED_FILES

if TYPE_CHECKING:
    from pathlib import Path

STOP = "stop"
OVER = "over"
STOP_REASON = "ended from outside: enough steps have been compared"
NEVER = 2**62
MAX_REPLY = 256


class TurnTaker:
    """Speaks for this process; connects when its first step has ended, so that only what trains takes turns.

    When nobody listens any more, the program goes on by itself.

    Args:
        address: Path of the socket that gives the turns.
        folder: Where the files of the modules that this process loaded are told.
    """

    def __init__(self, address: Path, folder: Path) -> None:
        self._address = address
        self._folder = folder
        self._process = os.getpid()
        self._socket: socket.socket | None = None
        self._replies = b""
        self._until = 1
        self._is_stopped = False

    def wait(self, num_steps: int) -> bool:
        """Returns when the program may go on; True when it is to end instead."""
        if num_steps < self._until or os.getpid() != self._process:
            return False
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # What this program still has under way there would run in the other one's turn.
            torch.cuda.synchronize()
        try:
            words = self._ask(f"at {num_steps} {clock.monotonic_s()!r}\n").split()
        except OSError:
            words = []
        self._until = int(words[1]) if len(words) > 1 else NEVER
        self._is_stopped = words == [STOP]
        if self._is_stopped:
            # Now, as the program may take longer for its end than it is given.
            self._until = NEVER
            self._tell_files()
        return self._is_stopped

    def close(self) -> None:
        """Ends the conversation once the record is complete, and tells which files were loaded."""
        if os.getpid() != self._process:
            return
        self._until = NEVER
        if not self._is_stopped:
            self._tell_files()
        if self._socket is not None:
            # A program that comes to its own end is waited for: how it ends tells whether it failed.
            if self._is_stopped:
                with contextlib.suppress(OSError):
                    self._socket.sendall(f"{OVER}\n".encode())
            self._socket.close()
            self._socket = None

    def _tell_files(self) -> None:
        with contextlib.suppress(OSError):
            path = self._folder / f"{LOADED_FILES}{self._process}.json"
            path.write_text(json.dumps(list_loaded_files()), encoding="utf-8")

    def _ask(self, text: str) -> str:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(str(self._address))
        self._socket.sendall(text.encode())
        while b"\n" not in self._replies:
            received = self._socket.recv(MAX_REPLY)
            if not received:
                return ""
            self._replies += received
        line, _, self._replies = self._replies.partition(b"\n")
        return line.decode()


def list_loaded_files() -> dict[str, str]:
    """The file of every module that this process has loaded, by the module's name."""
    return {
        name: os.path.realpath(file)
        for name, module in list(sys.modules.items())
        if isinstance(file := getattr(module, "__file__", None), str)
    }
