"""Records: what a program logs comes back, whole, from whatever it was written in."""

from __future__ import annotations

import csv
import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError, UsageError
from harness.record.artifacts import _READERS, find_artifacts, find_defect
from harness.record.environment import slug
from harness.record.history import as_number, build_steps, read_returned
from harness.record.metrics_files import read_metrics_file

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and name not in ("step", "global_step", "iteration", "iter", "\ufeff")
)
NUMBERS = st.floats()
ROWS = st.lists(st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=4), min_size=1, max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3), max_leaves=8
)


def same(left: dict[str, float], right: dict[str, float]) -> bool:
    return left.keys() == right.keys() and all(
        left[name] == right[name] or (math.isnan(left[name]) and math.isnan(right[name])) for name in left
    )


def read_rows(path: Path) -> list[dict[str, float]]:
    steps = read_metrics_file(path)
    assert [step.step for step in steps] == list(range(len(steps)))
    return [step.metrics for step in steps]


@given(rows=ROWS)
def test_csv_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "metrics.csv"
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *names])
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in enumerate(rows))
    assert all(same(read, row) for read, row in zip(read_rows(path), rows, strict=True))


@given(rows=ROWS, ensure_ascii=st.booleans())
def test_json_lines_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]], *, ensure_ascii: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "metrics.jsonl"
    lines = (json.dumps({"step": step, **row}, ensure_ascii=ensure_ascii) for step, row in enumerate(rows))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert all(same(read, row) for read, row in zip(read_rows(path), rows, strict=True))


@given(content=st.binary(max_size=60), suffix=st.sampled_from([".csv", ".jsonl"]))
def test_a_metrics_file_of_any_content_is_read_or_refused_in_our_words(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"metrics{suffix}"
    path.write_bytes(content)
    try:
        assert read_metrics_file(path)
    except HarnessError as error:
        assert "Next:" in str(error)


@given(losses=st.lists(NUMBERS, min_size=1, max_size=20))
def test_no_loss_of_a_history_is_lost_whatever_holds_it(losses: list[float]) -> None:
    forms: list[Any] = [
        losses,
        np.array(losses),
        [np.array([loss]) for loss in losses],
        [{"loss": loss} for loss in losses],
        {"loss": losses},
        ("model", losses),
        {"history": {"loss": np.array(losses)}},
    ]
    for form in forms:
        steps = read_returned(form)
        assert steps is not None
        assert [step.step for step in steps] == list(range(len(losses)))
        assert np.array_equal([step.metrics["loss"] for step in steps], losses, equal_nan=True)


@given(rows=st.lists(st.dictionaries(st.sampled_from(["step", "loss", "lr"]), st.integers(0, 9)), max_size=9))
def test_merging_rows_keeps_the_last_value_of_every_metric_of_a_step(rows: list[dict[str, int]]) -> None:
    wanted: dict[int, dict[str, float]] = {}
    for position, row in enumerate(rows):
        metrics = {name: float(value) for name, value in row.items() if name != "step"}
        if metrics:
            wanted.setdefault(row.get("step", position), {}).update(metrics)
    assert {step.step: step.metrics for step in build_steps(rows)} == wanted


@given(value=ANYTHING)
def test_any_returned_value_is_a_history_or_none_or_refused_in_our_words(value: object) -> None:
    try:
        steps = read_returned(value)
    except HarnessError as error:
        assert "Next:" in str(error)
    else:
        assert steps is None or all(step.metrics for step in steps)


@given(value=PLAIN)
def test_only_numbers_are_numbers(value: object) -> None:
    number = as_number(value)
    assert (number is not None) == isinstance(value, (bool, int, float))


@given(text=st.text(max_size=300))
def test_a_slug_is_a_safe_file_name_and_stays_what_it_is(text: str) -> None:
    made = slug(text)
    assert re.fullmatch(r"([a-z0-9_]([a-z0-9._-]*[a-z0-9_])?)?", made)
    assert slug(made) == made


@given(pattern=st.text(max_size=20))
def test_any_pattern_is_a_glob_or_misuse(tmp_path_factory: pytest.TempPathFactory, pattern: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        assert all(path.is_relative_to(folder) for path in find_artifacts(folder / "nothing-here", pattern))
    except UsageError as error:
        assert "Next:" in str(error)


@given(content=st.binary(max_size=80), ending=st.sampled_from(sorted(_READERS)))
def test_a_file_of_any_content_has_a_defect_or_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    path = tmp_path_factory.mktemp("file") / f"file{ending}"
    path.write_bytes(content)
    defect = find_defect(path)
    assert defect if not content else defect is None or defect
