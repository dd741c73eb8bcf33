"""Runs a training that is a Python function, in this process."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.errors import HarnessError, ObservationError
from harness.record.metrics_files import stamp_metrics_files
from harness.watch.contention import read_waiting_s
from harness.watch.devices import limited_threads, seeded
from harness.watch.launch import (
    Cost,
    RunOptions,
    build_run,
    build_unfinished_run,
    find_logged,
    tell_progress,
)
from harness.watch.memory import read_peak_memory_bytes, reset_peak_memory
from harness.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun
    from harness.watch.recorder import Recorder


def run_call(
    call: Callable[[], Any],
    *,
    options: RunOptions,
    recorder: Recorder,
) -> TrainingRun:
    """Calls a training function and returns the record of what it did.

    Args:
        call: The program's own entry, its arguments bound to it.
        options: How to run it and where to look for its history.
        recorder: Where `record()` calls of the program end up.

    Raises:
        ObservationError: The function raised (its exception is the cause) or left no history with a loss.
    """
    __tracebackhide__ = True
    before = stamp_metrics_files(options.run_dir, options.metrics)
    with seeded(options.seed), limited_threads(options.threads):
        _reset_peak(options.device)
        recorder.start()
        start_s, waited_s = clock.monotonic_s(), read_waiting_s()
        observer = Observer(options.watch) if options.watch else None
        try:
            result = _call(call, observer)
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            seen = [observer.observation] if observer else []
            raise ObservationError(
                f"{options.name} raised {type(error).__name__}: {error}"
                f"{tell_progress(seen, recorder.steps)}\n"
                "Next: see the program's own traceback above; the training could not be judged.",
                seen=seen,
                run=build_unfinished_run(
                    options, seen, Cost(clock.monotonic_s() - start_s, None, None), recorded=recorder.steps
                ),
            ) from error
        wall_clock_s = _end_of_work(options.device) - start_s
        waiting_s = None if waited_s is None else (read_waiting_s() or waited_s) - waited_s
        cost = Cost(wall_clock_s, _read_peak(options.device), waiting_s, start_s)
    seen = [observer.observation] if observer else []
    is_watched = any(observation.steps for observation in seen)
    logged = find_logged(
        options, recorded=recorder.steps, result=result, before=before, is_watched=is_watched
    )
    return build_run(options, logged, seen, cost, result=result)


def _call(call: Callable[[], Any], observer: Observer | None) -> Any:
    """What the program returned; None when it was ended, or ended itself with exit code 0 as a main may."""
    __tracebackhide__ = True
    try:
        with observer or contextlib.nullcontext():
            return call()
    except SystemExit as ending:
        if ending.code not in (None, 0):
            raise
    return None


def _reset_peak(device: str) -> None:
    if device == "cuda":
        sys.modules["torch"].cuda.reset_peak_memory_stats()
    else:
        reset_peak_memory()


def _end_of_work(device: str) -> float:
    """The clock once queued GPU work is done."""
    if device == "cuda":
        sys.modules["torch"].cuda.synchronize()
    return clock.monotonic_s()


def _read_peak(device: str) -> int | None:
    if device == "cuda":
        return int(sys.modules["torch"].cuda.max_memory_allocated())
    return read_peak_memory_bytes()
