"""What a budget can be set on, and how it is read off a run."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.budgets.utilization import measure_mfu
from harness.record.counters import summarize_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.record.counters import CountedStep
    from harness.record.run import TrainingRun

MIB = 2**20
MANY = 1000


class Scope(StrEnum):
    """Between which machines a measurement may be compared."""

    RUNNER_CLASS = "runner class"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measurement a budget can be set on.

    Attributes:
        name: Its name in baselines and reports, with its unit.
        limit_name: The marker argument that sets an absolute limit.
        tolerance_name: The marker argument that sets a tolerance against the stored baseline.
        is_lower_better: Whether more is worse.
        scope: Between which machines it may be compared.
        is_time: Whether other programs on the machine can make it worse.
        is_counted: Whether it counts what a step does: equal in every run of unchanged code, so that any change of
            it is one.
        limit_scale: What one unit of the limit is in units of the measurement.
        logged_as: Name of the program's own metric that it is, where it is none of the harness's.
    """

    name: str
    limit_name: str
    tolerance_name: str
    is_lower_better: bool = True
    scope: Scope = Scope.RUNNER_CLASS
    is_time: bool = False
    is_counted: bool = False
    limit_scale: float = 1.0
    logged_as: str = ""

    def show(self, value: float, unit: str = "") -> str:
        """A value with its unit, for people; `unit` is that of the run's throughput."""
        if not math.isfinite(value):
            return str(value)
        if self.name.endswith("_bytes"):
            return f"{value / MIB:.1f} MiB"
        if self.name.endswith("_s"):
            return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        if self is THROUGHPUT:
            return f"{value:,.0f} {unit}" if value >= MANY else f"{value:.4g} {unit}"
        return f"{value:.6g}"


WALL_CLOCK = Metric("wall_clock_s", "wall_clock_s", "wall_clock", is_time=True)
STEP_TIME = Metric("step_time_s", "step_time_s", "step_time", is_time=True)
THROUGHPUT = Metric("throughput", "min_throughput", "throughput", is_lower_better=False, is_time=True)
PEAK_MEMORY = Metric("peak_memory_bytes", "peak_memory_mb", "peak_memory", limit_scale=MIB)
FINAL_LOSS = Metric("final_loss", "max_final_loss", "final_loss", scope=Scope.ANY)
FLOPS = Metric("flops", "max_flops", "flops", is_counted=True)
NUM_OPS = Metric("num_ops", "max_num_ops", "num_ops", is_counted=True)
TENSOR_MEMORY = Metric(
    "tensor_memory_bytes", "tensor_memory_mb", "tensor_memory", limit_scale=MIB, is_counted=True
)
NUM_KERNELS = Metric("num_kernels", "max_num_kernels", "num_kernels", is_counted=True)
MFU = Metric("mfu", "min_mfu", "mfu", is_lower_better=False, is_time=True)

FIRST_STEP = Metric("first_step_s", "first_step_s", "first_step", is_time=True)
PHASES = tuple(
    Metric(f"{phase}_time_s", f"{phase}_time_s", f"{phase}_time", is_time=True)
    for phase in ("data", "forward", "backward", "optimizer")
)
RESERVED_MEMORY = Metric("reserved_memory_bytes", "reserved_memory_mb", "reserved_memory", limit_scale=MIB)
NUM_GRAPHS = Metric("num_graphs", "max_num_graphs", "num_graphs", is_counted=True)
NUM_HOST_SYNCS = Metric("num_host_syncs", "max_num_host_syncs", "num_host_syncs", is_counted=True)

