"""What both launchers share: the options of a run, and how its history is found and made into a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ObservationError
from harness.record.history import read_returned
from harness.record.metrics_files import Stamp, find_metrics_file, read_metrics_file
from harness.record.run import TrainingRun, find_loss_name
from harness.watch.environment import capture_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.record.run import Step


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a program and where to look for what it leaves.

    Attributes:
        name: What messages and reports call the run.
        run_dir: Where the program writes; metrics files are searched and artifact globs start here.
        metrics: Glob of the metrics file, relative to `run_dir`; None looks for the usual names.
        loss: Name of the metric that is the training loss; None takes the first well-known name.
        device: "cpu" or "cuda": which clock and memory count.
        seed: Seed for a called function; None leaves the generators alone.
        threads: Threads torch may use; None leaves them alone.
    """

    name: str
    run_dir: Path
    metrics: str | None = None
    loss: str | None = None
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took, as far as it could be read.

    Attributes:
        wall_clock_s: Seconds from start to end.
        peak_memory_bytes: Peak memory.
        waiting_s: Seconds of it in which the program was ready to run and had no processor.
    """

    wall_clock_s: float
    peak_memory_bytes: int | None
    waiting_s: float | None


def find_history(
    options: RunOptions, *, recorded: Sequence[Step], result: object, before: Mapping[Path, Stamp]
) -> tuple[list[Step], str]:
    """The steps of a run and where they came from.

    A metrics file that was asked for comes first, then the record() callback, then the return value, then a
    metrics file of a usual name.

    Args:
        options: Where to look.
        recorded: Steps that came through the callback.
        result: What a called function returned; None for a command.
        before: The metrics files that were there before the run; where unchanged, they are another run's.

    Raises:
        MetricsFileError: A metrics file is ambiguous, missing or can't be parsed.
        ObservationError: There is no history anywhere, or it is empty.
    """
    if options.metrics is None:
        if recorded:
            return list(recorded), "record() callback"
        if (steps := read_returned(result)) is not None:
            if not steps:
                raise ObservationError(
                    f"{options.name} returned an empty history: no step was trained or logged.\n"
                    "Next: check the number of steps and that the data set is not empty."
                )
            return steps, "return value"
    path = find_metrics_file(options.run_dir, options.metrics, before=before)
    if path is None:
        raise ObservationError(_explain_no_history(options, result))
    return read_metrics_file(path), f"metrics file {path}"


def build_run(options: RunOptions, steps: list[Step], source: str, cost: Cost, **details: Any) -> TrainingRun:
    """The record of a run whose history was found.

    Raises:
        ObservationError: The history holds no loss; names what it holds.
    """
    loss_name = find_loss_name(steps, options.loss)
    if loss_name is None:
        names = sorted({name for step in steps for name in step.metrics})
        raise ObservationError(
            f"no loss in the {source}: {f'no metric {options.loss!r}; ' if options.loss else ''}"
            f"it holds {', '.join(names)}.\n"
            'Next: name the one that is the loss, for example @pytest.mark.smoke_training(loss="my_loss").'
        )
    return TrainingRun(
        name=options.name,
        steps=steps,
        source=source,
        loss_name=loss_name,
        run_dir=options.run_dir,
        device=options.device,
        seed=options.seed,
        threads=options.threads,
        wall_clock_s=cost.wall_clock_s,
        peak_memory_bytes=cost.peak_memory_bytes,
        waiting_s=cost.waiting_s,
        environment=capture_environment(),
        **details,
    )


def _explain_no_history(options: RunOptions, result: object) -> str:
    returned = "" if result is None else f" (the return value, {type(result).__name__}, holds no history)"
    return (
        f"nothing tells what {options.name} trained: no record() call, no returned history{returned}, "
        f"and no metrics.csv or metrics.jsonl under {options.run_dir}.\n"
        "Next: do one of these: let the program write its metrics under the run directory "
        '(or say where: @pytest.mark.smoke_training(metrics="logs/*.csv")), return the losses, '
        "or call smoke_training.record(step=..., loss=...) in the loop."
    )
