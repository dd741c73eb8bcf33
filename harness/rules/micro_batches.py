"""Rules about the backwards of a step: micro-batches that are thrown away, and losses propagated back twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_single,
    has_distinct_batches,
    list_deep,
    tell_steps,
)
from harness.rules.finding import Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation
    from harness.record.run import TrainingRun
    from harness.record.step_observation import StepObservation


MIN_MICRO_BATCHES = 2


def _check_thrown_away(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[StepObservation, DeepObservation]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        before, after = deep.grad_norms_before_backward, deep.grad_norms_after_backward
        num = step.num_micro_batches
        if num < MIN_MICRO_BATCHES or len(before) != num or len(after) != num or not all(after):
            continue
        # Another model whose gradients nobody uses says that the backwards are not one accumulation.
        is_mixed = any(p.is_trainable and p.grad_norm for p in deep.unheld)
        if is_mixed or not has_distinct_batches(step, deep):
            continue
        num_looked_at += 1
        if not any(before[1:]) and _is_last_alone(step, deep):
            found.append((step, deep))
    if not found or len(found) < num_looked_at:
        return
    step, deep = found[0]
    # As the optimizer gets them: without the factor of a GradScaler.
    scale = deep.loss_scale or 1.0
    norms = ", ".join(f"{(norm or 0) / scale:.3g}" for norm in deep.grad_norms_after_backward[:4])
    yield Evidence(
        message=f"of the {step.num_micro_batches} micro-batches of a step only the last reaches the optimizer: the "
        "gradients "
        f"of the others (norms {norms} at step {step.step}) are cleared before the next backward, in "
        f"{tell_steps([step.step for step, _ in found])}.",
        cause="zero_grad() inside the loop over micro-batches.",
        advice="call zero_grad() once per step, before the first micro-batch.",
        subject="gradients",
        step=step.step,
    )


def _is_last_alone(step: StepObservation, deep: DeepObservation) -> bool:
    """Whether the optimizer got just what the last backward gave, clipping aside."""
    last = (deep.grad_norms_after_backward[-1] or 0.0) / (deep.loss_scale or 1.0)
    clipped = [call.norm for call in step.clipping if call.norm is not None]
    got = clipped[-1] if clipped else deep.grad_norm
    return got is not None and math.isclose(got, last, rel_tol=0.01)


def _check_repeated(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[int, float]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        num, losses, after = step.num_micro_batches, step.losses, deep.grad_norms_after_backward
        if num < MIN_MICRO_BATCHES or step.num_closure_calls > 1 or len(losses) != num or len(after) != num:
            continue
        num_looked_at += 1
        pairs = list(zip(losses[::2], losses[1::2], strict=False))
        is_paired = num % 2 == 0 and all(first == second for first, second in pairs)
        first, second = after[0] or 0.0, after[1] or 0.0
        has_one_forward = len(deep.batch_fingerprints) * 2 == num
        if is_paired and has_one_forward and first and math.isclose(second, 2 * first, rel_tol=1e-3):
            found.append((step.step, losses[0]))
    if not found or len(found) < num_looked_at:
        return
    yield Evidence(
        message=f"backward ran twice from the same loss ({found[0][1]:.6g} at step {found[0][0]}), and the second "
        "time doubled "
        f"the gradient, in {tell_steps([step for step, _ in found])}.",
        cause="loss.backward(retain_graph=True) is followed by another backward of the same loss.",
        advice="take one of the two away; retain_graph is needed only where two losses share a graph.",
        subject="loss",
        step=found[0][0],
    )


THROWN_AWAY = Rule(
    code="T413",
    name="micro-batches-thrown-away",
    severity=Severity.WARNING,
    summary="Every micro-batch of a step has a part in its gradient.",
    explanation="""\
The norm of the gradients before and after each backward of a deep step. When each but the first finds them empty,
the batches differ, and the optimizer gets just what the last backward gave, the others were for nothing.

A sharpness-aware step uses one batch twice; programs that combine gradients by hand give the optimizer something
else than the last one: both are silent.""",
    cases=("zero_grad inside the accumulation",),
    find_obstacle=find_obstacle_to_single,
    check=_check_thrown_away,
    explains=("T411", "T412", "T422"),
)


REPEATED_BACKWARD = Rule(
    code="T414",
    name="backward-repeated",
    severity=Severity.WARNING,
    summary="No loss is propagated back twice.",
    explanation="""\
Two backwards of a deep step from bit by bit the same loss, with one forward between them, after which the gradient
is exactly twice what it was.""",
    cases=("backward(retain_graph=True) and then a second backward, to silence an error",),
    find_obstacle=find_obstacle_to_single,
    check=_check_repeated,
    explains=("T411", "T412", "T406"),
)


RULES = (
    THROWN_AWAY,
    REPEATED_BACKWARD,
)