METRICS = (
    WALL_CLOCK,
    STEP_TIME,
    THROUGHPUT,
    MFU,
    FIRST_STEP,
    *PHASES,
    PEAK_MEMORY,
    RESERVED_MEMORY,
    FINAL_LOSS,
    FLOPS,
    NUM_OPS,
    TENSOR_MEMORY,
    NUM_KERNELS,
    NUM_GRAPHS,
    NUM_HOST_SYNCS,
)
OF_OPERATIONS = (FLOPS, NUM_OPS, TENSOR_MEMORY, NUM_KERNELS, MFU)
"""What counting the operations of a few steps tells."""
COUNTED_STEPS = (2, 3, 4)
"""Steps whose operations are counted: after the first, which builds the state of the optimizer, and few."""


def build_logged_metric(name: str, *, is_lower_better: bool, is_time: bool) -> Metric:
    """The metric that a program logs under a name."""
    return Metric(
        name=f"logged.{name}",
        limit_name=f"logged[{name!r}]",
        tolerance_name=f"logged[{name!r}]",
        is_lower_better=is_lower_better,
        scope=Scope.RUNNER_CLASS if is_time else Scope.ANY,
        is_time=is_time,
        logged_as=name,
    )


def measure(
    run: TrainingRun, logged: Iterable[Metric] = (), *, peak_tflops: float | None = None
) -> dict[str, float]:
    """Every measurement that can be read off a run, by metric name; times are left out of a profiled run.

    `final_loss`, and what the program logs, is the mean of the last tenth of the values, and of no fewer than three;
    it may be NaN or infinite. Any other measurement is above 0, or it is left out; but for counts of what only some
    programs do, such as graphs compiled.

    Args:
        run: The run.
        logged: Metrics of the program's own to read as well.
        peak_tflops: The peak of the device in TFLOPS, where it is given; for the utilization.
    """
    values: dict[str, float | None] = {PEAK_MEMORY.name: run.peak_memory_bytes}
    if run.observed is not None:
        values[RESERVED_MEMORY.name] = run.observed.cuda_reserved_bytes
    if (counted := find_counted(run)) is not None:
        values |= {
            FLOPS.name: counted.num_flops,
            NUM_OPS.name: counted.num_ops,
            TENSOR_MEMORY.name: counted.tensor_bytes,
            NUM_KERNELS.name: counted.num_kernels,
        }
    if not run.is_profiled:
        values |= {
            WALL_CLOCK.name: run.wall_clock_s,
            STEP_TIME.name: run.step_time_s,
            THROUGHPUT.name: run.throughput,
            FIRST_STEP.name: run.first_step_s,
            MFU.name: measure_mfu(run, values.get(FLOPS.name), peak_tflops),
        }
        values |= {f"{phase}_time_s": time_s for phase, time_s in run.phase_times_s.items()}
    known = {metric.name for metric in METRICS}
    measured = {
        name: float(value)
        for name, value in values.items()
        if name in known and value and 0 < value < math.inf
    }
    finals = {FINAL_LOSS.name: find_final(run.losses)}
    for metric in logged:
        if metric.logged_as:
            finals[metric.name] = find_final([value for _, value in run.metric(metric.logged_as)])
    measured |= {name: value for name, value in finals.items() if value is not None}
    return measured | _count(run)


def _count(run: TrainingRun) -> dict[str, float]:
    """Graphs compiled, and waits of the host for the GPU in a step: none where the program does neither."""
    if run.observed is None:
        return {}
    counts = {}
    if run.observed.compilation.is_used:
        counts[NUM_GRAPHS.name] = float(run.observed.compilation.num_graphs)
    syncs = [step.num_host_syncs for step in run.observed.steps if step.num_host_syncs is not None]
    if syncs:
        counts[NUM_HOST_SYNCS.name] = float(statistics.median(syncs))
    return counts


def find_final(values: Sequence[float]) -> float | None:
    """The mean of the last tenth of the values, and of no fewer than three; None without any."""
    last = values[-max(3, len(values) // 10) :]
    return sum(last) / len(last) if last else None


def find_counted(run: TrainingRun) -> CountedStep | None:
    """The operations of a step of a run, the median of those that were counted; None where none was."""
    return summarize_counts(run.observed.counted_steps) if run.observed is not None else None
