"""The scores of `benchmarks/creep.py`."""

from __future__ import annotations

from benchmarks.creep import LEAD_NIGHTS, NEVER, score
from harness.budgets.trend import ANCHOR_NIGHTS

START = ANCHOR_NIGHTS + LEAD_NIGHTS


def test_alarms_before_the_creep_begins_find_nothing() -> None:
    assert score([NEVER, 50], [START - 1, START + 3, START + 7]).to_cell() == "50.0% / 50% / 6"
    assert score([NEVER, NEVER], [START, NEVER, NEVER]).to_cell() == "0.0% / 33% / never"


def test_creeps_that_all_alarm_early_have_no_median_night() -> None:
    assert score([50, NEVER], [START - 1, START - 2]).to_cell() == "50.0% / all early"
