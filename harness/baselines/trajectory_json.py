"""Trajectories as JSON objects: what repeats, and what holds nothing, is left out; steps are the rows of a table."""

from __future__ import annotations

import math
import struct
import zlib
from base64 import b64encode
from dataclasses import fields, replace
from typing import Any

from harness.baselines.trajectory import (
    TORCH_GENERATORS,
    DeepPoint,
    InputPoint,
    LossPoint,
    Provenance,
    TensorPoint,
    TracePoint,
    Trajectory,
)
from harness.record.limit import Limit

NOTHING = "."
"""In the place of a value that a tensor does not have."""
JOINED = ("gradients", "updates", "unclipped")
"""Lists of fingerprints, written as one text each."""
KEPT_ON = ("shapes", "learning_rates", "optimizers", "num_eval_calls")
"""What a step has in common with the one before it unless it says otherwise; of generators, each one by itself."""
COLUMNS = (
    "step",
    "loss",
    "grad_norm",
    "clipped_norm",
    "update_norm",
    "weight_norm",
    "num_micro_batches",
    "learning_rates",
    "batch",
    "generators",
    "outputs",
    "gradients",
    "unclipped",
    "updates",
    "shapes",
    "optimizers",
    "num_eval_calls",
    "was_skipped",
    "calls",
    "side_calls",
)
"""Of a table of steps, from left to right; one that no step has anything in is left out."""
TIMES = " x "
"""Between a number of groups and the rate that all of them have."""
TENSOR_COLUMNS = ("contents", "weight_norm", "grad_norm", "update_norm", "unclipped_norm")
"""Of a parameter, from left to right; of those at the end that it does not have, nothing stands."""
TENSOR_TABLES = ("tensors", "still")


def write_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a JSON object, which `read_trajectory` reads."""
    plain = _write_fields(trajectory)
    plain["points"] = _write_table(_write_points(trajectory.points))
    plain["deep"] = [_write_deep(deep) for deep in trajectory.deep]
    return plain


def read_trajectory(value: dict[str, Any]) -> Trajectory:
    """The trajectory that `write_trajectory` wrote.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not one.
    """
    plain = dict(value)
    points = plain["points"]
    # Before schema 2 every step was an object.
    plain["points"] = _read_points(points if isinstance(points, list) else _read_table(points))
    plain["deep"] = tuple(_read_deep(deep) for deep in plain.get("deep", ()))
    plain["parameters"] = tuple(tuple(names) for names in plain.get("parameters", ()))
    plain["project_files"] = tuple(plain.get("project_files", ()))
    plain["provenance"] = Provenance(**plain.get("provenance", {}))
    # Earlier versions kept a sentence, which tells nothing here.
    ended_by = plain.get("ended_by")
    plain["ended_by"] = None if ended_by is None or isinstance(ended_by, str) else Limit(**ended_by)
    return Trajectory(**plain)


def has_same_contents(one: Trajectory, other: Trajectory) -> bool:
    """Whether two trajectories would be stored alike, but for where they come from.

    Generators that are not torch's are passed over: they are often not seeded, and then another in every run. So are
    the project's files, as others may be imported beside it.
    """
    return write_trajectory(_leave_out_circumstances(one)) == write_trajectory(
        _leave_out_circumstances(other)
    )


def _leave_out_circumstances(trajectory: Trajectory) -> Trajectory:
    def pick(states: dict[str, str]) -> dict[str, str]:
        return {name: state for name, state in states.items() if name in TORCH_GENERATORS}

    return replace(
        trajectory,
        points=tuple(replace(point, generators=pick(point.generators)) for point in trajectory.points),
        deep=tuple(replace(deep, generators_after=pick(deep.generators_after)) for deep in trajectory.deep),
        provenance=Provenance(),
        project_files=(),
        sources={},
    )


def shorten(value: float) -> float:
    """The number with the fewest digits that is the same in single precision, if it is one of single precision.

    Any other number comes back as it is.
    """
    single = _to_single(value)
    return value if single is None or single != value else _find_shortest(single)


def round_to_single(value: float) -> float:
    """The number with the fewest digits that is, in single precision, the nearest to a value.

    One that is not finite in single precision comes back as it is.
    """
    single = _to_single(value)
    return value if single is None else _find_shortest(single)


def _to_single(value: float) -> float | None:
    """The nearest number of single precision; None where it is not finite."""
    try:
        (single,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return None
    return float(single) if math.isfinite(single) else None


def _find_shortest(single: float) -> float:
    shorter = (float(f"{single:.{digits}g}") for digits in range(6, 9))
    return next((short for short in shorter if _to_single(short) == single), float(f"{single:.9g}"))


def _write_fields(value: Any) -> dict[str, Any]:
    """The fields that hold something; not finite numbers as text, as JSON has none."""
    found = {}
    for entry in fields(value):
        part = getattr(value, entry.name)
        if part != entry.default and part not in ((), {}, None):
            found[entry.name] = _write_value(part)
    return found


def _write_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_write_value(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _write_value(part) for name, part in value.items()}
    return _write_fields(value) if hasattr(value, "__dataclass_fields__") else value


def _write_points(points: tuple[TracePoint, ...]) -> list[dict[str, Any]]:
    written = []
    before = TracePoint(-1)
    for point in points:
        plain = _write_fields(point)
        for name in KEPT_ON:
            if getattr(point, name) == getattr(before, name):
                plain.pop(name, None)
            else:
                plain[name] = _write_value(getattr(point, name))
        if "learning_rates" in plain:
            plain["learning_rates"] = _join_rates(plain["learning_rates"])
        for name in JOINED:
            if name in plain:
                plain[name] = "".join(plain[name]) if len(plain[name]) > 1 else plain[name][0]
        plain.pop("generators", None)
        if moved := _list_moved(before.generators, point.generators):
            plain["generators"] = " ".join(f"{name}:{state}" for name, state in moved.items())
        written.append(plain)
        before = point
    return written


def _write_table(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Steps as rows of values; null where a step has nothing of its own, false where it has a value no longer."""
    columns = [name for name in COLUMNS if any(name in point for point in points)]
    rows = []
    for point in points:
        row = [(False if point[name] is None else point[name]) if name in point else None for name in columns]
        while row and row[-1] is None:
            row.pop()
        rows.append(row)
    return {"columns": columns, "rows": rows}


