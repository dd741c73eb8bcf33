"""What is likely behind learning rates that differ, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.pairs import tell_ratio
from harness.baselines.ruler import is_same_rate, measure_distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.baselines.evidence import Evidence
    from harness.baselines.trajectory import TracePoint

SAME_RATIO = 1e-4
MAX_SHIFT = 3


def tell_rates(evidence: Evidence) -> Iterator[str]:
    """By what factor or shift rates differ, or from which step on."""
    baseline, observed = evidence.pair.baseline.points, evidence.pair.observed.points
    start = evidence.first_index
    before, now = _list_rates(baseline), _list_rates(observed)
    for group in range(min(len(before[start]), len(now[start]))):
        pairs = [
            (one[group], other[group])
            for one, other in zip(before[start:], now[start:], strict=False)
            if group < len(one) and group < len(other)
        ]
        ratios = [other / one for one, other in pairs if one and other is not None]
        name = f"the learning rate of group {group}" if len(before[start]) > 1 else "the learning rate"
        if ratios and all(measure_distance(ratio, ratios[0]) < SAME_RATIO for ratio in ratios):
            if abs(ratios[0] - 1) > SAME_RATIO:
                yield f"{name} is x{ratios[0]:.4g} from step {start} on."
            continue
        shift = _find_shift(before, now, group)
        if shift:
            steps = f"{abs(shift)} step{'s' if abs(shift) > 1 else ''}"
            yield f"the schedule is {steps} {'ahead' if shift > 0 else 'behind'}."
            return
        first = next((pair for pair in pairs if not is_same_rate(*pair)), None)
        if first is not None:
            yield f"{name} takes another course from step {start} on ({tell_ratio('', *first)} there)."


def _list_rates(points: Sequence[TracePoint]) -> list[tuple[float | None, ...]]:
    return [point.learning_rates for point in points]


def _find_shift(
    before: Sequence[Sequence[float | None]], now: Sequence[Sequence[float | None]], group: int
) -> int:
    """By how many steps a schedule is ahead of the other; 0 where it is another one."""
    one = [rates[group] if group < len(rates) else None for rates in before]
    other = [rates[group] if group < len(rates) else None for rates in now]
    for shift in (sign * size for size in range(1, MAX_SHIFT + 1) for sign in (1, -1)):
        early, late = (one[shift:], other) if shift > 0 else (one, other[-shift:])
        num = min(len(early), len(late))
        # The first steps after a shift repeat the start or have nothing before them.
        pairs = list(zip(early[MAX_SHIFT:num], late[MAX_SHIFT:num], strict=True))
        if len(pairs) > MAX_SHIFT and len(set(early[MAX_SHIFT:num])) > 2 and _agree(pairs):  # noqa: PLR2004  moves
            return shift
    return 0


def _agree(pairs: Sequence[tuple[float | None, float | None]]) -> bool:
    return all(
        one is not None and other is not None and measure_distance(one, other) < SAME_RATIO
        for one, other in pairs
    )
