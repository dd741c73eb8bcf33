from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.errors import MetricsFileError, ObservationError
from harness.record.metrics_files import stamp_metrics_files
from harness.record.run import Step
from harness.watch.launch import Cost, RunOptions, build_run, find_logged

if TYPE_CHECKING:
    from pathlib import Path

RECORDED = [Step(0, {"loss": 1.0})]
RETURNED = [2.0]


def find(
    run_dir: Path, *, metrics: str | None = None, recorded: list[Step], result: object
) -> tuple[float, str]:
    options = RunOptions(name="train()", run_dir=run_dir, metrics=metrics)
    logged = find_logged(options, recorded=recorded, result=result, before={}, is_watched=False)
    run = build_run(options, logged, [], Cost(1.0, None, None), result=result)
    return run.losses[0], run.source


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "metrics.csv").write_text("loss\n3\n")
    (tmp_path / "other.csv").write_text("loss\n4\n")
    return tmp_path


def test_sources_come_in_the_order_they_were_meant(run_dir: Path) -> None:
    asked_for = find(run_dir, metrics="other.csv", recorded=RECORDED, result=RETURNED)
    assert asked_for == (4.0, f"metrics file {run_dir / 'other.csv'}")
    assert find(run_dir, recorded=RECORDED, result=RETURNED) == (1.0, "record() callback")
    assert find(run_dir, recorded=[], result=RETURNED) == (2.0, "return value")
    assert find(run_dir, recorded=[], result=None) == (3.0, f"metrics file {run_dir / 'metrics.csv'}")
    assert find(run_dir, recorded=[], result=(0.3, 0.9)) == (3.0, f"metrics file {run_dir / 'metrics.csv'}")


def test_an_empty_returned_history_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ObservationError, match=r"no optimizer step was seen in train\(\): .*an empty returned history"
    ):
        find(tmp_path, recorded=[], result=[])


def test_no_history_anywhere_is_an_error_that_lists_the_ways(tmp_path: Path) -> None:
    with pytest.raises(ObservationError) as caught:
        find(tmp_path, recorded=[], result=0.5)
    message = str(caught.value)
    assert "the return value, float, holds none" in message
    assert f"no metrics.csv or metrics.jsonl under {tmp_path}" in message
    assert "smoke_training.record(step=..., loss=...)" in message


def test_a_file_of_an_earlier_run_is_not_this_runs_history(run_dir: Path) -> None:
    options = RunOptions(name="train()", run_dir=run_dir)
    before = stamp_metrics_files(run_dir, None)
    assert not find_logged(options, recorded=[], result=None, before=before, is_watched=False).steps


def test_a_file_that_was_asked_for_and_is_missing_is_an_error_whatever_else_there_is(run_dir: Path) -> None:
    with pytest.raises(MetricsFileError, match="no metrics file matches 'missing.csv'"):
        find(run_dir, metrics="missing.csv", recorded=RECORDED, result=RETURNED)
