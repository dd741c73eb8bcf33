"""Runs a training that is a command, in a child process with a process group of its own."""

from __future__ import annotations

import collections
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from harness import clock
from harness.errors import ObservationError, UsageError
from harness.record.metrics_files import stamp_metrics_files
from harness.record.recording import read_record
from harness.watch.bootstrap import watch_environment
from harness.watch.contention import read_waiting_s
from harness.watch.cores import pinned
from harness.watch.launch import (
    Cost,
    RunOptions,
    build_run,
    build_unfinished_run,
    find_logged,
    tell_progress,
)
from harness.watch.memory import read_peak_memory_bytes
from harness.watch.processes import GRACE_S, ProcessTree, Terminated, raising_terminated
from harness.watch.torchrun import build_torchrun
from harness.watch.watchdog import guarded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from harness.record.observation import RunObservation
    from harness.record.run import TrainingRun

TAIL_LINES = 30
MAX_LINE = 1000
POLL_S = 0.05
EXCEPTION = re.compile(r"(\[rank\d+\]: ?)?[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b")
LAUNCHERS_ERROR = "ChildFailedError"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class ChildOutcome:
    """How a child process ended: exit code (negative for a signal), last output lines, and cost.

    `last_words` is the most telling of the lines; `was_passed_on`, whether all went on to our own output, where
    they can be read.
    """

    exit_code: int
    output_tail: str
    cost: Cost
    timed_out: bool
    last_words: str = ""
    was_passed_on: bool = True


def run_command(
    command: Sequence[str | os.PathLike[str]],
    *,
    options: RunOptions,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float | None = None,
    ranks: int | None = None,
    cores: AbstractSet[int] = frozenset(),
) -> TrainingRun:
    """Runs a training command and returns the record of what it did.

    Args:
        command: Program and arguments; no shell is involved.
        options: Where to look for its history. `threads` is handed on as OMP_NUM_THREADS and
            MKL_NUM_THREADS unless the environment sets them; a seed is the command's own business.
        env: Variables added to this process's environment.
        cwd: Working directory; the caller's by default.
        timeout_s: Seconds after which the child's whole process group is ended; None waits for ever.
        ranks: Processes to launch the command in with torchrun on this machine; None starts it as it is.
        cores: Processors that it and its children are kept on; none leaves the choice to the system.

    Raises:
        UsageError: The command is empty or no list of texts, or its program does not exist.
        ObservationError: It exited non-zero, ran past its limit, or left no history with a loss; carries the
            tail of its output.
    """
    words = _read_words(command)
    if ranks is not None:
        words = build_torchrun(words, ranks)
    before = stamp_metrics_files(options.run_dir, options.metrics)
    environment = _build_environment(env, options.threads)
    with tempfile.TemporaryDirectory(prefix="harness-watch-") as folder:
        if options.watch is not None:
            environment |= watch_environment(Path(folder), options.watch, environment)
        outcome = run_child(words, env=environment, cwd=cwd, timeout_s=timeout_s, cores=cores)
        seen = read_record(Path(folder))
    if outcome.timed_out or outcome.exit_code != 0:
        error = _explain_failed(shlex.join(words), outcome, seen, timeout_s)
        error.run = build_unfinished_run(options, seen, outcome.cost, command=tuple(words))
        raise error
    is_watched = any(observation.steps for observation in seen)
    logged = find_logged(options, recorded=[], result=None, before=before, is_watched=is_watched)
    cost = replace(outcome.cost, peak_memory_bytes=_find_peak(options.device, seen, outcome.cost))
    return build_run(options, logged, seen, cost, command=tuple(words))


def _find_peak(device: str, seen: Sequence[RunObservation], cost: Cost) -> int | None:
    """The highest peak of a process: allocated bytes on CUDA, else its resident set."""
    if device == "cuda":
        return max((run.cuda_peak_bytes for run in seen if run.cuda_peak_bytes), default=None)
    return max(
        (run.peak_memory_bytes for run in seen if run.peak_memory_bytes), default=cost.peak_memory_bytes
    )


def _explain_failed(
    shown: str, outcome: ChildOutcome, seen: Sequence[RunObservation], timeout_s: float | None
) -> ObservationError:
    if outcome.timed_out:
        message = (
            f"{shown} was still running after {timeout_s:g} s{tell_progress(seen)} and was ended with its "
            f"process group.\n{_tell_output(outcome)}\n"
            "Next: find where it hangs, or raise the limit (wall_clock_s, timeout_s or --timeout)."
        )
    else:
        message = (
            f"{shown} {explain_exit(outcome.exit_code)} after {outcome.cost.wall_clock_s:.1f} s"
            f"{tell_progress(seen)}.\n{_tell_output(outcome)}\n"
            "Next: run the command by hand; the training could not be judged."
        )
    return ObservationError(message, seen=seen, output=outcome.output_tail if outcome.was_passed_on else "")


