"""What both launchers share: the options of a run, and how its history is found and made into a record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.errors import ObservationError, UsageError
from harness.record.history import read_returned
from harness.record.log_files import read_log_files
from harness.record.metrics_files import Stamp, find_metrics_file, read_metrics_file
from harness.record.run import TrainingRun, find_loss_name
from harness.record.watched import build_watched_steps, train_together
from harness.watch.environment import capture_environment
from harness.watch.options import LIMITS_NEED_WATCHING, ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.record.observation import RunObservation
    from harness.record.run import Step

WATCHED = "watched optimizer steps"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a program and where to look for what it leaves.

    Attributes:
        name: What messages and reports call the run.
        run_dir: Where the program writes; metrics files are searched and artifact globs start here.
        metrics: Glob of the metrics file, relative to `run_dir`; None looks for the usual names.
        loss: Name of the logged metric that is the training loss; None takes what reached backward.
        device: "cpu" or "cuda": which clock and memory count.
        seed: Seed for a called function; None leaves the generators alone.
        threads: Threads torch may use; None leaves them alone.
        watch: How the program is watched, and when it is ended; None runs it unwatched.
    """

    name: str
    run_dir: Path
    metrics: str | None = None
    loss: str | None = None
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None
    watch: ObserverOptions | None = field(default_factory=ObserverOptions)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took, as far as it could be read.

    Attributes:
        wall_clock_s: Seconds from start to end.
        peak_memory_bytes: Peak memory.
        waiting_s: Seconds of it in which the program was ready to run and had no processor.
        started_at_s: Its start on the clock of the machine.
    """

    wall_clock_s: float
    peak_memory_bytes: int | None
    waiting_s: float | None
    started_at_s: float | None = None


@dataclass(slots=True)
class Logged:
    """The steps that a program logged itself, where they came from, and what was odd about finding them."""

    steps: list[Step]
    source: str
    note: str = ""


def find_logged(
    options: RunOptions,
    *,
    recorded: Sequence[Step],
    result: object,
    before: Mapping[Path, Stamp],
    is_watched: bool,
) -> Logged:
    """The history that a program left itself; without steps when it left none.

    A metrics file that was asked for comes first, then the record() callback, then the return value, then a
    metrics file of a usual name.

    Args:
        options: Where to look.
        recorded: Steps that came through the callback.
        result: What a called function returned; None for a command.
        before: The metrics files that were there before the run; where unchanged, they are another run's.
        is_watched: Whether optimizer steps were seen, so that a broken file nobody asked for is only noted.

    Raises:
        MetricsFileError: A metrics file is ambiguous, missing or can't be parsed.
        ObservationError: A returned history can't be told apart into steps.
    """
    if options.metrics is None and recorded:
        return Logged(list(recorded), "record() callback")
    try:
        if options.metrics is None and (steps := read_returned(result)):
            return Logged(steps, "return value")
        path = find_metrics_file(options.run_dir, options.metrics, before=before)
        return Logged(read_metrics_file(path), f"metrics file {path}") if path else Logged([], "")
    except ObservationError as error:
        if not is_watched or options.metrics is not None:
            raise
        return Logged([], "", note=str(error).partition("\n")[0])


def build_run(
    options: RunOptions,
    logged: Logged,
    seen: Sequence[RunObservation],
    cost: Cost,
    *,
    result: object = None,
    command: Sequence[str] | None = None,
) -> TrainingRun:
    """The record of a run: what was watched, with what the program logged beside it.

    Watched steps come first; the logged history takes their place where no loss was seen to reach backward, or
    where `options.loss` names a logged metric.

    Raises:
        ObservationError: Nothing tells what was trained, or there is no loss; says what there is instead.
    """
    _refuse_incomplete(options, seen, cost)
    return _build(options, logged, seen, cost, result=result, command=command)


def build_unfinished_run(
    options: RunOptions,
    seen: Sequence[RunObservation],
    cost: Cost,
    *,
    recorded: Sequence[Step] = (),
    command: Sequence[str] | None = None,
) -> TrainingRun | None:
    """The record of a run that came to no good end, as far as it went; None without a step that has a loss."""
    try:
        logged = Logged(list(recorded), "record() callback")
        return _build(
            replace(options, loss=None, metrics=None), logged, seen, cost, result=None, command=command
        )
    except ObservationError:
        return None


def _build(
    options: RunOptions,
    logged: Logged,
    seen: Sequence[RunObservation],
    cost: Cost,
    *,
    result: object,
    command: Sequence[str] | None,
) -> TrainingRun:
    observed = seen[0] if seen else None
    watched = build_watched_steps(observed, seen) if observed else []
    watched_loss = next((name for step in watched for name in step.metrics if name.startswith("loss")), None)
    if not watched and not logged.steps:
        raise ObservationError(_explain_nothing(options, observed, result), seen=seen)
    logged_loss = find_loss_name(logged.steps, options.loss)
    must_log_loss = options.loss is not None or options.metrics is not None or watched_loss is None
    if logged_loss is None and must_log_loss:
        raise ObservationError(_explain_no_loss(options, logged, watched), seen=seen)
    is_from_log = options.loss is not None or watched_loss is None
    return TrainingRun(
        name=options.name,
        steps=watched or logged.steps,
        source=logged.source if is_from_log else _name_source(seen),
        loss_name=logged_loss if is_from_log else watched_loss,
        run_dir=options.run_dir,
        device="cuda" if observed is not None and observed.cuda_peak_bytes else options.device,
        seed=options.seed,
        threads=options.threads,
        wall_clock_s=cost.wall_clock_s,
        peak_memory_bytes=cost.peak_memory_bytes,
        waiting_s=cost.waiting_s,
        first_step_s=_find_first_step(observed, cost),
        environment=capture_environment(),
        logged=logged.steps,
        logged_source=logged.source,
        log_files=read_log_files(options.run_dir, observed.started_at) if observed else (),
        observed=observed,
        ranks=tuple(seen),
        result=result,
        command=command,
        notes=[note for note in (logged.note, _explain_apart(seen)) if note],
    )


def _find_first_step(observed: RunObservation | None, cost: Cost) -> float | None:
    """Seconds from the start of the program to the end of its first step."""
    if observed is None or observed.first_step_at_s is None or cost.started_at_s is None:
        return None
    return observed.first_step_at_s - cost.started_at_s


def tell_progress(seen: Sequence[RunObservation], recorded: Sequence[Step] = ()) -> str:
    """How far a run came, in words to put behind what ended it."""
    steps = (build_watched_steps(seen[0]) if seen else []) or list(recorded)
    if not steps:
        return " (before any step was seen)"
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in steps[-1].metrics.items())
    return f" (after step {steps[-1].step}: {metrics})"


def with_limits(options: RunOptions, *, max_steps: int | None, max_seconds: float | None) -> RunOptions:
    """The options with limits that end the program from outside; None keeps what was set.

    Raises:
        UsageError: A limit is not above 0, or nothing is watched.
    """
    if max_steps is None and max_seconds is None:
        return options
    watch = options.watch
    if watch is None:
        raise UsageError(LIMITS_NEED_WATCHING)
    changed = replace(
        watch,
        max_steps=watch.max_steps if max_steps is None else max_steps,
        max_seconds=watch.max_seconds if max_seconds is None else max_seconds,
    )
    return replace(options, watch=changed)


def _name_source(seen: Sequence[RunObservation]) -> str:
    return f"{WATCHED}, mean loss of {len(seen)} ranks" if train_together(seen) else WATCHED


def _explain_apart(seen: Sequence[RunObservation]) -> str:
    """That ranks of one launch did not train together; empty where they did, or where there is one."""
    trained = [run for run in seen if run.steps]
    if len({run.rank for run in trained}) < 2 or any(run.has_process_group for run in trained):  # noqa: PLR2004
        return ""
    return (
        f"{len(trained)} ranks trained beside one another, each for itself: the program never called "
        "torch.distributed.init_process_group, so they shared no gradient; the loss is that of rank 0"
    )


def _refuse_incomplete(options: RunOptions, seen: Sequence[RunObservation], cost: Cost) -> None:
    """A process that trained and was gone before its end is no whole run, whatever its launcher's exit code."""
    broken = [run for run in seen if run.steps and not run.outcome.is_complete]
    if not broken:
        return
    raise ObservationError(
        f"{options.name} ended well, but rank {broken[0].rank} of its training {broken[0].outcome}"
        f"{f' with {broken[0].error}' if broken[0].error else ''}{tell_progress(broken)}.\n"
        "Next: find out who hides that: a launcher that drops the exit code, or a process that was killed.",
        seen=seen,
        run=build_unfinished_run(options, seen, cost),
    )


