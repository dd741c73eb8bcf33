"""Rules about how the optimizer is set up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.rules.deep_steps import (
    find_obstacle_to_deep,
    find_obstacle_to_optimizers,
    find_obstacle_to_single,
    is_vector,
    list_deep,
    observed_of,
    tell_names,
    tell_steps,
)
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.optimizer_observation import OptimizerObservation
    from harness.record.run import TrainingRun


ADAPTIVE = ("Adam", "AdamW", "NAdam", "RAdam", "SparseAdam")


def _check_settings(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for index, optimizer in enumerate(observed_of(run).optimizers):
        for position, group in enumerate(optimizer.groups):
            rate = _find_top_rate(run, index, position)
            for found in (
                _judge_momentum(optimizer, group.hyperparameters),
                _judge_decay(optimizer, group.hyperparameters, rate, bounds["max_decay"]),
                _judge_epsilon(run, optimizer, group.hyperparameters, bounds["max_epsilon"]),
            ):
                if found is not None:
                    yield found
                    return


def _find_top_rate(run: TrainingRun, index: int, position: int) -> float:
    rates = [
        step.learning_rates[step.optimizers.index(index)][position]
        for step in observed_of(run).steps
        if index in step.optimizers
        and len(step.learning_rates) == len(step.optimizers)
        and position < len(step.learning_rates[step.optimizers.index(index)])
    ]
    return max((rate for rate in rates if rate is not None), default=0.0)


def _judge_momentum(optimizer: OptimizerObservation, settings: Mapping[str, object]) -> Evidence | None:
    momentum, betas = settings.get("momentum"), settings.get("betas")
    if isinstance(momentum, (int, float)) and momentum >= 1:
        return Evidence(
            message=f"the momentum of {optimizer.name} is {momentum:g}; from 1 on, steps grow without end.",
            cause="a value that belongs to another setting.",
            advice="set it below 1, 0.9 as a rule.",
            subject="momentum",
            severity=Severity.ERROR,
        )
    if isinstance(betas, list) and len(betas) > 1 and betas[0] > betas[1] and betas[0] >= HIGH_BETA:
        return Evidence(
            message=f"the betas of {optimizer.name} are {betas[0]:g} and {betas[1]:g}: the mean is taken over more "
            "steps than "
            "the scale it is divided by.",
            cause="the two values are in the wrong order.",
            advice="betas=(0.9, 0.999), or (0.9, 0.95) for large language models.",
            subject="betas",
        )
    return None


HIGH_BETA = 0.99


def _judge_decay(
    optimizer: OptimizerObservation, settings: Mapping[str, object], rate: float, allowed: float
) -> Evidence | None:
    decay, momentum = settings.get("weight_decay"), settings.get("momentum")
    if not isinstance(decay, (int, float)) or not decay:
        return None
    is_decoupled = optimizer.name == "AdamW" or bool(settings.get("decoupled_weight_decay"))
    if not is_decoupled and optimizer.name != "SGD":
        return None
    shrink = rate * decay
    if optimizer.name == "SGD" and isinstance(momentum, (int, float)) and momentum < 1:
        shrink /= 1 - momentum
    if not shrink > allowed:
        return None
    return Evidence(
        message=f"weight decay {decay:g} at a learning rate of {rate:g} takes {min(shrink, 1.0):.1%} off every "
        "weight at each step "
        f"of {optimizer.name} (allowed {allowed:.0%}): what is learned is gone after {math.ceil(1 / shrink)} steps.",
        cause="a weight decay that is orders of magnitude too high.",
        advice="try 0.1 with AdamW, or 1e-4 with SGD.",
        subject="weight_decay",
    )


def _judge_epsilon(
    run: TrainingRun, optimizer: OptimizerObservation, settings: Mapping[str, object], allowed: float
) -> Evidence | None:
    epsilon = settings.get("eps")
    if optimizer.name not in ADAPTIVE or not isinstance(epsilon, (int, float)) or epsilon < LEAST_EPSILON:
        return None
    sizes = [
        p.grad_norm / math.sqrt(p.num_elements)
        for _, deep in list_deep(run)
        for p in deep.parameters
        if p.grad_norm and not is_vector(p.shape)
    ]
    if not sizes or epsilon < allowed * max(sizes):
        return None
    return Evidence(
        message=f"eps of {optimizer.name} is {epsilon:g}, while the gradients of no weight are larger than "
        f"{max(sizes):.2g} in the "
        f"root mean square: updates are {epsilon / max(sizes):.3g} times smaller than the learning rate says.",
        cause="an eps meant for another optimizer or another model.",
        advice="use the default of 1e-8, or raise the learning rate as much.",
        subject="eps",
    )


LEAST_EPSILON = 1e-3


def _check_decayed_vectors(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    shapes = {p.name: p.shape for _, deep in list_deep(run) for p in deep.parameters}
    for optimizer in observed_of(run).optimizers:
        if optimizer.name != "AdamW" or len(optimizer.groups) < 2:  # noqa: PLR2004  one group is not split
            continue
        for group in optimizer.groups:
            decay = group.hyperparameters.get("weight_decay")
            known = [name for name in group.parameters if name in shapes]
            if decay and known and all(is_vector(shapes[name]) for name in known):
                yield Evidence(
                    message=f"a group of {optimizer.name} holds nothing but biases and weights of norms, "
                    f"{len(known)} of them "
                    f"({tell_names(known)}), and decays them by {decay:g}.",
                    cause="the group was made to leave them out of the weight decay, and its own value is not 0.",
                    advice="set weight_decay=0.0 in that group.",
                    subject=known[0],
                )
                return


SETTINGS = Rule(
    code="T505",
    name="optimizer-setting-out-of-range",
    severity=Severity.WARNING,
    summary="Momentum, betas, eps and weight decay are in the range in which they do what they are for.",
    explanation="""\
