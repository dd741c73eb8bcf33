"""What changed in the operations of a step, in words: a changed counter explains a changed time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.record.counters import CountedStep

MIB = 2**20
MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class OpChange:
    """An operation that is launched more or less often in a phase of a step."""

    phase: str
    name: str
    base: int
    head: int

    def __str__(self) -> str:
        difference = self.head - self.base
        more = "more" if difference > 0 else "fewer"
        before = f", {self.base} before" if self.base else ", none before"
        return f"{abs(difference)} {more} {self.name} a step, in {self.phase}{before}"


def find_op_changes(base: CountedStep, head: CountedStep) -> list[OpChange]:
    """Operations that differ in number between two steps, the largest differences first."""
    phases = {phase: None for step in (base, head) for phase in step.ops}
    changes = []
    for phase in phases:
        ours, theirs = head.ops.get(phase, {}), base.ops.get(phase, {})
        changes += [
            OpChange(phase, name, theirs.get(name, 0), ours.get(name, 0))
            for name in {**theirs, **ours}
            if theirs.get(name, 0) != ours.get(name, 0)
        ]
    return sorted(changes, key=lambda change: (-abs(change.head - change.base), change.phase, change.name))


def tell_counters(base: CountedStep, head: CountedStep) -> list[str]:
    """What differs between two steps, one line each; none where all counters are equal."""
    changes = find_op_changes(base, head)
    lines = [str(change) for change in changes[:MAX_LISTED]]
    if len(changes) > MAX_LISTED:
        lines.append(f"and {len(changes) - MAX_LISTED} other operations differ in number")
    if base.num_flops != head.num_flops:
        share = f" ({head.num_flops / base.num_flops - 1:+.1%})" if base.num_flops else ""
        phases = [
            phase
            for phase in {**base.flops, **head.flops}
            if base.flops.get(phase, 0) != head.flops.get(phase, 0)
        ]
        lines.append(
            f"{base.num_flops:,} -> {head.num_flops:,} FLOPs a step{share}, in {' and '.join(phases)}"
        )
    if None not in (base.num_kernels, head.num_kernels) and base.num_kernels != head.num_kernels:
        lines.append(f"{base.num_kernels:,} -> {head.num_kernels:,} kernels launched a step")
    if base.tensor_bytes != head.tensor_bytes:
        difference = head.tensor_bytes - base.tensor_bytes
        lines.append(
            f"{abs(difference):,} bytes {'more' if difference > 0 else 'fewer'} of tensors at the peak of a step "
            f"({base.tensor_bytes / MIB:.1f} -> {head.tensor_bytes / MIB:.1f} MiB)"
        )
    return lines
