"""Makes a watched program take turns with another one: after a step it waits until its turn comes again.

The program's side of a conversation over a socket, one line each way: it says `at 13` after its thirteenth step,
and hears `run 25`, to go on to its twenty-fifth, or `stop`.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path

STOP = "stop"
STOP_REASON = "ended from outside: the other program has nothing to compare with what follows"
NEVER = 2**62


class TurnTaker:
    """Speaks for this process; connects when its first step has ended, so that only what trains takes turns.

    When nobody listens any more, the program goes on by itself.

    Args:
        address: Path of the socket that gives the turns.
    """

    def __init__(self, address: Path) -> None:
        self._address = address
        self._process = os.getpid()
        self._socket: socket.socket | None = None
        self._replies = b""
        self._until = 1

    def wait(self, num_steps: int) -> bool:
        """Returns when the program may go on; True when it is to end instead."""
        if num_steps < self._until or os.getpid() != self._process:
            return False
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # What this program still has under way there would run in the other one's turn.
            torch.cuda.synchronize()
        try:
            words = self._ask(f"at {num_steps}\n").split()
        except OSError:
            words = []
        self._until = int(words[1]) if len(words) > 1 else NEVER
        return words == [STOP]

    def close(self) -> None:
        """Ends the conversation."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _ask(self, text: str) -> str:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.connect(str(self._address))
        self._socket.sendall(text.encode())
        while b"\n" not in self._replies:
            received = self._socket.recv(256)
            if not received:
                return ""
            self._replies += received
        line, _, self._replies = self._replies.partition(b"\n")
        return line.decode()
