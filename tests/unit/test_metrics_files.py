from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness.errors import MetricsFileError, UsageError
from harness.record.metrics_files import find_metrics_file, read_metrics_file, stamp_metrics_files

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def find(run_dir: Path, pattern: str | None = None) -> Path | None:
    return find_metrics_file(run_dir, pattern, before={})


@pytest.mark.parametrize("name", ["metrics.csv", "a/b/metrics.csv", "a/metrics.jsonl"])
def test_a_file_of_the_usual_name_is_found_at_any_depth(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "loss\n1\n")
    write(tmp_path / "other.csv", "loss\n1\n")
    assert find(tmp_path) == path


def test_without_a_pattern_no_file_is_no_error(tmp_path: Path) -> None:
    assert find(tmp_path / "missing") is None


def test_a_pattern_without_a_match_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(MetricsFileError, match=r"no metrics file matches 'logs/\*\.csv'"):
        find(tmp_path, "logs/*.csv")


def test_several_files_are_an_error_that_names_them_and_the_marker(tmp_path: Path) -> None:
    write(tmp_path / "a/metrics.csv", "loss\n1\n")
    write(tmp_path / "b/metrics.jsonl", "{}")
    with pytest.raises(
        MetricsFileError, match=r"2 metrics files match .*a/metrics\.csv, b/metrics\.jsonl"
    ) as caught:
        find(tmp_path)
    assert "smoke_training(metrics=" in str(caught.value)


def test_a_file_that_the_run_did_not_write_is_another_runs(tmp_path: Path) -> None:
    write(tmp_path / "old/metrics.csv", "loss\n1\n")
    before = stamp_metrics_files(tmp_path, None)
    assert find_metrics_file(tmp_path, None, before=before) is None
    with pytest.raises(MetricsFileError, match="1 that the run did not write were left out"):
        find_metrics_file(tmp_path, "**/metrics.csv", before=stamp_metrics_files(tmp_path, "**/metrics.csv"))
    new = write(tmp_path / "new/metrics.csv", "loss\n1\n")
    assert find_metrics_file(tmp_path, None, before=before) == new


def test_a_file_that_the_run_wrote_again_is_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.csv", "loss\n1\n")
    before = stamp_metrics_files(tmp_path, None)
    write(path, "loss\n1\n2\n")
    assert find_metrics_file(tmp_path, None, before=before) == path


@pytest.mark.parametrize("pattern", ["/etc/*.csv", "../*.csv"])
def test_a_pattern_outside_the_run_directory_is_misuse(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a glob inside the run directory"):
        find(tmp_path, pattern)


@pytest.mark.parametrize("pattern", ["**x", ".", "a\0b", "x" * 5000])
def test_a_pattern_that_pathlib_refuses_on_some_python_is_an_error_with_a_message(
    tmp_path: Path, pattern: str
) -> None:
    with pytest.raises((UsageError, MetricsFileError), match="Next:"):
        find(tmp_path, pattern)


@pytest.mark.parametrize(
    "text",
    [
        "step,loss\n0,2.5\n1,1.5\n",
        "step,loss\r\n0,2.5\r\n1,1.5\r\n",
        "\ufeffstep,loss\n0,2.5\n1,1.5",
        "step, loss\n0, 2.5\n\n1, 1.5\n",
        'step,loss,split\n0,2.5,"train, a"\n1,1.5,\n',
        "step,loss,epoch\n0,,\n0,2.5,\n1,1.5,\n",
    ],
    ids=["plain", "crlf", "byte-order-mark", "spaces", "text-column", "empty-cells"],
)
def test_csv_of_many_writers_is_read(tmp_path: Path, text: str) -> None:
    steps = read_metrics_file(write(tmp_path / "metrics.csv", text))
    assert [(step.step, step.metrics) for step in steps] == [(0, {"loss": 2.5}), (1, {"loss": 1.5})]


@pytest.mark.parametrize(
    "text",
    [
        '{"step": 0, "loss": 2.5}\n{"step": 1, "loss": 1.5}\n',
        '\ufeff{"step": 0, "loss": 2.5}\r\n\r\n{"step": 1, "loss": 1.5}',
        '{"step": 0, "loss": 2.5, "text": "one\u2028line"}\n{"step": 1, "loss": 1.5, "text": null}\n',
    ],
    ids=["plain", "crlf", "line-separator-in-text"],
)
def test_json_lines_of_many_writers_are_read(tmp_path: Path, text: str) -> None:
    steps = read_metrics_file(write(tmp_path / "metrics.jsonl", text))
    assert [(step.step, step.metrics) for step in steps] == [(0, {"loss": 2.5}), (1, {"loss": 1.5})]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.csv", "loss,a,b\nnan,inf,-Infinity\n"),
        ("metrics.jsonl", '{"loss": NaN, "a": Infinity, "b": -Infinity}'),
        ("metrics.ndjson", '{"loss": "nan", "a": "inf", "b": "-Infinity"}'),
    ],
)
def test_numbers_that_are_not_finite_stay_what_they_are(tmp_path: Path, name: str, text: str) -> None:
    (step,) = read_metrics_file(write(tmp_path / name, text))
    assert math.isnan(step.metrics["loss"])
    assert (step.metrics["a"], step.metrics["b"]) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("metrics.csv", "step,loss\n0,2.5\n1\n", "at line 3: 1 cells under 2 column names"),
        (
            "metrics.csv",
            "step,loss\n0,2.5\n1,2.5.1\n",
            r"at line 3: '2\.5\.1' in column 'loss' is not a number",
        ),
        ("metrics.jsonl", '{"loss": 1}\n\n{"loss": ', "at line 3: Expecting value"),
        ("metrics.jsonl", "[1]", "at line 1: a JSON object is needed, not list"),
        ("metrics.csv", "", "holds no row with a number"),
        ("metrics.csv", "step,loss\n", "holds no row with a number"),
        ("metrics.jsonl", '{"split": "train"}', "holds no row with a number"),
        ("metrics.txt", "loss\n1\n", "neither CSV nor JSON lines"),
        ("metrics.csv", "loss\n\udcff", "can't be read"),
    ],
)
def test_a_file_that_holds_no_metrics_is_an_error_that_says_where(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(MetricsFileError, match=told) as caught:
        read_metrics_file(path)
    assert str(path) in str(caught.value)
    assert "Next:" in str(caught.value)


def test_a_missing_file_is_a_metrics_file_error(tmp_path: Path) -> None:
    with pytest.raises(MetricsFileError, match="can't be read"):
        read_metrics_file(tmp_path / "metrics.csv")
