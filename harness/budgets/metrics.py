"""What a budget can be set on, and how it is read off a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.record.counters import summarize_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """

    name: str
    limit_name: str
    tolerance_name: str
    is_lower_better: bool = True
    scope: Scope = Scope.RUNNER_CLASS
    is_time: bool = False
    is_counted: bool = False
    limit_scale: float = 1.0

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

METRICS = (WALL_CLOCK, STEP_TIME, THROUGHPUT, PEAK_MEMORY, FINAL_LOSS, FLOPS, NUM_OPS, TENSOR_MEMORY)
COUNTED_STEPS = (2, 3, 4)
"""Steps whose operations are counted: after the first, which builds the state of the optimizer, and few."""


def measure(run: TrainingRun) -> dict[str, float]:
    """Every measurement that can be read off a run, by metric name; times are left out of a profiled run.

    `final_loss` is the mean of the last tenth of the losses, and of no fewer than three; it may be
    NaN or infinite. Any other measurement is above 0, or it is left out.
    """
    values: dict[str, float | None] = {PEAK_MEMORY.name: run.peak_memory_bytes}
    if (counted := find_counted(run)) is not None:
        values |= {
            FLOPS.name: counted.num_flops,
            NUM_OPS.name: counted.num_ops,
            TENSOR_MEMORY.name: counted.tensor_bytes,
        }
    if not run.is_profiled:
        values |= {
            WALL_CLOCK.name: run.wall_clock_s,
            STEP_TIME.name: run.step_time_s,
            THROUGHPUT.name: run.throughput,
        }
    measured = {name: float(value) for name, value in values.items() if value and 0 < value < math.inf}
    final = find_final_loss(run.losses)
    return measured | ({} if final is None else {FINAL_LOSS.name: final})


def find_final_loss(losses: Sequence[float]) -> float | None:
    """The mean of the last tenth of the losses, and of no fewer than three; None without any."""
    last = losses[-max(3, len(losses) // 10) :]
    return sum(last) / len(last) if last else None


def find_counted(run: TrainingRun) -> CountedStep | None:
    """The operations of a step of a run, the median of those that were counted; None where none was."""
    return summarize_counts(run.observed.counted_steps) if run.observed is not None else None


def explain_unmeasured(run: TrainingRun, metric: Metric) -> str:
    """Why a metric could not be read off a run, and what makes it so."""
    if metric in (STEP_TIME, THROUGHPUT):
        return (
            f"the {run.source} tells no step times (three steady steps are needed).\n"
            "Next: train more steps; one that is not watched can call smoke_training.record(step=..., loss=...) "
            "in its loop, or log time/step_s."
        )
    if metric.is_counted:
        seen = run.observed.not_seen if run.observed is not None else ["the run was not watched"]
        told = "; ".join(text for text in seen if text.startswith(("operations", "the run")))
        return (
            f"no operation of a step was counted{f': {told}' if told else ''} (steps "
            f"{', '.join(map(str, COUNTED_STEPS))} are; FLOPs only of products, convolutions and attention).\n"
            f"Next: train {COUNTED_STEPS[-1] + 2} steps or more, or leave {metric.tolerance_name} out of the budget."
        )
    if metric is PEAK_MEMORY:
        return (
            "it could not be read: the platform does not tell it, the command ended within a moment, or nothing "
            "ran on the GPU.\nNext: leave peak_memory out of the budget here."
        )
    return "the run has none.\nNext: leave it out of the budget."
