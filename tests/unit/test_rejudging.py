"""Recorded pairs of equal programs at another tolerance: judged as a comparison would, where there are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.ab import describe_group, parse_arguments, plan_missing
from benchmarks.rejudging import list_judged, tell_judged_again
from benchmarks.trial_records import append_trial

if TYPE_CHECKING:
    from pathlib import Path

EQUAL = [0.001, -0.001, 0.0, 0.0005, -0.0005]
"""Logarithms of ratios that pass at 2 % at the first look, and at 0 at none."""
CLEARLY_SLOWER = [0.01, 0.0102, 0.0098]
"""Regressed at 0 at the first look, and passed at 2 %."""


def make_trial(tolerance: float, logs: list[float], *, is_time_over: bool, **more: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "slower": 0.0,
        "phase": None,
        "verdict": "pass",
        "change": 0.0,
        "named": [],
        "load": 0.5,
    }
    facts |= {"seconds": 61.0, "tolerance": tolerance, "is_time_over": is_time_over}
    pairs = {"logs": logs, "drifts": [0.0] * len(logs), "base_s": [0.03] * len(logs)}
    return facts | pairs | more


def judge(trial: dict[str, Any]) -> list[tuple[float, str, int]]:
    return [(row["tolerance"], row["verdict"], len(row["logs"])) for row in list_judged([trial])[1:]]


@pytest.mark.parametrize(
    ("logs", "judged"),
    [
        (EQUAL, (0.02, "pass", 3)),
        ([0.05, 0.0502, 0.0498], (0.02, "regressed", 3)),
        # Surely above 0, and not so surely below 2 %: more pairs would have been made.
        ([0.013, 0.015, 0.017], (0.02, "undecided", 3)),
    ],
)
def test_a_trial_at_0_is_judged_at_2_percent_by_the_pairs_that_it_takes(
    logs: list[float], judged: tuple[float, str, int]
) -> None:
    assert judge(make_trial(0.0, logs, is_time_over=False)) == [judged]


def test_a_trial_at_2_percent_is_judged_at_0_only_where_the_time_was_over_at_the_first_look() -> None:
    assert judge(make_trial(0.02, CLEARLY_SLOWER, is_time_over=False)) == []
    assert judge(make_trial(0.02, EQUAL, is_time_over=True)) == []
    assert judge(make_trial(0.02, CLEARLY_SLOWER, is_time_over=True)) == [(0.0, "regressed", 3)]
    assert judge(make_trial(0.02, EQUAL[:3], is_time_over=True)) == [(0.0, "pass", 3)]


def test_a_ratio_that_moves_is_not_steady_at_another_tolerance_either() -> None:
    moving = make_trial(0.0, EQUAL[:3], is_time_over=True, drifts=[0.1, 0.1, 0.1])
    assert judge(moving) == [(0.02, "not steady", 3)]


def test_what_is_slower_counts_at_a_smaller_tolerance_and_as_not_found_where_that_is_open() -> None:
    assert judge(make_trial(0.02, [0.05, 0.0502, 0.0498], is_time_over=False, slower=0.05)) == [
        (0.0, "regressed", 3)
    ]
    assert judge(make_trial(0.02, EQUAL, is_time_over=False, slower=0.02)) == [(0.0, "undecided", 5)]
    # It ended with the finding at 0, however many pairs 2 % would have taken.
    assert judge(make_trial(0.0, CLEARLY_SLOWER, is_time_over=True, slower=0.05)) == []


def test_what_was_not_observed_is_left_alone() -> None:
    assert list_judged([{"slower": 0.0, "tolerance": 0.0, "verdict": "not observed"}])[1:] == []


def test_what_is_judged_again_need_not_be_made_has_no_seconds_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ab.jsonl"
    options = parse_arguments(["--out", str(path), "--trials", "2", "--tolerance", "0", "0.02"])
    rows = [make_trial(0.0, EQUAL, is_time_over=False), make_trial(0.02, EQUAL[:3], is_time_over=False)]
    append_trial(path, options.setup, rows[0])
    assert [kind[:2] for kind in plan_missing(options)] == [(0.0, 0.0), (0.0, 0.02)]
    append_trial(path, options.setup, rows[1])
    assert [kind[:2] for kind in plan_missing(options)] == [(0.0, 0.0)]
    assert tell_judged_again(rows) == (
        "Trials of equal programs made at another tolerance, their pairs judged again: "
        "0 at 0% (1 more have too few pairs for it), 1 at 2% (0 more have too few pairs for it)."
    )
    again = [row for row in list_judged(rows) if "seconds" not in row]
    assert describe_group(again)[9:11] == ["", ""]
    assert describe_group([*again, rows[1]])[9:11] == ["61", "1"]