def _read_table(table: dict[str, Any]) -> list[dict[str, Any]]:
    columns = table["columns"]
    if any(len(row) > len(columns) for row in table["rows"]):
        raise ValueError(f"a row of points has more than the {len(columns)} values that it has columns for")
    return [
        {
            name: None if value is False else value
            for name, value in zip(columns, row, strict=False)
            if value is not None
        }
        for row in table["rows"]
    ]


def _join_rates(rates: list[Any]) -> Any:
    """The rates of all groups, as one text where they are the same number."""
    is_one = len(rates) > 1 and isinstance(rates[0], float) and len(set(map(repr, rates))) == 1
    return f"{len(rates)}{TIMES}{rates[0]!r}" if is_one else rates


def _split_rates(rates: Any) -> Any:
    if not isinstance(rates, str):
        return rates
    count, _, rate = rates.partition(TIMES)
    return [float(rate)] * int(count)


def _list_moved(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The generators in another state than a step before; without a state, those that are not known any more."""
    names = dict.fromkeys([*before, *now])
    return {name: now.get(name, "") for name in names if before.get(name) != now.get(name)}


def _read_points(values: list[dict[str, Any]]) -> tuple[TracePoint, ...]:
    points: list[TracePoint] = []
    before = TracePoint(-1)
    for value in values:
        plain: dict[str, Any] = {name: getattr(before, name) for name in KEPT_ON} | value
        plain["learning_rates"] = _split_rates(plain["learning_rates"])
        for name in JOINED:
            if name in plain:
                plain[name] = split_fingerprints(plain[name])
        moved = dict(part.split(":") for part in plain.get("generators", "").split())
        plain["generators"] = {name: state for name, state in (before.generators | moved).items() if state}
        before = _read_fields(TracePoint, plain)
        points.append(before)
    return tuple(points)


WHOLE_MARK = "="
"""Before a fingerprint of all tensors together; those of single tensors have two signs each."""
TENSOR_SIGNS = 2
NO_GRADIENT, NOT_FINITE = "--", "!!"
"""In the place of the fingerprint of a tensor."""


def sign(contents: bytes, length: int) -> str:
    """So many signs, of six bits each, for the checksum of some bytes."""
    return b64encode(zlib.crc32(contents).to_bytes(4, "big")).decode()[:length]


def split_fingerprints(text: str) -> tuple[str, ...]:
    """The fingerprints that a text joins: one of all tensors, or one of each."""
    if text.startswith(WHOLE_MARK):
        return (text,)
    return tuple(text[start : start + TENSOR_SIGNS] for start in range(0, len(text), TENSOR_SIGNS))


def _write_deep(deep: DeepPoint) -> dict[str, Any]:
    plain = _write_fields(deep)
    for table in TENSOR_TABLES:
        if table in plain:
            plain[table] = {tensor.name: _write_tensor(tensor) for tensor in getattr(deep, table)}
    return plain


def _write_tensor(tensor: TensorPoint) -> str:
    values = [getattr(tensor, column) for column in TENSOR_COLUMNS]
    while values and values[-1] in ("", None):
        values.pop()
    return " ".join(NOTHING if value in ("", None) else str(value) for value in values)


def _read_deep(value: dict[str, Any]) -> DeepPoint:
    plain = dict(value)
    plain["inputs"] = tuple(_read_fields(InputPoint, part) for part in plain.get("inputs", ()))
    plain["losses"] = tuple(_read_fields(LossPoint, part) for part in plain.get("losses", ()))
    for table in TENSOR_TABLES:
        plain[table] = tuple(_read_tensor(name, text) for name, text in plain.get(table, {}).items())
    found: DeepPoint = _read_fields(DeepPoint, plain)
    return found


def _read_tensor(name: str, text: str) -> TensorPoint:
    contents, *norms = text.split() or [NOTHING]
    numbers = [None if part == NOTHING else float(part) for part in norms]
    return TensorPoint(name, "" if contents == NOTHING else contents, *numbers)


def _read_fields(kind: type, value: dict[str, Any]) -> Any:
    """A record from its fields: lists as tuples, and as numbers what is one."""
    kinds = {entry.name: str(entry.type) for entry in fields(kind)}
    return kind(**{name: _read_value(part, kinds.get(name, "")) for name, part in value.items()})


NOT_NUMBERS = ("nan", "inf", "-inf")


def _read_value(value: Any, kind: str) -> Any:
    if isinstance(value, list):
        return tuple(_read_value(part, kind) for part in value)
    return float(value) if value in NOT_NUMBERS and "float" in kind else value
