"""A training command run in a child process."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import clock
from harness.errors import ObservationError, UsageError
from harness.watch.child import TAIL_LINES, find_last_words, run_command
from harness.watch.launch import RunOptions
from harness.watch.memory import read_peak_memory_bytes
from harness.watch.processes import Terminated

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

WRITE_METRICS = "open('metrics.csv', 'w').write('loss\\n2\\n1\\n')"


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., TrainingRun]:
    """Runs Python code in a child process that works in the run directory."""

    def run(code: str, *, threads: int | None = None, **arguments: Any) -> TrainingRun:
        options = RunOptions("train", tmp_path, threads=threads)
        return run_command([sys.executable, "-c", code], options=options, cwd=tmp_path, **arguments)

    return run


def ends(process: int, within_s: float = 5.0) -> bool:
    """Whether a process that was sent SIGKILL is gone, or a zombie, in a moment."""
    for _ in range(round(within_s / 0.01)):
        try:
            status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_command_is_a_run_with_its_cost(python: Callable[..., TrainingRun], tmp_path: Path) -> None:
    run = python(WRITE_METRICS)
    assert run.losses == [2.0, 1.0]
    assert run.source == f"metrics file {tmp_path / 'metrics.csv'}"
    assert run.command is not None
    assert run.command[0] == sys.executable
    assert run.wall_clock_s > 0


def test_the_peak_memory_of_a_command_is_the_childs(
    python: Callable[..., TrainingRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_release(process: int) -> int | None:
        peak = read_peak_memory_bytes(process)
        if (tmp_path / "filled").exists():
            (tmp_path / "go").touch()
        return peak

    monkeypatch.setattr("harness.watch.child.read_peak_memory_bytes", read_and_release)
    fill = "import os; filled = b'x' * 300_000_000; open('filled', 'w').close()"
    run = python(f"{fill}\nwhile not os.path.exists('go'): pass\n{WRITE_METRICS}")
    assert run.peak_memory_bytes is not None
    assert 300e6 < run.peak_memory_bytes < 400e6


def test_output_of_the_child_is_passed_on(
    python: Callable[..., TrainingRun], capsys: pytest.CaptureFixture[str]
) -> None:
    python(f"import sys; print('to out'); print('to err', file=sys.stderr); {WRITE_METRICS}")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("to out\n", "to err\n")


def test_the_environment_and_threads_are_handed_on(
    python: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    code = "import os; print(*map(os.environ.get, ['OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OWN']))"
    python(f"{code}; {WRITE_METRICS}", threads=2, env={"OWN": "x"})
    assert capsys.readouterr().out == "2 5 x\n"


def test_a_failing_command_tells_its_exit_code_and_last_lines(python: Callable[..., TrainingRun]) -> None:
    code = "import sys; [print('line', number) for number in range(100)]; sys.exit(3)"
    with pytest.raises(ObservationError, match="exited with code 3 after") as caught:
        python(code)
    lines = caught.value.output.splitlines()
    assert f"line {100 - TAIL_LINES}" in lines
    assert f"line {99 - TAIL_LINES}" not in lines
    # What was passed on is not told again.
    assert "Its last words: line 99\n" in str(caught.value)
    assert "line 98" not in str(caught.value)
    assert caught.value.whole.endswith("line 98\nline 99")


def test_output_that_could_not_be_passed_on_is_in_the_message(
    python: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(ObservationError, match="line 1\nline 2\n") as caught:
        python("print('line 1'); print('line 2'); exit(3)")
    assert caught.value.whole == str(caught.value)


def test_a_failing_command_that_prints_nothing_is_told_so(python: Callable[..., TrainingRun]) -> None:
    with pytest.raises(ObservationError, match="exited with code 3 .*\nIt printed nothing\\.\n"):
        python("exit(3)")


@pytest.mark.parametrize(
    ("output", "errors", "told"),
    [
        (["step 1"], [], "step 1"),
        (["step 1"], ["", "Killed"], "Killed"),
        (["ValueError: no"], ["ValueError: yes", "  see the manual", ""], "ValueError: yes"),
        (
            [],
            ["[rank1]: RuntimeError: boom", "torch.errors.ChildFailedError:", "======"],
            "[rank1]: RuntimeError: boom",
        ),
        ([""], [], ""),
    ],
)
def test_the_last_words_are_the_programs_own_exception(
    output: list[str], errors: list[str], told: str
) -> None:
    assert find_last_words([*output, *errors], errors) == told


def test_of_a_progress_bar_only_the_last_state_is_told(python: Callable[..., TrainingRun]) -> None:
    with pytest.raises(ObservationError) as caught:
        python("[print(f'{step} of 999', end='\\r') for step in range(1000)]; print('999 of 999'); 1 / 0")
    assert "999 of 999" in caught.value.output.splitlines()
    assert "500 of 999" not in caught.value.output
    assert "\nIts last words: ZeroDivisionError: division by zero\n" in str(caught.value)


def test_a_command_ended_by_a_signal_names_it(python: Callable[..., TrainingRun]) -> None:
    with pytest.raises(ObservationError, match="was ended by SIGKILL"):
        python("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ObservationError, match="was ended by signal 40"):
        python("import os; os.kill(os.getpid(), 40)")


def test_a_command_without_metrics_is_an_error(python: Callable[..., TrainingRun]) -> None:
    with pytest.raises(ObservationError, match="no optimizer step was seen in train"):
        python("pass")


def test_metrics_of_an_earlier_run_are_not_the_commands_own(python: Callable[..., TrainingRun]) -> None:
    python(WRITE_METRICS)
    with pytest.raises(ObservationError, match="no optimizer step was seen in train"):
        python("pass")


FORK_AND_HANG = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    with open("pids", "w") as file:
        file.write(f"{os.getpid()} {child}")
    os.rename("pids", "ready")
while True:
    time.sleep(60)
"""


