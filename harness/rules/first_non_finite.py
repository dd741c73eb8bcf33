"""Rules about where the first number that is not finite came from: the forward pass or the backward."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.deep_steps import tell_names
from harness.rules.finding import Evidence, Rule, Severity
from harness.rules.loss_calls import tell_counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation
    from harness.record.observation import NonFiniteObservation, RunObservation
    from harness.record.run import TrainingRun

LARGE_FACTOR = 10.0


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "the run was not watched"
    if not run.observed.deep_steps:
        return "no step was watched in depth"
    return None


def _find_first_loss(observed: RunObservation) -> int | None:
    """The first step whose loss is not finite."""
    return next(
        (
            step.step
            for step in observed.steps
            if not step.was_skipped and step.loss is not None and not math.isfinite(step.loss)
        ),
        None,
    )


def _check_forward(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = run.observed
    if observed is None:
        return
    first_loss = _find_first_loss(observed)
    if first_loss is None:
        return
    found = observed.non_finite
    if found is not None and found.step == first_loss and found.num_parameters:
        return
    deep = next((deep for deep in observed.deep_steps if deep.step == first_loss), None)
    module = deep.first_non_finite_module if deep is not None else None
    if deep is not None and any(_is_broken(parameter.weight_norm) for parameter in deep.parameters):
        return
    operation = found if found is not None and found.step == first_loss and found.operation else None
    if operation is None and module is None:
        return
    if operation is not None and operation.is_from_data:
        yield Evidence(
            message=f"the data of step {first_loss} are not finite: all {operation.num_all_parameters} parameters "
            f"are, and the first operation on the inputs, {operation.operation}, {operation.detail}.",
            cause="a sample with missing values, or a normalisation that divided by 0.",
            advice="check samples for NaN where they are loaded, and leave out or mend the one of this step.",
            subject="inputs",
            step=first_loss,
        )
        return
    told = []
    if module is not None:
        told.append(f"`{module}` is the first module whose output is not finite")
    if operation is not None:
        told.append(_tell_operation(operation))
    yield Evidence(
        message=f"the forward pass of step {first_loss} makes the first number that is not finite, from parameters "
        f"that are: {'; '.join(told)}.",
        cause=_find_cause(operation.operation if operation is not None else None),
        advice="bound what goes in there: clamp it, add a small number, or use a stable form such as log_softmax, "
        "logsumexp or softplus.",
        subject=module or (operation.operation if operation is not None else None) or "loss",
        step=first_loss,
    )


def _tell_operation(found: NonFiniteObservation) -> str:
    after = (
        f", after the parameter{'s'[: len(found.after) - 1]} {tell_names(found.after)}" if found.after else ""
    )
    before = ""
    if found.detail.startswith("was given") and "0" not in found.detail and found.before:
        before = f" (made by one of {', '.join(found.before)})"
    return f"in the graph, {found.operation} {found.detail}{before}{after}"


def _find_cause(operation: str | None) -> str:
    causes = {
        "exp": "numbers too large for exp.",
        "log": "the logarithm of 0, as of a probability that rounds to 0.",
        "div": "a count, norm or deviation of 0 in a division.",
        "sqrt": "the square root of a negative number, as of a variance that rounding made negative.",
        "softmax": "a row that is masked as a whole, or scores that overflowed.",
    }
    return causes.get(
        operation or "", "overflow, a division by 0, or the logarithm of 0; in half precision sooner."
    )


NON_FINITE_FORWARD = Rule(
    code="T203",
    name="non-finite-forward",
    severity=Severity.ERROR,
    summary="The forward pass makes finite numbers of finite parameters.",
    explanation="""\
When the first loss that is not finite reaches backward, and all parameters are finite, the graph of that very step
is looked at before the backward frees it: the first operation, in the order of the forward pass, that was given a
number over its edge (log of 0, a division by 0, exp of too much), or that shows NaN or infinity, with the parameters
that came last before it. On steps watched in depth the first module whose output was not finite is named too. When
the first operation on the inputs was given such a number already, it is the data.

Minus infinity is suspected last, as masks hold it. On a GPU the loss is known too late for the graph, and only a
step watched in depth tells the module. What activation checkpointing packed away is not looked at, nor anything
saved under a torch that can't tell the two apart.""",
    cases=("overflow in half precision", "a logarithm of 0", "a whole row masked before softmax"),
    find_obstacle=_find_obstacle,
    check=_check_forward,
    explains=("T201", "T202", "T204", "T1", "T4", "T5"),
)


