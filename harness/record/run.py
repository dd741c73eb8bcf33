"""The record of one training run: its steps, where they came from, and what the run cost."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.record.artifacts import find_artifacts
from harness.record.warm_up import MIN_STEADY_STEPS, find_steady_steps
from harness.selection import RuleSelection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from harness.record.environment import Environment
    from harness.record.fixed_work import FixedWork
    from harness.record.log_files import LogFile
    from harness.record.observation import RunObservation
    from harness.record.request import BaselineRequest
    from harness.record.warm_up import SteadySteps

LOSS_NAMES = ("loss", "train/loss", "train_loss", "training_loss")
STEP_TIME_NAMES = ("time/step_s", "step_time_s", "step_time")
NUM_SAMPLES_NAMES = ("num_samples", "samples")
NUM_TOKENS_NAMES = ("num_tokens", "tokens")


@dataclass(slots=True)
class Step:
    """One logged step of a training.

    Attributes:
        step: The program's own step number, or the position in the history where it gave none.
        metrics: Every number seen for this step, under the program's names; may hold NaN and infinities.
        time_s: Seconds from the end of the previous step to the end of this one; None where not seen.
    """

    step: int
    metrics: dict[str, float]
    time_s: float | None = None


@dataclass(slots=True)
class TrainingRun:
    """Everything observed of one run of the user's program.

    Attributes:
        name: The test or command that ran it.
        steps: Its steps in order: the optimizer steps that were watched, or else those the program logged. Where
            several ranks train together, the loss of a step is the mean over them; all else is of rank 0.
        source: Where the steps came from, for messages: "watched optimizer steps", "record()
            callback", "return value", or a metrics file.
        loss_name: Which metric is the loss; None when the history has none.
        run_dir: Directory that artifact globs are relative to.
        device: "cpu" or "cuda"; the latter wherever the program had memory of a GPU, also if nobody asked for it.
        seed: Seed set before the run; None when the program's own seeding was left alone.
        threads: Torch threads the run was held to; None when left alone.
        wall_clock_s: Seconds from calling or starting the program to its end.
        peak_memory_bytes: Peak resident set of the process on CPU, peak allocated bytes on CUDA; None
            where the platform does not tell.
        waiting_s: Seconds of the wall clock in which the program was ready to run and had no processor,
            because others had it; None where the platform does not tell.
        first_step_s: Seconds from its start to the end of the first step: start-up, and compilation. None where no
            step was watched.
        environment: Machine and library versions.
        fixed_work: How fast the machine was meanwhile; None where that was not timed.
        logged: Steps that the program logged itself; empty when it logs none.
        logged_source: Where those came from.
        log_files: The metrics files it wrote under `run_dir`, row by row.
        observed: What the watcher saw; of rank 0 where there are several. None when nothing was watched.
        ranks: What it saw of every process, in the order of their ranks.
        result: What a called function returned; None for a command.
        command: The argument list of a command; None for a called function.
        is_profiled: Whether a profiler watched, so that times say nothing about the program.
        trace: The profiler's trace file, where one was captured.
        selection: Which rules it is judged by.
        baseline: Which baseline it is to be compared with; None where nobody has named the run.
    """

    name: str
    steps: list[Step]
    source: str
    loss_name: str | None
    run_dir: Path
    device: str
    seed: int | None
    threads: int | None
    wall_clock_s: float
    peak_memory_bytes: int | None
    environment: Environment
    waiting_s: float | None = None
    first_step_s: float | None = None
    fixed_work: FixedWork | None = None
    logged: list[Step] = field(default_factory=list)
    logged_source: str = ""
    log_files: Sequence[LogFile] = ()
    observed: RunObservation | None = None
    ranks: Sequence[RunObservation] = ()
    result: Any = None
    command: Sequence[str] | None = None
    is_profiled: bool = False
    trace: Path | None = None
    notes: list[str] = field(default_factory=list)
    selection: RuleSelection = field(default_factory=RuleSelection)
    baseline: BaselineRequest | None = None

    @property
    def losses(self) -> list[float]:
        """The loss of each step that logged one; empty when the history has no loss."""
        return [value for _, value in self.loss_curve]

    @property
    def loss_curve(self) -> list[tuple[int, float]]:
        """The `(step, loss)` pairs: of the watched steps, or of the logged ones where those are the source."""
        if self.loss_name is None:
            return []
        is_logged = self.logged_source != "" and self.source == self.logged_source
        return _select(self.logged if is_logged else self.steps, self.loss_name)

    @property
    def metric_names(self) -> list[str]:
        """Names of all metrics seen, in order of first appearance."""
        return list(dict.fromkeys(name for step in [*self.steps, *self.logged] for name in step.metrics))

    def metric(self, name: str) -> list[tuple[int, float]]:
        """The `(step, value)` pairs of one metric, watched or else logged; empty when there are none."""
        watched = _select(self.steps, name)
        return watched or _select(self.logged, name)

    @property
    def steady_steps(self) -> SteadySteps:
        """The step times after the warm-up, and whether they are steady."""
        return find_steady_steps([step.time_s for step in self.steps if step.time_s is not None])

    @property
    def step_time_s(self) -> float | None:
        """Median seconds per step after warm-up; None when fewer than three steady steps were timed.

        Warm-up lasts as long as steps are slower than the later ones, and for a fifth of the timed steps at least.
        """
        return self.steady_steps.step_time_s

    @property
    def phase_times_s(self) -> dict[str, float]:
        """Median seconds of each phase of a step after the warm-up; empty where no step was watched and timed."""
        steps = self.observed.steps if self.observed is not None else []
        timed = [step.phase_times_s for step in steps if step.phase_times_s and step.time_s is not None]
        kept = timed[self.steady_steps.num_warm_up :]
        if len(kept) < MIN_STEADY_STEPS:
            return {}
        return {phase: statistics.median(times.get(phase, 0.0) for times in kept) for phase in kept[0]}

    @property
    def throughput(self) -> float | None:
        """Work per second over the steady steps, in `throughput_unit`; None without step times."""
        step_time_s = self.step_time_s
        return None if not step_time_s else self._work_per_step()[0] / step_time_s

    @property
    def throughput_unit(self) -> str:
        """`tokens/s` or `samples/s` where the program tells the size of its batches, else `steps/s`."""
        return self._work_per_step()[1]

    def _work_per_step(self) -> tuple[float, str]:
        for names, unit in ((NUM_TOKENS_NAMES, "tokens/s"), (NUM_SAMPLES_NAMES, "samples/s")):
            for name in names:
                counts = [value for _, value in self.metric(name)]
                if counts:
                    return statistics.median(counts), unit
        return 1.0, "steps/s"

    @property
    def waiting_share(self) -> float:
        """Share of the wall clock that went to waiting for a processor; 0 where it is not known."""
        return (self.waiting_s or 0.0) / self.wall_clock_s if self.wall_clock_s else 0.0

    def artifacts(self, pattern: str) -> list[Path]:
        """Files under the run directory that match a glob, sorted; see `find_artifacts`."""
        return find_artifacts(self.run_dir, pattern)

    def frame(self) -> pd.DataFrame:
        """The metrics as a pandas frame: one row per step, indexed by `step`, one column per metric.

        Raises:
            UsageError: pandas is not installed.
        """
        __tracebackhide__ = True
        from harness.record.frames import build_frame  # noqa: PLC0415  pandas is imported late

        return build_frame(self.steps)


def _select(steps: Sequence[Step], name: str) -> list[tuple[int, float]]:
    return [(step.step, step.metrics[name]) for step in steps if name in step.metrics]


def find_loss_name(steps: Sequence[Step], wanted: str | None = None) -> str | None:
    """The metric that is the training loss: `wanted` if it was logged, else the first well-known name.

    Returns None when no step logged it, so that the caller can say which names were there instead.
    """
    names = {name for step in steps for name in step.metrics}
    return next((name for name in ([wanted] if wanted else LOSS_NAMES) if name in names), None)


def find_step_time(metrics: Mapping[str, float]) -> float | None:
    """The step time in seconds that the program logged itself, under a well-known name.

    None where there is none, or it is not a finite number above 0, as some programs log their first step.
    """
    return next((metrics[name] for name in STEP_TIME_NAMES if 0 < metrics.get(name, 0) < math.inf), None)
