"""Trajectories as JSON objects: what repeats, and what holds nothing, is left out."""

from __future__ import annotations

import math
import struct
from dataclasses import fields
from typing import Any

from harness.baselines.trajectory import (
    DeepPoint,
    InputPoint,
    LossPoint,
    Provenance,
    TensorPoint,
    TracePoint,
    Trajectory,
)

NOTHING = "."
"""In the place of a value that a tensor does not have."""
JOINED = ("gradients", "updates")
"""Lists of fingerprints, written as one text each."""
KEPT_ON = ("shapes", "learning_rates", "optimizers")
"""What a step has in common with the one before it unless it says otherwise."""
TENSOR_COLUMNS = ("contents", "weight_norm", "grad_norm", "update_norm")


def write_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a JSON object, which `read_trajectory` reads."""
    plain = _write_fields(trajectory)
    plain["points"] = _write_points(trajectory.points)
    plain["deep"] = [_write_deep(deep) for deep in trajectory.deep]
    return plain


def read_trajectory(value: dict[str, Any]) -> Trajectory:
    """The trajectory that `write_trajectory` wrote.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not one.
    """
    plain = dict(value)
    plain["points"] = _read_points(plain["points"])
    plain["deep"] = tuple(_read_deep(deep) for deep in plain.get("deep", ()))
    plain["parameters"] = tuple(tuple(names) for names in plain.get("parameters", ()))
    plain["project_files"] = tuple(plain.get("project_files", ()))
    plain["provenance"] = Provenance(**plain.get("provenance", {}))
    return Trajectory(**plain)


def shorten(value: float) -> float:
    """The number with the fewest digits that is the same in single precision, if it is one of single precision.

    Any other number comes back as it is.
    """
    if not math.isfinite(value):
        return value
    try:
        single = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return value
    return round_to_single(value) if single == value else value


def round_to_single(value: float) -> float:
    """The number with the fewest digits that is, in single precision, the nearest to a value."""
    try:
        packed = struct.pack("f", value)
    except OverflowError:
        return value
    return next(
        (
            short
            for digits in range(6, 9)
            if struct.pack("f", short := float(f"{value:.{digits}g}")) == packed
        ),
        float(f"{value:.9g}"),
    )


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
        for name in JOINED:
            if name in plain:
                plain[name] = "".join(plain[name]) if len(plain[name]) > 1 else plain[name][0]
        generators = {
            name: state for name, state in point.generators.items() if before.generators.get(name) != state
        }
        plain.pop("generators", None)
        if generators:
            plain["generators"] = " ".join(f"{name}:{state}" for name, state in generators.items())
        written.append(plain)
        before = point
    return written


def _read_points(values: list[dict[str, Any]]) -> tuple[TracePoint, ...]:
    points: list[TracePoint] = []
    before = TracePoint(-1)
    for value in values:
        plain: dict[str, Any] = {name: getattr(before, name) for name in KEPT_ON}
        plain |= {name: _read_value(part) for name, part in value.items()}
        for name in JOINED:
            if name in plain:
                plain[name] = split_fingerprints(plain[name])
        changed = dict(part.split(":") for part in plain.get("generators", "").split())
        plain["generators"] = before.generators | changed if "batch" in plain else changed
        before = TracePoint(**plain)
        points.append(before)
    return tuple(points)


WHOLE_MARK = "="
"""Before a fingerprint of all tensors together; those of single tensors have two signs each."""
TENSOR_SIGNS = 2


def split_fingerprints(text: str) -> tuple[str, ...]:
    """The fingerprints that a text joins: one of all tensors, or one of each."""
    if text.startswith(WHOLE_MARK):
        return (text,)
    return tuple(text[start : start + TENSOR_SIGNS] for start in range(0, len(text), TENSOR_SIGNS))


def _write_deep(deep: DeepPoint) -> dict[str, Any]:
    plain = _write_fields(deep)
    if deep.tensors:
        plain["tensors"] = {
            tensor.name: " ".join(
                NOTHING if part in ("", None) else str(part)
                for part in (getattr(tensor, column) for column in TENSOR_COLUMNS)
            )
            for tensor in deep.tensors
        }
    return plain


def _read_deep(value: dict[str, Any]) -> DeepPoint:
    plain = dict(value)
    plain["inputs"] = tuple(_read_fields(InputPoint, part) for part in plain.get("inputs", ()))
    plain["losses"] = tuple(_read_fields(LossPoint, part) for part in plain.get("losses", ()))
    plain["tensors"] = tuple(_read_tensor(name, text) for name, text in plain.get("tensors", {}).items())
    plain["in_eval_mode"] = tuple(plain.get("in_eval_mode", ()))
    return DeepPoint(**plain)


def _read_tensor(name: str, text: str) -> TensorPoint:
    contents, *norms = text.split()
    numbers = [None if part == NOTHING else float(part) for part in norms]
    return TensorPoint(name, "" if contents == NOTHING else contents, *numbers)


def _read_fields(kind: type, value: dict[str, Any]) -> Any:
    return kind(**{name: _read_value(part) for name, part in value.items()})


def _read_value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read_value(part) for part in value)
    return float(value) if value in ("nan", "inf", "-inf") else value
