"""Rules about the learning rates that the optimizers stepped with."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.record.observation import Outcome
from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.optimizer_observation import SchedulerObservation
    from harness.record.run import TrainingRun

ADAPTIVE = ("adam", "lion", "lamb", "adan", "sophia", "muon")
"""Optimizers whose step is about as long as the rate, however small the gradient."""
OWN_RATE = ("dadapt", "prodigy", "adafactor", "schedulefree", "rprop")
MIN_STEPS = 3
NEAR = 0.99


@dataclass(frozen=True, slots=True)
class Rates:
    """The largest learning rate of an optimizer's groups at each of its steps."""

    position: int
    name: str
    steps: list[int]
    values: list[float]
    base: float | None

    @property
    def is_rising(self) -> bool:
        """Whether it never falls, and is larger at the end."""
        return self.values[-1] > self.values[0] and all(b >= a for a, b in itertools.pairwise(self.values))

    @property
    def is_search(self) -> bool:
        """Whether it looks like a search for a learning rate: it grows to the end, past its base."""
        return (
            self.is_rising
            and self.values[-1] > 100 * self.values[0]
            and (self.base is None or self.values[-1] > 1.5 * self.base)
        )


def list_rates(run: TrainingRun) -> list[Rates]:
    """The rates of every optimizer that has some, in order."""
    observed = observed_of(run)
    found = []
    for position, optimizer in enumerate(observed.optimizers):
        pairs = [
            (step.step, max(rates))
            for step in observed.steps
            for index, group in zip(step.optimizers, step.learning_rates, strict=False)
            if index == position
            and (rates := [rate for rate in group if rate is not None and math.isfinite(rate)])
        ]
        if pairs:
            initial = [group.hyperparameters.get("initial_lr") for group in optimizer.groups]
            bases = [float(value) for value in initial if isinstance(value, (int, float))]
            found.append(
                Rates(
                    position,
                    optimizer.name,
                    [step for step, _ in pairs],
                    [rate for _, rate in pairs],
                    max(bases, default=None),
                )
            )
    return found


def find_obstacle_to_rates(run: TrainingRun) -> str | None:
    """Why learning rates can't be judged; None when they can."""
    if run.observed is None:
        return "nothing was watched"
    return None if list_rates(run) else "no learning rate was seen"


def list_schedulers(run: TrainingRun, position: int | None = None) -> list[SchedulerObservation]:
    """The schedulers that no other one steps, of one optimizer or of all."""
    return [
        scheduler
        for scheduler in observed_of(run).schedulers
        if not scheduler.is_part and (position is None or scheduler.optimizer == position)
    ]


def is_completed(run: TrainingRun) -> bool:
    """Whether the program came to its own end, so that what it did not do is not only cut off."""
    return observed_of(run).outcome is Outcome.COMPLETED


def is_adaptive(name: str) -> bool:
    """Whether an optimizer's step is about as long as its rate."""
    return any(word in name.lower() for word in ADAPTIVE) and not _has_own_rate(name)


def tell_optimizer(rates: Rates, run: TrainingRun) -> str:
    """The class of the optimizer, with its position where there are several."""
    several = len(observed_of(run).optimizers) > 1
    return f"{rates.name} (optimizer {rates.position})" if several else rates.name


