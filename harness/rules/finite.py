"""Rules about numbers that are not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.finding import Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun


def _check_metrics(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    logged = [] if run.logged is run.steps else run.logged
    sources = [(step, run.source) for step in run.steps] + [(step, run.logged_source) for step in logged]
    for step, source in sources:
        broken = {name: value for name, value in step.metrics.items() if not math.isfinite(value)}
        if not broken:
            continue
        name, value = next(iter(broken.items()))
        also = f" (also {', '.join(list(broken)[1:])})" if len(broken) > 1 else ""
        num_broken = sum(not math.isfinite(other) for _, other in run.metric(name))
        yield Evidence(
            message=f"{name} is {value} at step {step.step}{also}, for the first time; "
            f"{num_broken} of {len(run.metric(name))} values are not finite ({source}).",
            cause="overflow, division by zero, log or sqrt of zero, or a learning rate that is too high.",
            advice="look at the batch and the gradient norm of that step, and run once under "
            "torch.autograd.set_detect_anomaly(True).",
            subject=name,
            step=step.step,
        )
        return


NON_FINITE_METRIC = Rule(
    code="T201",
    name="non-finite-metric",
    severity=Severity.ERROR,
    summary="Every number is finite: loss, gradient norm, learning rate, and all that the program logs.",
    explanation="""\
The first value that is NaN or infinite, with its metric and step, and how many follow. The gradient norm of a
step that a GradScaler skipped is left out: it is infinite on purpose.

`assert_finite(run)` applies this rule alone.""",
    cases=(
        "the square root of 0 in a backward",
        "a logarithm of 0",
        "overflow in half precision",
        "a learning rate that is too high",
    ),
    find_obstacle=lambda run: None if run.steps else "the run has no step",
    check=_check_metrics,
    explains=("T1",),
)

RULES = (NON_FINITE_METRIC,)
