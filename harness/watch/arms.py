"""Runs two training programs that take turns on one core: block by block, each standing still meanwhile."""

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
from typing import TYPE_CHECKING, Self

from harness import clock
from harness.errors import ObservationError, UsageError
from harness.record.recording import read_record
from harness.watch.bootstrap import LOADED_FILES, watch_environment
from harness.watch.child import explain_exit, find_last_words
from harness.watch.contention import read_waiting_s
from harness.watch.processes import ProcessTree, raising_terminated
from harness.watch.turns import STOP
from harness.watch.watchdog import guarded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from harness.record.observation import RunObservation
    from harness.watch.options import ObserverOptions

POLL_S = 0.05
ENDING_S = 30.0
"""Time that a program which was told to end may take for it before it is made to."""
TAIL_LINES, TAIL_BYTES = 30, 20_000


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two programs: what it is called, and how it is started."""

    name: str
    words: Sequence[str]
    cwd: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ArmRecord:
    """What one process of a program showed.

    Attributes:
        observation: Its steps and all else that was watched.
        first_step_s: Seconds from the start of the process to the end of its first step, alone on the core.
        waiting_s: Seconds it was ready to run and had no processor; None where the system does not tell.
        loaded_files: The files of the Python modules it loaded, by the module's name.
        ended_itself: Whether it came to its own end before it was told to.
    """

    observation: RunObservation
    first_step_s: float
    waiting_s: float | None
    loaded_files: dict[str, str]
    ended_itself: bool


class Arm:
    """A process of one program that stands still until it is let run, up to the end of a given step.

    Between its turns the whole process group is stopped, so that not even a worker of a DataLoader runs ahead or
    takes time from the other program.

    Args:
        program: What to run.
        folder: An empty folder for its record and its output.
        watch: How it is watched.
        core: Number of the processor it is kept on; None leaves the choice to the system.
        timeout_s: Seconds without the end of a step after which it counts as hanging.
    """

    def __init__(
        self, program: Program, folder: Path, watch: ObserverOptions, *, core: int | None, timeout_s: float
    ) -> None:
        self.program = program
        self._folder = folder
        self._timeout_s = timeout_s
        self._exits = contextlib.ExitStack()
        self._listener = self._exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._connection: socket.socket | None = None
        self._received = b""
        self._watch = watch
        self._core = core
        self._first_step_s = 0.0
        self._waiting_s: float | None = None
        self._is_told_to_end = False
        self.num_steps = 0

    def __enter__(self) -> Self:
        address = self._folder / "turns"
        self._listener.bind(str(address))
        self._listener.listen()
        self._output = self._exits.enter_context((self._folder / "output.txt").open("w+b"))
        record = self._folder / "record"
        env = dict(self.program.env)
        env |= watch_environment(record, self._watch, env, turns=address)
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
                f"{self._name_command()} can't be started: {error}.\n"
                "Next: check the program's name and that it is installed."
            ) from error
        if self._core is not None:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(child.pid, {self._core})
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
        self._resume()
        if self._connection is not None:
            self._say(f"run {step}")
        end_s = clock.monotonic_s() + self._timeout_s
        while (line := self._hear()) is None:
            if self._tree.wait(0):
                self._refuse_failure()
                return False
            if clock.monotonic_s() > end_s:
                raise ObservationError(self._explain_hang())
        if not self.num_steps:
            self._first_step_s = clock.monotonic_s() - self._started_s
        self.num_steps = int(line.split()[1])
        self._pause()
        return True

    def finish(self) -> ArmRecord:
        """Has the program end, and returns what it showed.

        Raises:
            ObservationError: It crashed, or left no record of a step.
        """
        has_ended = self._tree.wait(0)
        if not has_ended:
            self._waiting_s = read_waiting_s(self._pid)
            self._is_told_to_end = True
            self._resume()
            self._say(STOP)
            self._tree.wait(ENDING_S)
        seen = read_record(self._folder / "record")
        if has_ended:
            self._refuse_failure()
        if not seen or not seen[0].steps:
            raise ObservationError(
                f"no optimizer step was seen in {self._name_command()}.\n{self._tell_output()}\n"
                "Next: harness check -- " + shlex.join(self.program.words)
            )
        return ArmRecord(
            observation=seen[0],
            first_step_s=self._first_step_s,
            waiting_s=self._waiting_s,
            loaded_files=self._read_loaded_files(seen[0].process_id),
            ended_itself=has_ended,
        )

    def _read_loaded_files(self, process: int) -> dict[str, str]:
        path = self._folder / "record" / f"{LOADED_FILES}{process}.json"
        try:
            found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
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
            elif self._connection in ready and self._connection is not None:
                with contextlib.suppress(ConnectionError):
                    self._received += self._connection.recv(256)
                if not self._received:
                    # Closed: the process is about to end.
                    self._tree.wait(POLL_S)
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return None
        self._received = rest
        return line.decode()

    def _accept(self) -> None:
        if self._connection is not None:
            raise ObservationError(
                f"two processes of {self._name_command()} train; only programs that train in one can take turns.\n"
                "Next: compare a run of one process."
            )
        self._connection = self._exits.enter_context(self._listener.accept()[0])

    def _say(self, text: str) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.sendall(f"{text}\n".encode())

    def _pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def _resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _end(self) -> None:
        # A process that stands still could not act on the request to end.
        self._resume()
        self._tree.end()

    def _refuse_failure(self) -> None:
        code = self._tree.exit_code
        if code != 0:
            raise ObservationError(
                f"{self._name_command()} {explain_exit(code)} after {self.num_steps} steps.\n{self._tell_output()}\n"
                f"Next: run it by hand in {self.program.cwd}."
            )

    def _explain_hang(self) -> str:
        where = f"after step {self.num_steps}" if self.num_steps else "before its first step ended"
        return (
            f"{self._name_command()} did nothing for {self._timeout_s:g} s {where}, and was ended.\n"
            f"{self._tell_output()}\nNext: find where it hangs, or raise --timeout."
        )

    def _name_command(self) -> str:
        return f"{self.program.name} ({shlex.join(self.program.words)})"

    def _tell_output(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - TAIL_BYTES))
        lines = self._output.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        told = [line.rstrip().rpartition("\r")[2] for line in lines]
        if not any(told):
            return "It printed nothing."
        return "\n".join([*told, f"Its last words: {find_last_words(told, told)}"])


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One process of each program, and the blocks in which they took turns.

    Attributes:
        base: The base's process.
        head: The head's.
        blocks: Ranges of steps that both ran, one after the other, in the order of the steps.
    """

    base: ArmRecord
    head: ArmRecord
    blocks: list[range]


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """How long the turns are, and how many.

    Attributes:
        num_steps: Steps of a turn.
        num_blocks: Turns that each program gets.
        is_head_first: Which of the two begins; the order is then ABBA.
    """

    num_steps: int
    num_blocks: int
    is_head_first: bool = False


