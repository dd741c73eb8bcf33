"""One of two programs that take turns: a process that stands still until it is let run to the end of a step."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from harness import clock
from harness.errors import ObservationError, UsageError
from harness.record.recording import read_record
from harness.watch.bootstrap import LOADED_FILES, watch_environment
from harness.watch.child import explain_exit, find_last_words
from harness.watch.contention import read_waiting_s
from harness.watch.memory import read_peak_memory_bytes
from harness.watch.processes import ProcessTree, find_descendants
from harness.watch.turns import OVER, STOP
from harness.watch.watchdog import guarded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from harness.record.observation import RunObservation
    from harness.watch.options import ObserverOptions

POLL_S = 0.05
ENDING_S = 10.0
"""Time that a program which was told to end may take for it before it is made to."""
TAIL_LINES, TAIL_BYTES = 30, 20_000
MAX_MESSAGE = 256


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two programs: what it is called, and how it is started."""

    name: str
    words: Sequence[str]
    cwd: Path
    env: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} ({shlex.join(self.words)})"


@dataclass(frozen=True, slots=True)
class ArmRecord:
    """What one process of a program showed.

    Attributes:
        observation: Its steps and all else that was watched. Times leave out what others held of the processor.
        first_step_s: Seconds from the start of the process to the end of its first step.
        waiting_s: Seconds it was ready to run and had no processor; None where the system does not tell.
        peak_memory_bytes: Peak resident set up to the last turn; None where the system does not tell.
        loaded_files: The files of the Python modules it loaded, by the module's name.
        ended_itself: Whether it came to its own end before it was told to.
    """

    observation: RunObservation
    first_step_s: float
    waiting_s: float | None
    peak_memory_bytes: int | None
    loaded_files: dict[str, str]
    ended_itself: bool


