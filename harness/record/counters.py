"""What a step does, counted and not timed: the same on any machine, whatever else runs there."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class CountedStep:
    """The operations of one optimizer step.

    Attributes:
        step: Its number.
        ops: How often each operation of torch was launched, by phase and name, such as "aten::copy_".
        flops: Floating-point operations by phase, of the operations that torch knows a formula of: matrix products,
            convolutions, attention.
        tensor_bytes: By how much the tensors grew at most, over those that were there before the step.
        num_kernels: Kernels launched on the GPU; None where they were not counted, or there is none.
    """

    step: int
    ops: dict[str, dict[str, int]] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    tensor_bytes: int = 0
    num_kernels: int | None = None

    @property
    def num_ops(self) -> int:
        """Operations of the whole step."""
        return sum(sum(names.values()) for names in self.ops.values())

    @property
    def num_flops(self) -> int:
        """Floating-point operations of the whole step."""
        return sum(self.flops.values())

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The step as `dataclasses.asdict` gave it.

        Raises:
            TypeError, AttributeError: It is not one.
        """
        step = cls(**value)
        counts = {"step": step.step, "tensor_bytes": step.tensor_bytes, **step.flops}
        if step.num_kernels is not None:
            counts["num_kernels"] = step.num_kernels
        for names in step.ops.values():
            counts |= dict(names.items())
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, (int, float)):
                raise TypeError(f"{name} is counted as {count!r}")
        return step


def summarize_counts(steps: Sequence[CountedStep]) -> CountedStep | None:
    """One step for several: the median of every number, which a step out of the ordinary does not move.

    None without any. Of an even number the lower of the two middle values, so that counts stay whole.
    """
    if not steps:
        return None
    phases = {phase: None for step in steps for phase in (*step.ops, *step.flops)}
    ops = {}
    for phase in phases:
        names = {name: None for step in steps for name in step.ops.get(phase, {})}
        counts = {
            name: _find_middle([step.ops.get(phase, {}).get(name, 0) for step in steps]) for name in names
        }
        ops[phase] = {name: count for name, count in counts.items() if count}
    flops = {phase: _find_middle([step.flops.get(phase, 0) for step in steps]) for phase in phases}
    kernels = [step.num_kernels for step in steps if step.num_kernels is not None]
    return CountedStep(
        step=steps[0].step,
        ops={phase: names for phase, names in ops.items() if names},
        flops={phase: count for phase, count in flops.items() if count},
        tensor_bytes=_find_middle([step.tensor_bytes for step in steps]),
        num_kernels=_find_middle(kernels) if kernels else None,
    )


def _find_middle(values: list[int]) -> int:
    return int(statistics.median_low(values))
