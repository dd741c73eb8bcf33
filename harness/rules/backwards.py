"""Rules about what backward begins at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers
from harness.rules.finding import Evidence, Rule, Severity
from harness.rules.loss_calls import HARD, find_obstacle_to_calls, list_calls, tell_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun

NEGATED = (
    *HARD,
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
)
"""Loss functions that have a floor, and no ceiling."""


def _check_sign(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    if run.observed is None or has_several_optimizers(run.observed):
        return
    calls = [(step, call) for step, call in list_calls(run) if call.scale]
    negative = [(step, call) for step, call in calls if call.name in NEGATED and (call.scale or 0) < 0]
    if not negative or len(negative) < len(calls) or any(call.value is None for _, call in calls):
        return
    step, first = negative[0]
    yield Evidence(
        message=f"{first.name} reaches the backward with the factor {first.scale:.3g}: its value {first.value:.4g} is "
        f"made larger and not smaller ({tell_place(negative, len(calls))}, and no other loss function is there).",
        cause="the sign of the loss turned round, once too often or once too rarely.",
        advice="take the minus away; where the model is to unlearn, ignore this rule with that reason.",
        subject=first.name,
        step=step,
    )


NEGATED_LOSS = Rule(
    code="T305",
    name="negated-loss",
    severity=Severity.ERROR,
    summary="Training makes its loss function smaller.",
    explanation="""\
The factor with which the result of a loss function reached the backward, as its gradient tells. An error when it
is below 0 for every loss function of every step watched. Silent where another loss function has a positive one, as
in adversarial training and with regularisers, where several optimizers take turns, and about losses per sample,
which a program weights itself.

Unlearning by gradient ascent looks the same; ignore the rule there.""",
    cases=("a negated loss, whose curve falls without end",),
    find_obstacle=find_obstacle_to_calls,
    check=_check_sign,
    explains=("T1",),
)


def _check_cut(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    deep_steps = [deep for deep in (run.observed.deep_steps if run.observed else []) if deep.backwards]
    cut = [deep for deep in deep_steps if all(backward.is_leaf for backward in deep.backwards)]
    if not cut or len(cut) < len(deep_steps):
        return
    yield Evidence(
        message=f"backward begins at a tensor that no operation made, in all {len(cut)} steps watched in depth: its "
        "gradient ends there and reaches no parameter.",
        cause="a loss taken out of its graph and made a tensor anew: torch.tensor(loss), loss.data, loss.item() or "
        "loss.detach().requires_grad_().",
        advice="call backward on what the loss function returned.",
        subject="loss",
        step=cut[0].step,
    )


LOSS_CUT_OFF = Rule(
    code="T306",
    name="loss-cut-off",
    severity=Severity.ERROR,
    summary="The loss that backward begins at was computed from the model.",
    explanation="""\
An error when what backward is called on was made by no operation, in every step watched in depth: it is a new
tensor that only requires a gradient, and nothing behind it gets one.""",
    cases=("torch.tensor(loss.item(), requires_grad=True) to silence 'does not require grad'",),
    find_obstacle=lambda run: (
        None
        if run.observed and any(deep.backwards for deep in run.observed.deep_steps)
        else "no backward was seen in a step watched in depth"
    ),
    check=_check_cut,
    explains=("T1", "T4", "T5"),
)

RULES = (LOSS_CUT_OFF, NEGATED_LOSS)
