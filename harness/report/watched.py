"""What was watched of a run, in a few lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.record.watched import find_phase_shares

if TYPE_CHECKING:
    from harness.record.run import TrainingRun

MAX_LISTED = 3


def tell_watched(run: TrainingRun) -> list[str]:
    """Optimizers, learning rate, gradient norm, batches, time and blind spots; nothing for an unwatched run."""
    observed = run.observed
    if observed is None or not observed.steps:
        return []
    lines = [
        f"  {optimizer.name}: {_count(len(optimizer.groups), 'group')}, "
        f"{sum(group.num_elements for group in optimizer.groups):,} parameters, {_count(optimizer.num_steps, 'step')}"
        for optimizer in observed.optimizers
    ]
    for name in ("learning_rate", "grad_norm"):
        if values := [value for _, value in run.metric(name)]:
            label = name.replace("_", " ")
            lines.append(f"  {label}: {values[0]:.4g} -> {values[-1]:.4g} (highest {max(values):.4g})")
    shapes = [str(list(shape)) for shapes in observed.steps[0].batch_shapes[:1] for shape in shapes]
    if shapes:
        lines.append(f"  first batch: {', '.join(shapes[:MAX_LISTED])}")
    if run.step_time_s:
        shares = find_phase_shares(observed)
        phases = ", ".join(f"{phase} {share:.0%}" for phase, share in shares.items() if share >= 0.005)  # noqa: PLR2004
        lines.append(f"  step time: {run.step_time_s * 1e3:.3g} ms ({phases})")
    if len(run.ranks) > 1:
        lines.append(
            f"  {len(run.ranks)} ranks, with {', '.join(str(len(rank.steps)) for rank in run.ranks)} steps"
        )
    return lines + [f"  not seen: {reason}" for reason in observed.not_seen]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