def _tell_output(outcome: ChildOutcome) -> str:
    """The most telling line, where all have been passed on and can be read; else the whole tail."""
    if not outcome.output_tail:
        return "It printed nothing."
    if not outcome.was_passed_on:
        return outcome.output_tail
    return f"Its last words: {outcome.last_words}"


def find_last_words(output: Sequence[str], errors: Sequence[str]) -> str:
    """The line of the last exception, torchrun's own left out; else the last line of the errors, or of all."""
    lines = [line.strip() for line in errors or output if line.strip()]
    raised = [line for line in lines if EXCEPTION.match(line) and LAUNCHERS_ERROR not in line]
    return (raised or lines or [""])[-1]


def run_child(
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    timeout_s: float | None,
    cores: AbstractSet[int] = frozenset(),
) -> ChildOutcome:
    """Runs a child to its end, passes its output on, and leaves no process of its group behind.

    Also when this process is interrupted or told to end: whatever ends the wait ends the group, and what the
    child started in groups of their own, as torchrun does its ranks.

    Raises:
        UsageError: The program can't be started.
        Terminated: This process got a SIGTERM, in its main thread and without a handler of its own for it.
    """
    with raising_terminated():
        return _run_to_end(words, env, cwd, timeout_s, cores)


def _run_to_end(
    words: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    timeout_s: float | None,
    cores: AbstractSet[int],
) -> ChildOutcome:
    start_s = clock.monotonic_s()
    try:
        with pinned(cores):
            child = subprocess.Popen(
                words,
                env=dict(env),
                cwd=cwd,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{shlex.join(words)} can't be started: {error}.\n"
            "Next: check the program's name and that it is installed."
        ) from error
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    errors: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    lost = threading.Event()
    pumps = [
        _start_pump(child.stdout, sys.stdout, [tail], lost),
        _start_pump(child.stderr, sys.stderr, [tail, errors], lost),
    ]
    tree = ProcessTree(child)
    peak_memory_bytes: int | None = None
    waiting_s: float | None = None
    has_ended = False
    with guarded(tree.root):
        try:
            while not (has_ended := tree.wait(POLL_S)):
                peak_memory_bytes = read_peak_memory_bytes(child.pid) or peak_memory_bytes
                waiting_s = read_waiting_s(child.pid) or waiting_s
                if timeout_s is not None and clock.monotonic_s() - start_s > timeout_s:
                    break
        except Terminated:
            raise
        except KeyboardInterrupt:
            # The child is in a session of its own: Ctrl-C reaches it only through us.
            tree.send(signal.SIGINT)
            raise
        finally:
            wall_clock_s = clock.monotonic_s() - start_s
            tree.end()
            for pump in pumps:
                pump.join(GRACE_S)
    return ChildOutcome(
        exit_code=tree.exit_code,
        output_tail="\n".join(tail).rstrip(),
        cost=Cost(wall_clock_s, peak_memory_bytes, waiting_s, start_s),
        timed_out=not has_ended,
        last_words=find_last_words(tail, errors),
        was_passed_on=not lost.is_set(),
    )


def _start_pump(
    source: IO[bytes] | None, sink: TextIO, tails: Sequence[collections.deque[str]], lost: threading.Event
) -> threading.Thread:
    def pump() -> None:
        assert source is not None  # noqa: S101  both pipes were asked for
        with source:
            for line in source:
                text = line.decode(errors="replace")
                # Of a progress bar, which returns to the start of its line again and again, the last state.
                for tail in tails:
                    tail.append(text.rstrip().rpartition("\r")[2][-MAX_LINE:])
                # Whatever is wrong with our own output: the child must not block on a full pipe.
                try:
                    sink.write(text)
                    sink.flush()
                except (OSError, ValueError):
                    lost.set()

    thread = threading.Thread(target=pump, daemon=True, name="harness-output")
    thread.start()
    return thread


def _read_words(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    given: object = command
    words = list(given) if isinstance(given, Sequence) and not isinstance(given, (str, bytes)) else []
    if not words or not all(isinstance(word, (str, os.PathLike)) for word in words):
        raise UsageError(
            f"the command {command!r} is not a list of texts and paths.\n"
            "Next: smoke_training.command([sys.executable, 'train.py', '--steps', '30'])."
        )
    return [os.fsdecode(word) for word in words]


def _build_environment(extra: Mapping[str, str] | None, threads: int | None) -> dict[str, str]:
    environment: dict[str, Any] = {**os.environ, **(extra or {})}
    wrong = {name: value for name, value in environment.items() if not isinstance(value, str)}
    if wrong:
        raise UsageError(f"env={wrong!r} has values that are not text.\nNext: env={{'SEED': '3'}}.")
    if threads is not None:
        for variable in THREAD_VARIABLES:
            environment.setdefault(variable, str(threads))
    return environment


def explain_exit(code: int) -> str:
    """How a child ended, in words to put behind its name."""
    if code >= 0:
        return f"exited with code {code}"
    names = {member.value: member.name for member in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"