def _check_backward(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = run.observed
    if observed is None:
        return
    first_loss = _find_first_loss(observed)
    deep = _find_broken_gradient(observed, first_loss)
    if deep is not None:
        yield _tell_gradient(deep)
        return
    if (evidence := _judge_skipped(observed)) is not None:
        yield evidence
        return
    found = observed.non_finite
    if found is None or not found.num_parameters or found.step != first_loss or first_loss == 0:
        return
    before = {step.step: step for step in observed.steps}.get(first_loss - 1)
    norm = before.grad_norm if before is not None else None
    clipped = ""
    if norm is not None:
        clipped = f"; the gradient norm of that step was {norm:.4g}"
    is_whole = found.num_parameters == found.num_all_parameters
    which = "all" if is_whole else f"{found.num_parameters} of"
    names = "" if is_whole else f" ({tell_names(found.parameters)})"
    yield Evidence(
        message=f"step {first_loss - 1} left {which} {found.num_all_parameters} parameters with numbers that are not "
        f"finite{names}, although its loss was finite{clipped}: that of step {first_loss} is the first that is not.",
        cause=_find_backward_cause(run, found),
        advice="run once under torch.autograd.set_detect_anomaly(True), which names the line whose gradient is NaN.",
        subject=found.parameters[0] if found.parameters else "parameters",
        step=first_loss - 1,
    )


def _find_broken_gradient(observed: RunObservation, first_loss: int | None) -> DeepObservation | None:
    """The first deep step before any loss was not finite whose gradients are not, and that was not skipped."""
    skipped = {step.step for step in observed.steps if step.was_skipped}
    for deep in observed.deep_steps:
        is_steep = any(backward.steep_operations for backward in deep.backwards)
        if (deep.step in skipped and not is_steep) or (first_loss is not None and deep.step >= first_loss):
            continue
        if any(_is_broken(parameter.weight_norm) for parameter in deep.parameters):
            return None
        if any(_is_broken(parameter.grad_norm) for parameter in deep.parameters):
            return deep
    return None


def _judge_skipped(observed: RunObservation) -> Evidence | None:
    """An infinite gradient for which a GradScaler skips every step, as no scale makes it finite."""
    skipped = {step.step for step in observed.steps if step.was_skipped}
    deep_steps = observed.deep_steps
    steep = [
        {name for backward in deep.backwards for name in backward.steep_operations} for deep in deep_steps
    ]
    if len(deep_steps) < 2 or not all(deep.step in skipped for deep in deep_steps) or not all(steep):  # noqa: PLR2004
        return None
    return Evidence(
        message=f"the GradScaler skipped {len(skipped)} of {len(observed.steps)} steps, all that were watched in depth "
        f"among them, and in each of these the graph holds a {tell_steep(sorted(steep[0]))}, whose gradient is "
        "infinite with every scale.",
        cause="an operation whose gradient is infinite where its value is not.",
        advice="add a small number under the root or the norm; torch.where does not help, as it multiplies by 0.",
        subject=min(steep[0]),
        step=deep_steps[0].step,
    )


def _tell_gradient(deep: DeepObservation) -> Evidence:
    with_gradient = [parameter for parameter in deep.parameters if parameter.grad_norm is not None]
    broken = [parameter for parameter in with_gradient if _is_broken(parameter.grad_norm)]
    # The backward runs from the loss to the inputs: it breaks first where the forward pass was last.
    last = max(
        broken, key=lambda parameter: -1 if parameter.call_position is None else parameter.call_position
    )
    steep = list(dict.fromkeys(name for backward in deep.backwards for name in backward.steep_operations))
    seen = f"; the graph holds a {tell_steep(steep)}, whose gradient is infinite" if steep else ""
    kind = "NaN" if math.isnan(last.grad_norm or 0.0) else "infinite"
    where = "all" if len(broken) == len(with_gradient) else f"{len(broken)} of"
    return Evidence(
        message=f"the gradient of `{last.name}` is {kind} at step {deep.step} while the loss is finite, as are those "
        f"of {where} {len(with_gradient)} parameters{seen}.",
        cause="an operation whose gradient is infinite where its value is not, such as the square root or a norm of 0."
        if steep or kind == "NaN"
        else "overflow in the backward, as of a loss scale or a gradient too large for half precision.",
        advice="add a small number under the root or the norm; torch.where does not help, as it multiplies by 0. "
        "torch.autograd.set_detect_anomaly(True) names the line.",
        subject=last.name,
        step=deep.step,
    )


def tell_steep(operations: list[str]) -> str:
    """Operations in words, such as `sqrt of 0`."""
    return " and a ".join(operations)


def _find_backward_cause(run: TrainingRun, found: NonFiniteObservation) -> str:
    losses = [loss for loss in run.losses if math.isfinite(loss)]
    if len(losses) > 1 and losses[-1] > LARGE_FACTOR * max(losses[0], 1e-12):
        return "the training diverged: the loss had grown many times over before."
    risky = {name: count for name, count in found.risky_operations.items() if name not in ("div", "exp")}
    if risky:
        return f"an operation whose gradient is infinite where its value is not; the graph holds {tell_counts(risky)}."
    return "a gradient that overflowed or was NaN, or a step that was too large."


def _is_broken(norm: float | None) -> bool:
    return norm is not None and not math.isfinite(norm)


NON_FINITE_GRADIENT = Rule(
    code="T202",
    name="non-finite-gradient",
    severity=Severity.ERROR,
    summary="A finite loss has finite gradients, and leaves finite parameters.",
    explanation="""\
Two ways lead to it. On a step watched in depth: a gradient that the optimizer got is not finite, while losses and
parameters still are; the tensor nearest to the loss is named, and operations that were given a number at which
their gradient is infinite, such as the square root of 0. Else, by what is left: when the first loss that is not
finite reaches backward, parameters are already broken, though the step before had a finite loss.

Steps that a GradScaler skipped are left out, as their gradients overflow on purpose, unless such an operation was
seen.""",
    cases=("the square root of 0 in a backward (pytorch#2421)", "the norm of a difference that is 0"),
    find_obstacle=_find_obstacle,
    check=_check_backward,
    explains=("T201", "T204", "T1", "T4", "T5"),
)

RULES = (NON_FINITE_FORWARD, NON_FINITE_GRADIENT)
