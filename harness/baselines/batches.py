"""How the batches of two runs differ, and whether they may be draws from the same data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.pairs import CONTENTS_TOLERANCE, Difference
from harness.baselines.run_settings import ORDER
from harness.baselines.side_calls import is_given_otherwise
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.baselines.pairs import Pair
    from harness.baselines.ruler import Ruler
    from harness.baselines.trajectory import Trajectory

CALLED_WITH, OTHER_CONTENTS = "batch that the model was called with", "other contents"
LATER = "a later micro-batch"
KIND_FACTOR = 1.5

Range = tuple[int, int]


def compare_batches(pair: Pair, ruler: Ruler) -> Iterator[Difference]:
    """What differs in the batch of a step, if anything."""
    before, now = pair.before, pair.now
    if pair.is_in_other_mode:
        # Calls in eval mode are not looked at: of the batch, only the loader tells.
        if ruler.is_exact and has_other_given(pair):
            yield Difference(Phase.DATA, "batch that the loader gave", OTHER_CONTENTS, moves=False)
        return
    if before.shapes != now.shapes:
        # A field of the batch that nothing uses may be gone: to the last bit, what follows from it tells.
        yield Difference(
            Phase.DATA, "shape of the batch", f"{before.shapes} -> {now.shapes}", moves=not ruler.is_exact
        )
        return
    moved = _describe_inputs(pair, CONTENTS_TOLERANCE if not ruler.is_exact else 0.0)
    if not ruler.is_exact:
        if moved:
            yield Difference(Phase.DATA, CALLED_WITH, moved)
        return
    if not before.batch or not now.batch:
        return
    _, first, *others = zip(before.batch.split(), now.batch.split(), strict=False)
    if has_other_given(pair):
        yield Difference(Phase.DATA, "batch that the loader gave", moved or OTHER_CONTENTS, moves=False)
    elif first[0] != first[1] and not is_given_otherwise(pair):
        yield Difference(Phase.DATA, CALLED_WITH, moved or OTHER_CONTENTS, moves=False)
    elif any(one != other for one, other in others) and _is_first_same(pair):
        yield Difference(Phase.DATA, LATER, OTHER_CONTENTS, moves=False)


def has_other_given(pair: Pair) -> bool:
    """Whether loaders gave other batches until then."""
    before, now = pair.before.batch.partition(" ")[0], pair.now.batch.partition(" ")[0]
    return bool(before and now) and before != now


def has_same_order(pair: Pair) -> bool:
    """Whether loaders are known to have drawn the same samples in the same order, so that only contents can differ."""
    before, now = pair.baseline.settings.get(Phase.DATA, {}), pair.observed.settings.get(Phase.DATA, {})
    orders = {name for name in before.keys() & now.keys() if ORDER in name}
    return bool(orders) and all(before[name] == now[name] for name in orders)


def find_repeated(pair: Pair) -> int | None:
    """The earlier step that the batch of the run's step is that of, where the baseline's is new; None without one."""
    baseline, observed = pair.baseline.points[: pair.index], pair.observed.points[: pair.index]
    if any(point.batch == pair.before.batch for point in baseline):
        return None
    return next((point.step for point in observed if point.batch == pair.now.batch), None)


def _is_first_same(pair: Pair) -> bool:
    """Whether the first micro-batch went the same way, as far as is known: its draws come before the next batch."""
    if pair.deep is None:
        return True
    before, now = pair.deep
    values = [(one.value, other.value) for one, other in zip(before.losses[:1], now.losses[:1], strict=False)]
    return before.outputs == now.outputs and all(one == other for one, other in values)


def _describe_inputs(pair: Pair, tolerance: float) -> str:
    """How the numbers that the model was called with have changed; empty where they have not, or nothing tells."""
    if pair.deep is None:
        return ""
    before, now = pair.deep
    for earlier, later in zip(before.inputs, now.inputs, strict=False):
        if earlier.dtype != later.dtype:
            return f"type {earlier.dtype} -> {later.dtype}"
        scale = max(abs(earlier.std or 0.0), abs(later.std or 0.0), abs(earlier.mean or 0.0), 1e-12)
        moved = [
            f"{name} {_tell_change(one, other)}"
            for name in ("minimum", "maximum", "mean", "std")
            if (one := getattr(earlier, name)) is not None
            and (other := getattr(later, name)) is not None
            and one != other
            and abs(one - other) > tolerance * scale
        ]
        if moved:
            return ", ".join(moved)
    return ""


def _tell_change(one: float, other: float) -> str:
    """Both, to as many digits as tell them apart."""
    digits = next((digits for digits in (4, 6, 9) if f"{one:.{digits}g}" != f"{other:.{digits}g}"), 17)
    return f"{one:.{digits}g} -> {other:.{digits}g}"


def are_of_another_kind(pair: Pair) -> bool:
    """Whether the batches of a step can't be draws from the same data: other shapes or types, or another scale."""
    before, now = pair.before.shapes, pair.now.shapes
    if before and now and before != now and not _are_shapes_alike(pair):
        return True
    if pair.deep is None:
        return False
    return any(
        one.dtype != other.dtype
        or (one.dtype.startswith("float") and is_scaled(one.std, other.std, KIND_FACTOR))
        for one, other in zip(pair.deep[0].inputs, pair.deep[1].inputs, strict=False)
    )


def is_scaled(one: float | None, other: float | None, factor: float) -> bool:
    """Whether two sizes are further apart than by a factor; not where one of them is nothing."""
    if not one or not other:
        return False
    return not 1 / factor <= other / one <= factor


def _are_shapes_alike(pair: Pair) -> bool:
    """Whether sizes vary with the samples of a batch: over all steps of a kind, both runs have some in common."""
    before = _find_ranges(pair.baseline, pair.before.optimizers)
    now = _find_ranges(pair.observed, pair.now.optimizers)
    return before.keys() == now.keys() and all(
        low <= now[key][1] and now[key][0] <= high for key, (low, high) in before.items()
    )


def _find_ranges(trajectory: Trajectory, optimizers: tuple[int, ...]) -> dict[tuple[int, int, int], Range]:
    """Smallest and largest size over all steps, by number of dimensions, position of the tensor, and dimension."""
    found: dict[tuple[int, int, int], Range] = {}
    for text in dict.fromkeys(point.shapes for point in trajectory.points if point.optimizers == optimizers):
        for tensors in _read_shapes(text):
            for place, sizes in enumerate(tensors):
                for dimension, size in enumerate(sizes):
                    key = (place, len(sizes), dimension)
                    low, high = found.get(key, (size, size))
                    found[key] = (min(low, size), max(high, size))
    return found


def _read_shapes(text: str) -> list[list[list[int]]]:
    """Sizes of every tensor of every micro-batch, from `2 of 16x27, 16x24`; a scalar has none, nor has other text."""
    batches = (part.rpartition(" of ")[2] for part in text.split(", ") if part)
    return [
        [[int(size) for size in shape.split("x") if size.isdecimal()] for shape in batch.split(" ")]
        for batch in batches
    ]
