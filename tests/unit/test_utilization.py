"""Model FLOPs utilization: counted FLOPs over step time, as a share of a peak that is known or given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.budgets.metrics import MFU, measure
from harness.budgets.spec import parse_budget
from harness.budgets.unmeasured import explain_unmeasured
from harness.budgets.utilization import find_peak_tflops
from harness.record.counters import CountedStep
from harness.record.observation import RunObservation

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

# A fifth of a TFLOP in half a second.
COUNTED = RunObservation(counted_steps=[CountedStep(2, flops={"forward": 10**11, "backward": 10**11})])


def on_gpu(run: TrainingRun, name: str) -> TrainingRun:
    return replace(run, device="cuda", environment=replace(run.environment, gpus=(name,)))


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla V100-PCIE-32GB", 112),
        ("Tesla T4", 65),
        ("AMD Instinct MI300X", 1307),
        ("NVIDIA A10G", None),
        ("NVIDIA L40", None),
        ("NVIDIA T400", None),
    ],
)
def test_the_peak_is_that_of_the_gpu_with_this_name(make_run: MakeRun, name: str, peak: float | None) -> None:
    assert find_peak_tflops(on_gpu(make_run(), name)) == peak
    assert find_peak_tflops(on_gpu(make_run(), name), 7.0) == 7.0


def test_a_processor_has_only_the_peak_that_is_given(make_run: MakeRun) -> None:
    run = make_run(observed=COUNTED)
    run = replace(run, environment=replace(run.environment, gpus=("NVIDIA H200",)))
    assert "mfu" not in measure(run)
    assert measure(run, peak_tflops=0.8)["mfu"] == pytest.approx(0.5)


def test_a_known_gpu_is_measured_by_its_own_peak(make_run: MakeRun) -> None:
    run = on_gpu(make_run(observed=COUNTED), "NVIDIA H200")
    assert measure(run)["mfu"] == pytest.approx(0.4 / 989)
    assert "mfu" not in measure(replace(run, is_profiled=True))


def test_a_budget_on_it_counts_operations_and_takes_the_peak() -> None:
    budget = parse_budget({"min_mfu": 0.3, "mfu": 0.05, "peak_tflops": 312}, source="here")
    assert (budget.limits, budget.tolerances, budget.peak_tflops) == ({MFU: 0.3}, {MFU: 0.05}, 312)
    assert budget.counts_operations


@pytest.mark.parametrize(
    ("changes", "peak", "told"),
    [
        ({"observed": COUNTED}, None, "the peak of this device (Fast CPU"),
        ({"observed": COUNTED, "steps": []}, 1.0, "tells no step times"),
        ({"observed": RunObservation()}, 1.0, "no operation of a step was counted"),
    ],
)
def test_what_it_lacks_is_said_with_the_way_out(
    make_run: MakeRun, changes: dict[str, Any], peak: float | None, told: str
) -> None:
    run = make_run(**changes)
    assert "mfu" not in measure(run, peak_tflops=peak)
    explained = explain_unmeasured(run, MFU, peak)
    assert told in explained
    assert "\nNext: " in explained
