"""The file of a trajectory is read by people and by diff: a line for a step, a tensor, a setting."""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.baselines.layout import render
from harness.baselines.trajectory_json import write_trajectory
from harness.baselines.trajectory_store import parse_trajectory, render_trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.trajectory import Trajectory

    MakeTrajectory = Callable[..., Trajectory]


def test_steps_tensors_and_settings_have_a_line_each_and_no_number_has_one(
    make_trajectory: MakeTrajectory,
) -> None:
    lines = render_trajectory(make_trajectory([3.0, 2.5, 2.0])).splitlines()
    assert sum(re.match(r"   \[\d, ", line) is not None for line in lines) == 3
    assert '   "optimizer 0 group 0 weight_decay": 0.01' in lines
    assert any(line.strip().startswith('"head.weight": "44444444 ') for line in lines)
    assert not [line for line in lines if re.fullmatch(r"\s*-?[0-9.e+-]+,?", line)]
    assert max(map(len, lines)) < 400


def test_a_change_of_one_step_is_a_change_of_one_line(make_trajectory: MakeTrajectory) -> None:
    before, now = (
        render_trajectory(make_trajectory([3.0, loss, 2.0])).splitlines() for loss in (2.5, 2.4375)
    )
    changed = [line for line in difflib.unified_diff(before, now, n=0) if re.match(r"[+-](?![+-])", line)]
    assert len(changed) == 2


def test_what_is_written_comes_back(make_trajectory: MakeTrajectory) -> None:
    for losses in ([3.0, 2.5], [0.1, 1e-30, 1e30], [3.0, math.inf]):
        trajectory = make_trajectory(losses)
        text = render_trajectory(trajectory)
        assert parse_trajectory(text, "a.json") == trajectory
        assert render_trajectory(parse_trajectory(text, "a.json")) == text


def test_a_loss_that_is_no_number_comes_back_as_such(make_trajectory: MakeTrajectory) -> None:
    read = parse_trajectory(render_trajectory(make_trajectory([math.nan])), "a.json")
    assert read.points[0].loss is not None
    assert math.isnan(read.points[0].loss)


def test_a_smoke_run_of_forty_steps_and_26_tensors_takes_a_few_kilobytes(
    make_trajectory: MakeTrajectory,
) -> None:
    trajectory = make_trajectory([3.0 / (step + 1) for step in range(40)])
    names = tuple(f"blocks.{index}.weight" for index in range(26))
    points = tuple(
        replace(point, gradients=("ab",) * 26, updates=("cd",) * 26) for point in trajectory.points
    )
    text = render_trajectory(replace(trajectory, points=points, parameters=(names,)))
    assert len(text) < 13_000
    assert len(text.splitlines()) < 150


def test_the_text_is_the_document_whatever_it_holds(make_trajectory: MakeTrajectory) -> None:
    documents = [
        write_trajectory(make_trajectory()),
        {},
        {"points": [], "settings": {}, "deep": [{"step": 0, "tensors": {}}]},
        {"settings": {"data": {'größer "x"': ["a", None, True]}}, "parameters": [["a"], []]},
    ]
    for document in documents:
        assert json.loads(render(document)) == document


def test_rates_that_all_groups_have_are_written_once(make_trajectory: MakeTrajectory) -> None:
    made = make_trajectory([3.0, 2.5, 2.0, 1.5])
    rates: list[tuple[float | None, ...]] = [(0.1, 0.1, 0.1), (0.1, 0.2), (None, None), (math.inf, math.inf)]
    points = [replace(point, learning_rates=rate) for point, rate in zip(made.points, rates, strict=True)]
    text = render_trajectory(replace(made, points=tuple(points)))
    assert '"3 x 0.1"' in text
    assert [point.learning_rates for point in parse_trajectory(text, "a.json").points] == rates


def test_steps_of_schema_1_stay_readable(make_trajectory: MakeTrajectory) -> None:
    made = make_trajectory([3.0, 2.5])
    document = json.loads(render_trajectory(made))
    table = document["points"]
    document["harness"]["schema_version"] = 1
    document["points"] = [
        {name: value for name, value in zip(table["columns"], row, strict=False) if value is not None}
        for row in table["rows"]
    ]
    assert parse_trajectory(json.dumps(document), "a.json") == made


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        render({"points": [{"loss": math.nan}]})
