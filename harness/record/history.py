"""Turns what a program hands over (a returned history, logged rows) into steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.errors import ObservationError
from harness.record.run import Step, find_step_time

STEP_NAMES = ("step", "global_step", "iteration", "iter")
HISTORY_ATTRIBUTES = ("history", "log_history", "losses")


def build_steps(rows: Iterable[Mapping[str, Any]]) -> list[Step]:
    """Steps from rows of metrics; rows of one step are merged, and a later value replaces an earlier one.

    A row's step is read from `step`, `global_step`, `iteration` or `iter`, else it is the row's position.
    Values that are not numbers (a split name, a run id) are passed over, and so are rows without any number.
    """
    steps: dict[int, Step] = {}
    for position, row in enumerate(rows):
        numbers = {
            str(name): number for name, value in row.items() if (number := as_number(value)) is not None
        }
        step_name = next((name for name in STEP_NAMES if math.isfinite(numbers.get(name, math.nan))), None)
        number = numbers.pop(step_name) if step_name else position
        if not numbers:
            continue
        step = steps.setdefault(int(number), Step(step=int(number), metrics={}))
        step.metrics.update(numbers)
        if (time_s := find_step_time(numbers)) is not None:
            step.time_s = time_s
    return list(steps.values())


def read_returned(value: object) -> list[Step] | None:
    """The history in a function's return value; None when it holds none.

    Understood are: a list, array or tensor of losses (numbers or one-element tensors), a list of mappings, a
    mapping of columns, a pandas frame, an object or mapping with `history`, `log_history` or `losses`, and a
    tuple of which exactly one element is any of these. An empty history gives an empty list. A tuple of bare
    numbers is no history: most often it is a final loss and a score.
    """
    for name in HISTORY_ATTRIBUTES:
        inner = value.get(name) if isinstance(value, Mapping) else _read_attribute(value, name)
        if inner is not None and (steps := _read_history(inner)) is not None:
            return steps
    if isinstance(value, tuple):
        found = [steps for element in value if (steps := read_returned(element)) is not None]
        return found[0] if len(found) == 1 else None
    return _read_history(value)


def _read_attribute(value: object, name: str) -> object:
    """An attribute, or None where reading it raises: a property of a stranger may do anything."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001  whatever it is, it is no history
        return None


def _read_history(value: object) -> list[Step] | None:
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        value = value.to_dict("records")
    if isinstance(value, Mapping):
        return _read_columns(value)
    rows = _as_list(value)
    if rows is None:
        return None
    if all(isinstance(row, Mapping) for row in rows):
        return build_steps(rows)
    losses = [as_number(element) for element in rows]
    if any(loss is None for loss in losses):
        return None
    return build_steps({"loss": loss} for loss in losses)


def _read_columns(columns: Mapping[Any, Any]) -> list[Step] | None:
    series = {
        str(name): values for name, column in columns.items() if (values := _as_list(column)) is not None
    }
    if not series:
        return None
    lengths = {name: len(values) for name, values in series.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ObservationError(
            f"the returned history has columns of different lengths ({sizes}), so its steps can't be told.\n"
            'Next: return one row per step, for example [{"step": 0, "loss": 2.3}, ...].'
        )
    return build_steps(
        dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)
    )


def _as_list(value: object) -> list[Any] | None:
    """The elements of a sequence, or of an array or tensor of one dimension; None for all else.

    Arrays of more dimensions are weights or images, and too large to be looked at number by number.
    """
    if isinstance(value, (str, bytes, bytearray)):
        return None
    if isinstance(value, Sequence):
        return list(value)
    to_list = getattr(value, "tolist", None)
    elements = to_list() if callable(to_list) and getattr(value, "ndim", None) == 1 else None
    return elements if isinstance(elements, list) else None


def as_number(value: object) -> float | None:
    """`value` as a float where it is one number (one-element tensors and arrays too), else None.

    A whole number too large for a float is infinite.
    """
    item = getattr(value, "item", None)
    try:
        number: Any = item() if callable(item) else value
        return float(number) if hasattr(number, "__float__") else None
    except OverflowError:
        return math.inf if number > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError):
        return None