def test_the_time_limit_ends_the_whole_process_group(
    python: Callable[..., TrainingRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.watch.processes.GRACE_S", 0.1)
    # The clock strikes the limit once both processes are there.
    monkeypatch.setattr(clock, "monotonic_s", lambda: 100.0 if (tmp_path / "ready").exists() else 0.0)
    with pytest.raises(
        ObservationError,
        match=r"was still running after 60 s .before any step was seen. and was ended with its process group",
    ):
        python(FORK_AND_HANG, timeout_s=60)
    processes = [int(word) for word in (tmp_path / "ready").read_text().split()]
    assert len(processes) == 2
    assert all(ends(process) for process in processes)


def test_a_process_left_behind_by_a_good_command_is_ended_too(
    python: Callable[..., TrainingRun], tmp_path: Path
) -> None:
    spawn = "import subprocess, sys; left = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    python(f"{spawn}; open('pid', 'w').write(str(left.pid)); {WRITE_METRICS}; import os; os._exit(0)")
    assert ends(int((tmp_path / "pid").read_text()))


def test_an_interrupt_of_the_wait_ends_the_group(
    python: Callable[..., TrainingRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.watch.processes.GRACE_S", 0.1)

    def interrupt_once_started() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt_once_started)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        python(FORK_AND_HANG, timeout_s=60)
    watcher.join()
    assert all(ends(int(word)) for word in (tmp_path / "ready").read_text().split())


RANK = """
import os, pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mine = pathlib.Path(os.environ["RANK"])
mine.write_text(str(os.getpid()))
mine.rename("ready" + os.environ["RANK"])
while True:
    signal.pause()
"""


@pytest.mark.slow
def test_the_time_limit_ends_ranks_that_ignore_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.watch.processes.GRACE_S", 0.1)
    ready = [tmp_path / "ready0", tmp_path / "ready1"]
    monkeypatch.setattr(clock, "monotonic_s", lambda: 100.0 * all(path.exists() for path in ready))
    (tmp_path / "train.py").write_text(RANK)
    with pytest.raises(ObservationError, match="was still running after 60 s"):
        run_command(
            [sys.executable, "train.py"],
            options=RunOptions("train", tmp_path),
            cwd=tmp_path,
            timeout_s=60,
            ranks=2,
        )
    assert all(ends(int(path.read_text())) for path in ready)


CANCELLED = """
import sys
import harness.watch.processes


def test_hangs(smoke_training, monkeypatch):
    monkeypatch.setattr(harness.watch.processes, "GRACE_S", 0.1)
    smoke_training.command([sys.executable, "hang.py"])
"""


def test_a_sigterm_to_pytest_ends_the_child_and_the_session(tmp_path: Path) -> None:
    (tmp_path / "hang.py").write_text(FORK_AND_HANG)
    (tmp_path / "test_it.py").write_text(CANCELLED)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as session:
        while not (tmp_path / "ready").exists():
            assert session.poll() is None
            time.sleep(0.01)
        session.send_signal(signal.SIGTERM)
        output, _ = session.communicate()
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    assert "Terminated: SIGTERM" in output
    assert all(ends(int(word)) for word in (tmp_path / "ready").read_text().split())


LEFT = """
import os, pathlib, sys, threading, time


def leave(ready):
    while not all(pathlib.Path(name).exists() for name in ready):
        time.sleep(0.01)
    {leave}


def test_hangs(smoke_training):
    # As pytest-timeout's method "thread" does it, or a system that has run out of memory.
    threading.Thread(target=leave, args=({ready},), daemon=True).start()
    smoke_training.command([sys.executable, "hang.py"], ranks={ranks})
"""


def leave_behind(folder: Path, program: str, **how: object) -> None:
    (folder / "hang.py").write_text(program)
    (folder / "test_it.py").write_text(LEFT.format(**how))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    session = subprocess.run(words, cwd=folder, capture_output=True, check=False)
    assert session.returncode in (3, -signal.SIGKILL)


def test_a_pytest_that_leaves_without_a_word_takes_the_command_with_it(tmp_path: Path) -> None:
    leave_behind(tmp_path, FORK_AND_HANG, leave="os._exit(3)", ready=["ready"], ranks=None)
    assert all(ends(int(word), within_s=15) for word in (tmp_path / "ready").read_text().split())


@pytest.mark.slow
def test_a_pytest_that_is_killed_takes_the_ranks_with_it(tmp_path: Path) -> None:
    leave_behind(tmp_path, RANK, leave="os.kill(os.getpid(), 9)", ready=["ready0", "ready1"], ranks=2)
    assert all(ends(int((tmp_path / name).read_text()), within_s=15) for name in ("ready0", "ready1"))


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_a_handler_of_the_programs_own_is_left_alone(
    python: Callable[..., TrainingRun], handler: Any
) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        python(f"import os, signal; os.kill(os.getppid(), signal.SIGTERM); {WRITE_METRICS}")
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_default_for_sigterm_is_back_after_a_command(python: Callable[..., TrainingRun]) -> None:
    with pytest.raises(Terminated):
        python(f"import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause(); {WRITE_METRICS}")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    python(WRITE_METRICS)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ([], "is not a list of texts and paths"),
        ("python train.py", "is not a list of texts and paths"),
        ([sys.executable, "-c", "pass", 3], "is not a list of texts and paths"),
        (["no-such-program", "x"], "no-such-program x can't be started: .*No such file"),
        ([sys.executable, "a\0b"], "can't be started: embedded null byte"),
    ],
)
def test_a_command_that_can_not_be_started_is_misuse(tmp_path: Path, command: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        run_command(command, options=RunOptions("train", tmp_path))
    assert "Next:" in str(caught.value)


def test_a_missing_working_directory_and_variables_that_are_no_text_are_misuse(
    python: Callable[..., TrainingRun], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="can't be started: .*missing"):
        run_command([sys.executable], options=RunOptions("train", tmp_path), cwd=tmp_path / "missing")
    with pytest.raises(UsageError, match=r"env=\{'SEED': 3\} has values that are not text"):
        python("pass", env={"SEED": 3})
