"""Model FLOPs utilization (MFU): the share of a device's peak that the products of a training step reach.

The measure is that of the PaLM paper (Chowdhery et al. 2022, appendix B), with counted FLOPs in place of estimated
ones: operations that are computed twice, as under activation checkpointing, count twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.record.run import TrainingRun

TERA = 1e12
PEAKS_TFLOPS = {
    r"\bB200\b": 2250.0,
    r"\bGH200\b|\bH200\b": 989.0,
    r"\bH100\b.*\bNVL\b": 835.0,
    r"\bH100\b.*\bPCIe\b": 756.0,
    r"\bH100\b": 989.0,
    r"\bA100\b": 312.0,
    r"\bA30\b": 165.0,
    r"\bA10\b": 125.0,
    r"\bL40S\b": 362.0,
    r"\bL4\b": 121.0,
    r"\bV100\b.*\bPCIe\b": 112.0,
    r"\bV100\b": 125.0,
    r"\bT4\b": 65.0,
    r"\bMI300X\b": 1307.0,
}
"""Dense peak of 16-bit matrix products in TFLOPS by the name torch has for a GPU, from the makers' data sheets."""


def find_peak_tflops(run: TrainingRun, given: float | None = None) -> float | None:
    """The peak of the device that a run trained on, in TFLOPS; None where it is not known.

    Args:
        run: The run; of several GPUs of one process, the first counts.
        given: What the user says it is, which comes first.
    """
    if given is not None:
        return given
    gpu = _find_gpu(run)
    return next((peak for name, peak in PEAKS_TFLOPS.items() if re.search(name, gpu, re.IGNORECASE)), None)


def _find_gpu(run: TrainingRun) -> str:
    """The name of the GPU that a run trained on; empty where that was a processor, or is not known."""
    return next(iter(run.environment.gpus), "") if run.device == "cuda" else ""


def measure_mfu(run: TrainingRun, num_flops: float | None, peak_tflops: float | None = None) -> float | None:
    """FLOPs of a step per second of its time, as a share of the peak; None where one of them is not known.

    Args:
        run: The run, of one rank.
        num_flops: Of one step.
        peak_tflops: What the user says the device's peak is, in TFLOPS.
    """
    peak = find_peak_tflops(run, peak_tflops)
    if not (num_flops and peak and run.step_time_s):
        return None
    return num_flops / run.step_time_s / (peak * TERA)


def explain_no_peak(run: TrainingRun, peak_tflops: float | None) -> str:
    """Why the utilization of a run has nothing to be a share of, and what gives it; empty where its peak is known."""
    if find_peak_tflops(run, peak_tflops) is not None:
        return ""
    return (
        f"the peak of this device ({_find_gpu(run) or run.environment.cpu}) is not known.\n"
        "Next: peak_tflops=989 in the budget says what it is: dense products, at the precision of the training, "
        "in TFLOPS."
    )