def run_pair(
    base: Program,
    head: Program,
    folder: Path,
    plan: TurnPlan,
    *,
    watch: ObserverOptions,
    timeout_s: float,
) -> PairRecord:
    """Starts a fresh process of both programs, has them take turns, ends them, and returns what they showed.

    Each is started alone and stopped after its first step. When one comes to its own end the other gets one
    turn more, so that it is known whether it has more steps.

    Args:
        base: The program as it was.
        head: The program as it is to be.
        folder: An empty folder.
        plan: The turns.
        watch: How both are watched.
        timeout_s: Seconds without the end of a step after which a program counts as hanging.

    Raises:
        ObservationError: One of them crashed, hung, or trained no step.
        UsageError: One of them can't be started.
    """
    core = choose_core()
    with raising_terminated(), contextlib.ExitStack() as exits:
        arms: list[Arm] = []
        for program in (head, base) if plan.is_head_first else (base, head):
            place = folder / program.name
            place.mkdir()
            arm = exits.enter_context(Arm(program, place, watch, core=core, timeout_s=timeout_s))
            arm.run_until(1)
            arms.append(arm)
        blocks = _take_turns(arms, plan)
        records = {arm.program.name: arm.finish() for arm in arms}
    return PairRecord(records[base.name], records[head.name], blocks)


def _take_turns(arms: Sequence[Arm], plan: TurnPlan) -> list[range]:
    blocks = []
    order = list(arms)
    for number in range(plan.num_blocks):
        block = range(1 + number * plan.num_steps, 1 + (number + 1) * plan.num_steps)
        are_there = [arm.run_until(block.stop) for arm in order]
        if not all(are_there):
            break
        blocks.append(block)
        order.reverse()
    return blocks


def choose_core() -> int | None:
    """The last processor that this process may use; None where the system does not let us choose."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