class Arm:
    """A process of one program.

    Between its turns the whole process group is stopped, so that not even a worker of a DataLoader runs ahead, or
    takes time from the other program.

    Args:
        program: What to run.
        folder: An empty folder for its record and its output.
        watch: How it is watched.
        timeout_s: Seconds without the end of a step after which it counts as hanging.

    Attributes:
        num_steps: Steps that have ended.
        turn_s: Seconds that the last turn took.
    """

    def __init__(self, program: Program, folder: Path, watch: ObserverOptions, *, timeout_s: float) -> None:
        self.program = program
        self.num_steps = 0
        self.turn_s = 0.0
        self._folder = folder
        self._watch = watch
        self._timeout_s = timeout_s
        self._exits = contextlib.ExitStack()
        self._connection: socket.socket | None = None
        self._received = b""
        self._first_step_s = 0.0
        self._waiting_s: float | None = None
        self._peak_memory_bytes: int | None = None
        self._ended_itself = False

    def __enter__(self) -> Self:
        """Starts the process; it stops after its first step."""
        address = self._folder / "turns"
        self._listener = self._exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._listener.bind(str(address))
        self._listener.listen()
        self._output = self._exits.enter_context((self._folder / "output.txt").open("w+b"))
        env = dict(self.program.env)
        env |= watch_environment(self._folder / "record", self._watch, env, turns=address)
        self._started_s = clock.monotonic_s()
        try:
            child = subprocess.Popen(
                self.program.words,
                env=env,
                cwd=self.program.cwd,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._exits.close()
            raise UsageError(
                f"{self.program} can't be started: {error}.\n"
                "Next: check the program's name and that it is installed."
            ) from error
        self._pid = child.pid
        self._tree = ProcessTree(child)
        self._exits.callback(self._end)
        self._exits.enter_context(guarded(self._tree.root))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def run_until(self, step: int) -> bool:
        """Lets the program run until a step has ended; False when it came to its own end before.

        Raises:
            ObservationError: It crashed, or no step ended within the time.
        """
        start_s = clock.monotonic_s()
        if self._connection is not None:
            self._signal(signal.SIGCONT)
            self._say(f"run {step}")
        while (line := self._hear()) is None:
            if self._tree.wait(0):
                self._refuse_failure()
                self._ended_itself = True
                return False
            if clock.monotonic_s() - start_s > self._timeout_s:
                raise ObservationError(self._explain_hang())
        _, number, at_s = line.split()
        if not self.num_steps:
            self._first_step_s = float(at_s) - self._started_s
        self.num_steps, self.turn_s = int(number), float(at_s) - start_s
        self._signal(signal.SIGSTOP)
        return True

    def pin(self, cores: AbstractSet[int]) -> None:
        """Keeps all of its threads on some processors from now on, and what they start with them."""
        root = self._tree.root
        processes = [self._pid, *(process.pid for process in find_descendants(root))] if root else [self._pid]
        for process in processes:
            for thread in Path(f"/proc/{process}/task").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(thread.name), cores)

    def tell_to_end(self) -> None:
        """Has the program end where it stands."""
        if not self._ended_itself:
            self._waiting_s = read_waiting_s(self._pid)
            self._peak_memory_bytes = read_peak_memory_bytes(self._pid)
            self._signal(signal.SIGCONT)
            self._say(STOP)

    def finish(self) -> ArmRecord:
        """Waits until the program has said all, ends it, and returns what it showed.

        Raises:
            ObservationError: It left no record of a step.
        """
        start_s = clock.monotonic_s()
        while not self._tree.wait(0) and clock.monotonic_s() - start_s < ENDING_S:
            if self._hear() == OVER:
                # What is left of it is an interpreter that takes itself apart, for a second and more.
                self._tree.send(signal.SIGKILL)
                break
        seen = read_record(self._folder / "record")
        if not seen or not seen[0].steps:
            raise ObservationError(
                f"no optimizer step was seen in {self.program}.\n{self._tell_output()}\n"
                f"Next: harness check -- {shlex.join(self.program.words)}"
            )
        return ArmRecord(
            observation=seen[0],
            first_step_s=self._first_step_s,
            waiting_s=self._waiting_s,
            peak_memory_bytes=self._peak_memory_bytes or seen[0].peak_memory_bytes,
            loaded_files=self._read_loaded_files(seen[0].process_id),
            ended_itself=self._ended_itself,
        )

    def _read_loaded_files(self, process: int) -> dict[str, str]:
        try:
            text = (self._folder / "record" / f"{LOADED_FILES}{process}.json").read_text(encoding="utf-8")
            found: dict[str, str] = json.loads(text)
        except (OSError, ValueError):
            return {}
        return found

    def _hear(self) -> str | None:
        """The next line the program said; None when it said nothing for a moment."""
        if b"\n" not in self._received:
            sources = [self._listener, *([self._connection] if self._connection else [])]
            ready, _, _ = select.select(sources, [], [], POLL_S)
            if self._listener in ready:
                self._accept()
            elif self._connection is not None and ready:
                received = b""
                with contextlib.suppress(ConnectionError):
                    received = self._connection.recv(MAX_MESSAGE)
                self._received += received
                if not received:
                    # It is about to end; what ends it is waited for, and not asked again and again.
                    self._tree.wait(POLL_S)
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return None
        self._received = rest
        return line.decode()

    def _accept(self) -> None:
        if self._connection is not None:
            raise ObservationError(
                f"two processes of {self.program} train; only programs that train in one process can take turns.\n"
                "Next: compare a run on one rank."
            )
        self._connection = self._exits.enter_context(self._listener.accept()[0])

    def _say(self, text: str) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.sendall(f"{text}\n".encode())

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _end(self) -> None:
        # A process that stands still could not act on the request to end.
        self._signal(signal.SIGCONT)
        self._tree.end()

    def _refuse_failure(self) -> None:
        code = self._tree.exit_code
        if code == 0 and self.num_steps:
            return
        if not code:
            raise ObservationError(
                f"{self.program} ended well, but trained no step that could be seen.\n{self._tell_output()}\n"
                f"Next: harness check -- {shlex.join(self.program.words)}"
            )
        after = f" after {self.num_steps} steps" if self.num_steps else ""
        raise ObservationError(
            f"{self.program} {explain_exit(code)}{after}.\n{self._tell_output()}\n"
            f"Next: run {self.program.name} by hand; in a fresh checkout (git worktree add) files that git ignores "
            "(data, builds) are missing: --prepare CMD can bring them."
        )

    def _explain_hang(self) -> str:
        where = f"after step {self.num_steps}" if self.num_steps else "before the end of its first step"
        return (
            f"{self.program} ended no step for {self._timeout_s:g} s, {where}, and was ended.\n"
            f"{self._tell_output()}\nNext: find where it hangs, or raise --timeout."
        )

    def _tell_output(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - TAIL_BYTES))
        lines = self._output.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        told = [line.rstrip().rpartition("\r")[2] for line in lines]
        if not any(told):
            return "It printed nothing."
        return "\n".join([*told, f"Its last words: {find_last_words(told, told)}"])