def _check_zero(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    every = list_rates(run)
    zero = [rates for rates in every if not any(rates.values) and len(rates.values) >= MIN_STEPS]
    if not zero:
        return
    first = zero[0]
    is_waiting = not is_completed(run) and any(
        scheduler.num_steps == 0 for scheduler in list_schedulers(run, first.position)
    )
    severity = None if len(zero) == len(every) and not is_waiting else Severity.WARNING
    told = " and ".join(tell_optimizer(rates, run) for rates in zero[:2])
    yield Evidence(
        message=f"the learning rate of {told} is 0 in all {len(first.values)} steps that it made, so that nothing "
        "can be learned.",
        cause="a default or a command line that sets it to 0, or a schedule whose factor is 0, as one that divides "
        "whole numbers, or was told 0 steps.",
        advice="print optimizer.param_groups[0]['lr'] before the first step, with and without the schedule.",
        subject="learning_rate",
        step=first.steps[0],
        severity=severity,
    )


def _check_tiny(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    updates = [step.update_to_weight for step in observed.steps if step.update_to_weight is not None]
    if not updates or max(updates) > bounds["max_update"]:
        return
    for rates in list_rates(run):
        least = bounds["min_adaptive_rate"] if is_adaptive(rates.name) else bounds["min_rate"]
        top = max(rates.values)
        # While it rises towards its base it is a warm-up.
        is_warming_up = rates.is_rising and (rates.base is None or rates.values[-1] < NEAR * rates.base)
        if not 0 < top <= least or len(rates.values) < MIN_STEPS or is_warming_up:
            continue
        if _has_own_rate(rates.name):
            continue
        yield Evidence(
            message=f"the learning rate of {tell_optimizer(rates, run)} is never above {top:.3g} "
            f"in {len(rates.values)} steps (usual: above {least:g}), and no step changes the weights "
            f"by more than {max(updates):.2g} of their size.",
            cause="a rate with some zeros too many, or a schedule that multiplies it down from the start.",
            advice="try a rate 1000 times as high for a few steps: the loss should then move.",
            subject="learning_rate",
            step=rates.steps[0],
        )
        return


def _check_wild(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    updates = {step.step: step.update_to_weight or 0.0 for step in observed.steps}
    for rates in list_rates(run):
        top = max(rates.values)
        # Some steps, so that a single odd one, which the rule on jumps tells, is not taken for the run's rate.
        bound = bounds["max_adaptive_rate" if is_adaptive(rates.name) else "max_rate"]
        num_above = sum(rate > bound for rate in rates.values)
        if _has_own_rate(rates.name) or rates.is_search or num_above < MIN_STEPS:
            continue
        largest = max((updates.get(step, 0.0) for step in rates.steps[1:]), default=0.0)
        if not is_adaptive(rates.name) and (largest <= bounds["max_update"] or "SGD" not in rates.name):
            continue
        moves = (
            f", and single steps change the weights by up to {largest:.2g} of their size" if largest else ""
        )
        why = ": each number moves by about that much per step" if is_adaptive(rates.name) else ""
        yield Evidence(
            message=f"{tell_optimizer(rates, run)} steps with learning rates of up to {top:.3g} (usual: below "
            f"{bound:g}){moves}{why}.",
            cause="a rate meant for another optimizer, or one with a zero too few.",
            advice="train with a hundredth of it, and compare the losses of the first steps.",
            subject="learning_rate",
            step=rates.steps[rates.values.index(top)],
            severity=None if largest > bounds["max_update"] else Severity.NOTE,
        )
        return


def _has_own_rate(name: str) -> bool:
    """Whether an optimizer finds its rate itself, and `lr` is a factor for it."""
    return any(word in name.lower() for word in OWN_RATE)


def _check_jump(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for rates in list_rates(run):
        if rates.is_search:
            continue
        top = max(rates.values[:MIN_STEPS])
        for position in range(MIN_STEPS, len(rates.values)):
            rate = rates.values[position]
            is_wild = top > 0 and rate > bounds["max_factor"] * top and rate > 2 * (rates.base or 0.0)
            if is_wild:
                yield Evidence(
                    message=f"the learning rate of {tell_optimizer(rates, run)} jumps from "
                    f"{rates.values[position - 1]:.3g} to {rate:.3g} at step {rates.steps[position]}, "
                    f"{rate / top:.3g} times the highest before (allowed {bounds['max_factor']:g}).",
                    cause="two schedules on one optimizer, a schedule in other units after a warm-up, or a rate set by "
                    "hand and not scaled.",
                    advice="print what sets the rate at that step; one schedule (SequentialLR) should hold all phases.",
                    subject="learning_rate",
                    step=rates.steps[position],
                )
                return
            top = max(top, rate)


LEARNING_RATE_ZERO = Rule(
    code="T601",
    name="learning-rate-zero",
    severity=Severity.ERROR,
    summary="The learning rate is not 0 for the whole run.",
    explanation="""\
An error when every group of every optimizer had a learning rate of 0 in each of at least three steps. A warning
where another optimizer had one, and where a run that was ended from outside has a schedule that had not moved yet.

Silent about groups of 0 beside others, which freeze layers on purpose, and about optimizers that have no rate.""",
    cases=(
        "a scheduler that was told 0 training steps (transformers#24088)",
        "a warm-up factor computed with whole-number division",
    ),
    find_obstacle=find_obstacle_to_rates,
    check=_check_zero,
    explains=("T1", "T511", "T507", "T513", "T512", "T6"),
)

LEARNING_RATE_TINY = Rule(
    code="T602",
    name="learning-rate-tiny",
    severity=Severity.WARNING,
    summary="The learning rate is high enough to change the weights.",
    explanation="""\
The highest rate of the run is below `min_rate` (below `min_adaptive_rate` for optimizers of Adam's kind, whose steps
are about as long as the rate), and no step that was watched in depth changed the weights by more than `max_update`
of their size. Both must hold: a loss that is a sum needs a low rate, and moves the weights all the same.

Silent while the rate rises to the end, which is a warm-up; about preference tuning at 5e-7; and about optimizers that
find their own rate.""",
    cases=("a rate of 3e-8 for 3e-4", "a schedule that multiplies the rate by its own value"),
    bounds=(
        Bound("min_rate", 1e-6, "lowest usual learning rate"),
        Bound("min_adaptive_rate", 1e-7, "lowest usual learning rate of optimizers of Adam's kind"),
        Bound("max_update", 1e-5, "change of the weights by a step, as a share of their size, that is none"),
    ),
    find_obstacle=find_obstacle_to_rates,
    check=_check_tiny,
    explains=("T1", "T511", "T513", "T512"),
)

LEARNING_RATE_WILD = Rule(
    code="T603",
    name="learning-rate-wild",
    severity=Severity.WARNING,
    summary="The learning rate is not far above what its optimizer can use.",
    explanation="""\
Optimizers of Adam's kind move each number by about the learning rate in each step; above `max_adaptive_rate` that is
as much as usual weights are large. A warning where a step watched in depth changed the weights by more than
`max_update` of their size, else a note: inputs and other single tensors are optimized with such rates on purpose.

For SGD 20 can be right; a rate above `max_rate` is a warning only where such a step was seen.
Silent in a search for a learning rate, where the rate grows to the end.""",
    cases=("SGD's 0.1 left in the configuration when the optimizer became AdamW",),
    bounds=(
        Bound("max_adaptive_rate", 0.1, "highest usual learning rate of optimizers of Adam's kind"),
        Bound("max_rate", 1.0, "highest usual learning rate of SGD, where steps are long as well"),
        Bound("max_update", 0.2, "largest usual change of the weights by a step, as a share of their size"),
    ),
    find_obstacle=find_obstacle_to_rates,
    check=_check_wild,
    explains=("T903", "T408", "T402", "T513", "T1", "T2"),
)

RATE_JUMPS = Rule(
    code="T604",
    name="learning-rate-jumps",
    severity=Severity.WARNING,
    summary="The learning rate never jumps far above all it has been.",
    explanation="""\
From the fourth step on, a rate that is more than `max_factor` times the highest before it, and more than twice the
base rate that the schedule was built with. A warm-up only climbs to that base. Silent in a search for a learning rate,
and where an optimizer's rate was 0 until then, as when a part is unfrozen.""",
    cases=("a warm-up and a decay on one optimizer, each undoing the other",),
    bounds=(Bound("max_factor", 10.0, "largest usual rise over the highest rate before"),),
    find_obstacle=find_obstacle_to_rates,
    check=_check_jump,
    explains=("T1", "T2"),
)

RULES = (
    LEARNING_RATE_ZERO,
    LEARNING_RATE_TINY,
    LEARNING_RATE_WILD,
    RATE_JUMPS,
)
