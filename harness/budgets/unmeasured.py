"""Why a measurement could not be read off a run, and what makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.budgets.metrics import (
    COUNTED_STEPS,
    FIRST_STEP,
    MFU,
    NUM_GRAPHS,
    NUM_HOST_SYNCS,
    NUM_KERNELS,
    OF_OPERATIONS,
    PEAK_MEMORY,
    PHASES,
    RESERVED_MEMORY,
    STEP_TIME,
    THROUGHPUT,
)
from harness.budgets.utilization import explain_no_peak

if TYPE_CHECKING:
    from harness.budgets.metrics import Metric
    from harness.record.run import TrainingRun

NOT_WATCHED = (
    "no step was watched and timed, or none has this phase.\n"
    "Next: leave it out of the budget, or train more steps."
)
NO_GPU = "nothing ran on a GPU that was watched for it.\nNext: leave it out of the budget here."
REASONS = {
    **dict.fromkeys((FIRST_STEP, *PHASES), NOT_WATCHED),
    **dict.fromkeys((RESERVED_MEMORY, NUM_HOST_SYNCS), NO_GPU),
    NUM_GRAPHS: "nothing was compiled.\nNext: leave it out of the budget here.",
    PEAK_MEMORY: "it could not be read: the platform does not tell it, the command ended within a moment, or nothing "
    "ran on the GPU.\nNext: leave peak_memory out of the budget here.",
}


def explain_unmeasured(run: TrainingRun, metric: Metric, peak_tflops: float | None = None) -> str:
    """Why a metric could not be read off a run, and what makes it so.

    Args:
        run: The run.
        metric: What it lacks.
        peak_tflops: The peak of the device in TFLOPS, where it is given.
    """
    if metric is MFU and (told := explain_no_peak(run, peak_tflops)):
        return told
    if metric is MFU and run.step_time_s is None:
        metric = STEP_TIME
    if metric in (STEP_TIME, THROUGHPUT):
        return (
            f"the {run.source} tells no step times (three steady steps are needed).\n"
            "Next: train more steps; one that is not watched can call smoke_training.record(step=..., loss=...) "
            "in its loop, or log time/step_s."
        )
    if metric.logged_as:
        names = ", ".join(run.metric_names) or "none"
        return (
            f"the program logs no {metric.logged_as!r}; its metrics: {names}.\n"
            "Next: correct the name, or point metrics= on the smoke_training marker at the file that has it."
        )
    if metric is NUM_KERNELS:
        seen = run.observed.not_seen if run.observed is not None else []
        told = next((text for text in seen if text.startswith("kernel launches")), "")
        if told or run.device != "cuda":
            return f"{told}.\nNext: leave it out of the budget here." if told else NO_GPU
    if metric in OF_OPERATIONS:
        seen = run.observed.not_seen if run.observed is not None else ["the run was not watched"]
        told = "; ".join(text for text in seen if text.startswith(("operations", "the run")))
        return (
            f"no operation of a step was counted{f': {told}' if told else ''} (steps "
            f"{', '.join(map(str, COUNTED_STEPS))} are; FLOPs only of products, convolutions and attention).\n"
            f"Next: train {COUNTED_STEPS[-1] + 2} steps or more, or leave {metric.tolerance_name} out of the budget."
        )
    return REASONS.get(metric, "the run has none.\nNext: leave it out of the budget.")
