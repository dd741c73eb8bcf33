from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.pools import Pool
from harness.tracking.launches import find_ci, read_pool, read_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.pools import Launch


def make_document(*, num_workers: int = 0, **test: Any) -> dict[str, Any]:
    run = {
        "measured": {"step_time_s": 0.5, "peak_memory_bytes": 100.0, "final_loss": "nan"},
        "environment": {"commit": "1a2b", "is_dirty": True},
    }
    described = {
        "nodeid": "t.py::test_a",
        "runner_class": "cpu",
        "outcome": "passed",
        "budget": [],
        "runs": [run],
    }
    return {
        "created_at": "2026-11-02T03:00:00+00:00",
        "harness_version": "0.1.0",
        "num_workers": num_workers,
        "tests": [described | test],
    }


def test_the_runs_of_a_session_are_launches_with_their_finite_measurements() -> None:
    document = make_document()
    document["tests"][0]["runs"] *= 2
    first, second = read_session(document, reason="nightly", ci="GITHUB_RUN_ID=7")
    assert first.values == {"step_time_s": 0.5, "peak_memory_bytes": 100.0}
    assert (first.test, second.test) == ("t.py::test_a", "t.py::test_a#2")
    assert (first.commit, first.is_dirty, first.reason, first.ci) == (
        "1a2b",
        True,
        "nightly",
        "GITHUB_RUN_ID=7",
    )
    assert first.key != second.key


@pytest.mark.parametrize(
    ("outcome", "message", "budget", "num"),
    [
        ("passed", "", [], 1),
        ("failed", "step_time_s regressed.\nNext: see", [{"message": "step_time_s regressed."}], 1),
        ("failed", "assert 0", [{"message": "wall_clock_s 2 s is within its limit."}], 0),
        ("failed", "assert 0", [{"message": ""}], 0),
        ("failed", "assert 0", [], 0),
        ("not observed", "no loss", [], 0),
    ],
)
def test_a_broken_training_is_left_out_but_a_slow_one_is_not(
    outcome: str, message: str, budget: list[Any], num: int
) -> None:
    assert len(read_session(make_document(outcome=outcome, message=message, budget=budget))) == num


def test_times_measured_beside_other_workers_are_left_out() -> None:
    (launch,) = read_session(make_document(num_workers=2))
    assert launch.values == {"peak_memory_bytes": 100.0}


def test_a_run_that_measured_nothing_is_left_out() -> None:
    document = make_document()
    document["tests"][0]["runs"][0]["measured"] = {"final_loss": "nan"}
    assert read_session(document) == []


def test_the_launches_of_a_pool_keep_their_reasons(make_launch: Callable[..., Launch]) -> None:
    (launch,) = read_pool(Pool("t.py::test_a", "cpu", (make_launch(step_time_s=1.0),)))
    assert (launch.reason, launch.values, launch.recorded_at[:10]) == (
        "initial",
        {"step_time_s": 1.0},
        "2026-11-02",
    )


def test_the_run_of_the_ci_system_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILD_ID"):
        monkeypatch.delenv(name, raising=False)
    assert find_ci() == ""
    monkeypatch.setenv("CI_PIPELINE_ID", "7")
    assert find_ci() == "CI_PIPELINE_ID=7"
