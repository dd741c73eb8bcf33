"""Trajectories: what is stored comes back, to the last bit."""

from __future__ import annotations

import itertools
import json
import math
import struct
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory import (
    DeepPoint,
    InputPoint,
    LossPoint,
    Phase,
    Provenance,
    Settings,
    TensorPoint,
    TracePoint,
    Trajectory,
)
from harness.baselines.trajectory_json import (
    NOT_FINITE,
    read_trajectory,
    round_to_single,
    shorten,
    write_trajectory,
)
from harness.errors import ObservationError
from harness.record.limit import MAX_SECONDS, MAX_STEPS, Limit

NUMBERS = st.none() | st.floats()
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["nan", "inf", "."])
NAMES = st.sampled_from(["0.weight", "0.bias", "1.weight"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=6
)
MARKS = st.text("0123456789abcdef", min_size=8, max_size=8)
SIGNS = st.sampled_from(["ab", "+/", "--", "!!"])
ROWS = st.lists(SIGNS, max_size=4) | MARKS.map(lambda mark: [f"={mark}"])
POINTS = st.builds(
    TracePoint,
    step=st.integers(0, 3),
    loss=NUMBERS,
    learning_rates=st.lists(NUMBERS, max_size=3).map(tuple),
    grad_norm=NUMBERS,
    clipped_norm=NUMBERS,
    update_norm=NUMBERS,
    num_micro_batches=st.integers(0, 5),
    shapes=TEXTS,
    batch=st.sampled_from(["", "- 00000000", "0a0a0a0a 0b0b0b0b"]),
    generators=st.dictionaries(st.sampled_from(["python", "numpy", "torch", "cuda"]), MARKS),
    optimizers=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    gradients=ROWS.map(tuple),
    updates=ROWS.map(tuple),
    was_skipped=st.booleans(),
)
DEEP = st.builds(
    DeepPoint,
    step=st.integers(0, 2),
    inputs=st.lists(st.builds(InputPoint, TEXTS, TEXTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=2).map(
        tuple
    ),
    outputs=st.dictionaries(NAMES, MARKS, max_size=3),
    losses=st.lists(st.builds(LossPoint, TEXTS, NUMBERS, NUMBERS, TEXTS, TEXTS), max_size=2).map(tuple),
    tensors=st.lists(
        st.builds(TensorPoint, NAMES, st.just("") | MARKS, NUMBERS, NUMBERS, NUMBERS),
        max_size=3,
        unique_by=lambda tensor: tensor.name,
    ).map(tuple),
    in_eval_mode=st.lists(TEXTS, max_size=2).map(tuple),
    autocast=st.none() | TEXTS.filter(bool),
    loss_scale=NUMBERS,
    generators_after=st.dictionaries(NAMES, MARKS, max_size=2),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.booleans() | st.integers() | FINITE | TEXTS | st.lists(FINITE, max_size=2)
SETTINGS = st.dictionaries(
    st.sampled_from([str(phase) for phase in Phase]), st.dictionaries(NAMES, PLAIN, min_size=1, max_size=3)
)
TRAJECTORIES = st.builds(
    Trajectory,
    test=TEXTS,
    numerics_class=TEXTS,
    device=st.sampled_from(["cpu", "cuda"]),
    num_ranks=st.integers(1, 8),
    is_deterministic=st.booleans(),
    points=st.lists(POINTS, max_size=5).map(tuple),
    deep=st.lists(DEEP, max_size=2).map(tuple),
    settings=SETTINGS,
    parameters=st.lists(st.lists(NAMES, max_size=3).map(tuple), max_size=2).map(tuple),
    machine=st.dictionaries(NAMES, TEXTS, max_size=2),
    ended_by=st.none()
    | st.builds(Limit, st.sampled_from([MAX_STEPS, MAX_SECONDS]), FINITE, st.integers(0, 9)),
    sources=st.dictionaries(NAMES, TEXTS, max_size=2),
    project_files=st.lists(TEXTS, max_size=2).map(tuple),
    provenance=st.builds(
        Provenance,
        TEXTS,
        TEXTS,
        st.none() | TEXTS,
        st.none() | TEXTS,
        st.dictionaries(NAMES, PLAIN, max_size=2),
    ),
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, of the same type; NaN is the same as NaN here."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if is_dataclass(one):
        return all(same(getattr(one, entry.name), getattr(other, entry.name)) for entry in fields(one))
    return bool(one == other)


@given(trajectory=TRAJECTORIES)
def test_a_trajectory_comes_back_from_json_as_it_was(trajectory: Trajectory) -> None:
    text = json.dumps(write_trajectory(trajectory), allow_nan=False)
    read = read_trajectory(json.loads(text))
    for entry in fields(Trajectory):
        before, after = getattr(trajectory, entry.name), getattr(read, entry.name)
        # In which order generators stand says nothing.
        if entry.name == "points":
            assert [point.generators for point in before] == [point.generators for point in after]
            before, after = (
                [{f.name: getattr(p, f.name) for f in fields(p) if f.name != "generators"} for p in points]
                for points in (before, after)
            )
        assert same(before, after), entry.name


def has_nan(value: Any) -> bool:
    """Whether there is a NaN anywhere in a value, or the mark of one."""
    if is_dataclass(value):
        return any(has_nan(getattr(value, entry.name)) for entry in fields(value))
    if isinstance(value, (tuple, list, dict)):
        return any(map(has_nan, value.values() if isinstance(value, dict) else value))
    return value == NOT_FINITE or (isinstance(value, float) and math.isnan(value))


@given(trajectory=TRAJECTORIES, is_exact=st.booleans())
def test_a_trajectory_matches_itself_unless_there_is_a_nan_which_equals_nothing(
    trajectory: Trajectory, *, is_exact: bool
) -> None:
    again = read_trajectory(write_trajectory(trajectory))
    if not trajectory.losses:
        with pytest.raises(ObservationError, match="nothing could be compared"):
            compare_trajectories(trajectory, again, is_exact=is_exact)
        return
    found = compare_trajectories(trajectory, again, is_exact=is_exact)
    if any(has_nan(point.loss) for point in trajectory.points):
        assert found.match is Match.DIVERGED
    if not has_nan(trajectory):
        assert (found.match, found.divergence, found.notes) == (Match.MATCHES, None, ())


@given(
    one=TRAJECTORIES,
    points=st.lists(POINTS, min_size=1, max_size=5),
    deep=st.lists(DEEP, max_size=2).map(tuple),
    settings=SETTINGS,
    chosen=st.sets(st.sampled_from([entry.name for entry in fields(TracePoint)])),
    is_exact=st.booleans() | st.none(),
)
def test_any_two_trajectories_are_compared_and_told_of_in_whole_sentences(
    one: Trajectory,
    points: list[TracePoint],
    deep: tuple[DeepPoint, ...],
    settings: Settings,
    chosen: set[str],
    *,
    is_exact: bool | None,
) -> None:
    changed = tuple(
        replace(before, **{name: getattr(now, name) for name in chosen})
        for before, now in zip(one.points, itertools.cycle(points), strict=False)
    )
    other = replace(one, points=changed, deep=deep, settings=settings)
    try:
        found = compare_trajectories(one, other, is_exact=is_exact)
    except ObservationError as error:
        assert "Next: " in str(error)
        return
    assert (found.match is Match.DIVERGED) == (found.divergence is not None)
    if found.match is Match.NOT_COMPARABLE:
        assert found.reason
    if found.divergence is not None:
        assert found.divergence.item
        assert found.divergence.causes
        assert all(cause.endswith((".", ").")) for cause in found.divergence.causes)


@given(value=st.floats())
def test_shortening_keeps_the_number_and_is_done_once(value: float) -> None:
    short = shorten(value)
    assert same(short, value) or struct.pack("f", short) == struct.pack("f", value)
    assert same(shorten(short), short)


@given(value=st.floats(width=32, allow_nan=False))
def test_numbers_of_single_precision_are_shortened_to_nine_digits_at_most(value: float) -> None:
    short = shorten(value)
    assert struct.pack("f", short) == struct.pack("f", value)
    assert float(f"{short:.9g}") == short


@given(value=st.floats(allow_nan=False))
def test_rounding_to_single_keeps_its_nearest_number_and_is_done_once(value: float) -> None:
    short = round_to_single(value)
    assert round_to_single(short) == short
    if abs(value) < 3.4e38:
        assert struct.pack("f", short) == struct.pack("f", value)