A momentum of 1 or more, which is an error; betas in the wrong order; a weight decay that, times the learning rate,
takes more than `max_decay` off the weights at each step (AdamW, and SGD with its momentum); an eps of Adam above 0.001
that is `max_epsilon` times what the largest gradients measure. A first beta of 0, as GANs use, is silent.""",
    cases=("weight decay and learning rate swapped", "betas swapped", "an eps of 1 copied from RMSprop"),
    bounds=(
        Bound("max_decay", 0.05, "share that weight decay may take off the weights at each step"),
        Bound("max_epsilon", 3.0, "how many times the root mean square of the largest gradient eps may be"),
    ),
    find_obstacle=find_obstacle_to_optimizers,
    check=_check_settings,
    explains=("T513", "T1"),
)


DECAYED_VECTORS = Rule(
    code="T506",
    name="weight-decay-on-norms",
    severity=Severity.NOTE,
    summary="Biases and weights of norms are not decayed where they have a group of their own.",
    explanation="""\
A group of AdamW, among several, that holds nothing but parameters of one dimension and decays them. A program that
never made such a group decays everything on purpose, or does not care, and is silent.""",
    cases=("Fast-LLM#542",),
    find_obstacle=find_obstacle_to_deep,
    check=_check_decayed_vectors,
)


MINIMIZED = (
    "cross_entropy",
    "nll_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
)


def _check_sign(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    found: list[tuple[int, str]] = []
    num_looked_at = 0
    for step, deep in list_deep(run):
        calls = [call for call in deep.loss_functions if call.is_training and call.scale]
        if not calls:
            continue
        num_looked_at += 1
        groups = [group for index in step.optimizers for group in observed_of(run).optimizers[index].groups]
        is_error = all(call.name in MINIMIZED and call.reduction in ("mean", "sum") for call in calls)
        is_maximized = all(group.hyperparameters.get("maximize") for group in groups)
        if is_error and is_maximized and all((call.scale or 0.0) > 0 for call in calls):
            found.append((step.step, calls[0].name))
    if not found or len(found) < num_looked_at:
        return
    number, name = found[0]
    yield Evidence(
        message=f"the optimizer has maximize=True, and what reaches backward is {name}, which measures an error, in "
        f"{tell_steps([step for step, _ in found])}: training makes it larger.",
        cause="maximize=True left on from another experiment.",
        advice="take maximize away; where the model is to unlearn, ignore this rule with that reason.",
        subject=name,
        step=number,
    )


LOSS_MAXIMIZED = Rule(
    code="T508",
    name="loss-maximized",
    severity=Severity.WARNING,
    summary="An optimizer that maximizes is not given a loss.",
    explanation="""\
`maximize=True` in every group of the optimizer, while the result of loss functions that measure an error
(cross-entropy, squared error and their like, reduced to one number) reaches backward with a positive factor, on every
deep step. A negated loss is T305. Losses per element, as policy gradients have, and several optimizers that take turns
are not judged.""",
    cases=("maximize=True from another experiment",),
    find_obstacle=find_obstacle_to_single,
    check=_check_sign,
    explains=("T1",),
)


RULES = (
    LOSS_MAXIMIZED,
    SETTINGS,
    DECAYED_VECTORS,
)