def _explain_nothing(options: RunOptions, observed: RunObservation | None, result: object) -> str:
    instead = ["no record() call"]
    if observed is not None:
        passes = f"{observed.num_forwards or 0} forward and {observed.num_backwards} backward passes"
        instead = [f"{passes} were seen", *observed.notes, *instead, *observed.not_seen]
    elif options.watch is not None:
        instead = ["no process that imported torch was watched", *instead]
    if read_returned(result) == []:
        instead.append("an empty returned history")
    else:
        holds = "" if result is None else f" (the return value, {type(result).__name__}, holds none)"
        instead.append(f"no returned history{holds}")
    instead.append(f"no metrics.csv or metrics.jsonl under {options.run_dir}")
    likely = ""
    if observed is not None and observed.num_backwards:
        likely = "Likely: optimizer.step() is never called, or no optimizer of torch makes the updates.\n"
    return (
        f"no optimizer step was seen in {options.name}: {'; '.join(instead)}.\n{likely}"
        "Next: check that the program trains at all in this mode. One that updates its parameters without an "
        "optimizer of torch can return its losses, call smoke_training.record(step=..., loss=...), or write a "
        'metrics file: smoke_training(metrics="logs/*.csv") on the marker, or --metrics "logs/*.csv".'
    )


def _explain_no_loss(options: RunOptions, logged: Logged, watched: Sequence[Step]) -> str:
    names = sorted({name for step in logged.steps for name in step.metrics})
    if not names and options.loss is not None:
        return (
            f"no logged metric {options.loss!r}: {options.name} left no log of its own; "
            f"{len(watched)} optimizer steps were watched.\n"
            "Next: leave out loss (--loss) to take what reaches backward, or let the program log that metric."
        )
    if not names:
        return (
            f"{len(watched)} optimizer steps were seen in {options.name}, but no loss that reached backward.\n"
            "Next: return the losses, or call smoke_training.record(step=..., loss=...) in the loop."
        )
    missing = f"no metric {options.loss!r}; " if options.loss else ""
    return (
        f"no loss in the {logged.source}: {missing}it holds {', '.join(names)}.\n"
        'Next: name the one that is the loss: smoke_training(loss="my_loss") on the marker, or --loss my_loss.'
    )
