"""Whatever a user writes on a marker, the answer is a request or a `UsageError` that names its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.budgets.metrics import METRICS
from harness.budgets.spec import parse_budget
from harness.errors import UsageError
from harness.markers import DEVICES, GPU_ARGUMENTS, TRAINING_ARGUMENTS, parse_gpu, parse_training
from harness.profiling.schedule import parse_schedule
from harness.settings import OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = "the marker"
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
VALUES = (
    PLAIN | st.lists(PLAIN | st.sampled_from(DEVICES), max_size=3) | st.dictionaries(PLAIN, PLAIN, max_size=2)
)
BUDGET_ARGUMENTS = [name for metric in METRICS for name in (metric.limit_name, metric.tolerance_name)]
PARSERS: list[tuple[Callable[..., Any], list[str]]] = [
    (parse_training, [*TRAINING_ARGUMENTS]),
    (parse_gpu, [*GPU_ARGUMENTS]),
    (parse_budget, BUDGET_ARGUMENTS),
    (parse_schedule, ["wait", "warmup", "active", "max_mb", "keep"]),
]


@pytest.mark.parametrize(("parse", "names"), PARSERS)
@given(data=st.data())
def test_a_marker_is_understood_or_refused_with_its_source(
    data: st.DataObject, parse: Callable[..., Any], names: list[str]
) -> None:
    known = st.sampled_from(names) | st.text(max_size=10)
    arguments = data.draw(st.dictionaries(known, VALUES, max_size=3))
    try:
        parse(arguments, source=SOURCE)
    except UsageError as error:
        assert str(error).startswith(f"{SOURCE}: ")
        assert "\nNext: " in str(error)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
@given(text=st.text(max_size=12))
def test_an_option_is_understood_or_refused_with_what_is_wanted(option: Option, text: str) -> None:
    try:
        option.parse(text)
    except ValueError as error:
        assert str(error).startswith(("one of ", "a number", "a folder name", "some text"))
