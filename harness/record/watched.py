"""Turns what the watcher saw of a run into its steps."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness.record.run import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.record.observation import RunObservation
    from harness.record.step_observation import StepObservation

LOSS = "loss"


def build_watched_steps(observation: RunObservation, ranks: Sequence[RunObservation] = ()) -> list[Step]:
    """One `Step` per optimizer step that was watched.

    With `ranks` that train together, the loss is the mean over them: what their training minimizes, as their
    gradients count alike. All else is of the one observation.

    Its metrics are `loss`, `learning_rate` (of the first group), `grad_norm`, `num_samples` and `num_tokens`, as
    far as they were seen. Where several optimizers take turns, as in a GAN, each has a loss of its own:
    `loss/0`, `loss/1`. A step that a GradScaler skipped has no gradient norm: it was infinite on purpose.
    """
    takes_turns = has_several_optimizers(observation)
    losses = _average(ranks) if train_together(ranks) else [step.loss for step in observation.steps]
    return [
        Step(step=step.step, metrics=_read_metrics(step, loss, takes_turns=takes_turns), time_s=step.time_s)
        for step, loss in zip(observation.steps, losses, strict=True)
    ]


def train_together(ranks: Sequence[RunObservation]) -> bool:
    """Whether these are all the ranks of one training, in step: of one process group, with the same steps."""
    numbers = [[step.step for step in run.steps] for run in ranks]
    return (
        len(ranks) > 1
        and sorted(run.rank for run in ranks) == list(range(ranks[0].world_size))
        and all(run.has_process_group for run in ranks)
        and all(number == numbers[0] for number in numbers)
    )


def _average(ranks: Sequence[RunObservation]) -> list[float | None]:
    """The mean loss of each step over the ranks that saw one: in a pipeline, only the last stage does."""
    rows = zip(*(run.steps for run in ranks), strict=True)
    losses = [[step.loss for step in row if step.loss is not None] for row in rows]
    return [sum(found) / len(found) if found else None for found in losses]


def has_several_optimizers(observation: RunObservation) -> bool:
    """Whether several optimizers took turns, so that there is no one loss.

    They do when one that shares no step with another steps again after it: a, b, a. One after the other, as in
    two stages of one training, and one that steps more rarely beside another, are a single series.
    """
    turns = [
        frozenset(step.optimizers) for step in observation.steps if step.optimizers and not step.was_skipped
    ]
    changes = [
        turn for turn, before in zip(turns, [frozenset[int](), *turns], strict=False) if turn != before
    ]
    return any(
        first == third and not (first & second)
        for first, second, third in zip(changes, changes[1:], changes[2:], strict=False)
    )


def find_phase_shares(observation: RunObservation) -> dict[str, float]:
    """Share of the median step that each phase takes, by phase; empty when no step was timed."""
    timed = [step.phase_times_s for step in observation.steps if step.phase_times_s and step.time_s]
    medians = {
        phase: statistics.median(times.get(phase, 0.0) for times in timed)
        for phase in (timed[0] if timed else ())
    }
    total_s = sum(medians.values())
    return {phase: time_s / total_s for phase, time_s in medians.items()} if total_s else {}


def _read_metrics(step: StepObservation, loss: float | None, *, takes_turns: bool) -> dict[str, float]:
    loss_name = f"{LOSS}/{step.optimizers[0]}" if takes_turns and step.optimizers else LOSS
    seen: dict[str, float | None] = {
        loss_name: loss,
        "learning_rate": next(
            (rate for group in step.learning_rates for rate in group if rate is not None), None
        ),
        "grad_norm": None if step.was_skipped else step.grad_norm,
        "num_samples": step.num_samples,
        "num_tokens": step.num_tokens,
    }
    return {name: float(value) for name, value in seen.items() if value is not None}
