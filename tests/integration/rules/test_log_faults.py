"""Faults of logs, each in a tiny training that is watched in process, beside the training without it."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.rules.diagnosis import diagnose
from harness.watch.call import run_call
from harness.watch.launch import RunOptions
from harness.watch.options import ObserverOptions
from harness.watch.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.rules.finding import Finding

    Row = dict[str, Any]
    Change = Callable[[Row, list[Row]], Iterator[Row | str]]

NUM_STEPS = 16
NUM_PARTS = 2


def train(folder: Path, change: Change, *, stale: bool = False) -> None:
    """Two micro-batches a step; logs a row a step, as `change` makes it of the right one and those before."""
    model = nn.Linear(8, 4)
    shown = copy.deepcopy(model) if stale else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    held_out = torch.randn(16, 8)
    rows: list[Row] = []
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, NUM_STEPS + 1):
            optimizer.zero_grad()
            parts = []
            for _ in range(NUM_PARTS):
                inputs = torch.randn(8, 8)
                loss = cross_entropy(model(inputs), inputs[:, :4].argmax(1)) / NUM_PARTS
                loss.backward()
                parts.append(loss.item())
            optimizer.step()
            row: Row = {"step": step, "loss": sum(parts), "last": parts[-1], "lr": schedule.get_last_lr()[0]}
            schedule.step()
            if step % 4 == 0:
                with torch.no_grad():
                    row["val_loss"] = cross_entropy(shown(held_out), held_out[:, :4].argmax(1)).item()
                    row["val_accuracy"] = 0.5
            rows.append(row)
            for changed in change(row, rows):
                file.write(changed if isinstance(changed, str) else json.dumps(changed) + "\n")


def find(folder: Path, change: Change, *, stale: bool = False) -> dict[str, Finding]:
    watch = ObserverOptions(deep_steps=(0, 1, 4))
    options = RunOptions(name="train", run_dir=folder, seed=0, threads=1, watch=watch)
    run = run_call(lambda: train(folder, change, stale=stale), options=options, recorder=Recorder())
    return {finding.code: finding for finding in diagnose(run).findings if finding.code.startswith("A2")}


def keep(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row


def repeat_first_loss(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    yield row | {"loss": rows[0]["loss"]}


def take_last_part(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row | {"loss": row["last"]}


def divide(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row | {"loss": row["loss"] / NUM_PARTS}


def come_late(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    yield row | {"loss": rows[max(0, len(rows) - 2)]["loss"]}


def log_configured_rate(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    yield row | {"lr": rows[0]["lr"]}


def write_twice(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row
    yield row


def stay_at_step_one(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row | {"step": 1}


def write_half_a_line(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield '{"step": 5, "lo\n' if row["step"] == 5 else row


def stop_early(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    if len(rows) <= NUM_STEPS // 2:
        yield row


def exceed(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row | ({"val_accuracy": 140.0} if "val_accuracy" in row else {})


def log_every_fourth(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    if row["step"] % 2 == 0:
        yield row | {"loss": (row["loss"] + rows[-2]["loss"]) / 2}


def multiply_last_part(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield row | {"loss": NUM_PARTS * row["last"]}


def write_rows_apart(row: Row, rows: list[Row]) -> Iterator[Row | str]:
    del rows
    yield {"step": row["step"], "split": "train", "loss": row["loss"]}
    if "val_loss" in row:
        yield {"step": row["step"], "split": "validation", "loss": row["val_loss"]}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (repeat_first_loss, "A201", "the loss of one step"),
        (take_last_part, "A201", "the share of the last of 2 micro-batches"),
        (divide, "A201", "2 times too small"),
        (come_late, "A201", "one row behind"),
        (log_configured_rate, "A202", "logged `lr` is 0.2 in all 16 rows"),
        (write_twice, "A203", "16 of 32 are the same"),
        (stay_at_step_one, "A204", "have the step 1"),
        (write_half_a_line, "A205", "line 5"),
        (stop_early, "A206", "the log ends at step 8, 8 steps before training did"),
        (exceed, "A208", "`val_accuracy` is 140"),
    ],
)
def test_faulty_logs_are_told(tmp_path: Path, change: Change, code: str, message: str) -> None:
    findings = find(tmp_path, change)
    assert code in findings
    assert message in findings[code].message


def test_an_evaluation_of_a_model_that_stands_still_is_told(tmp_path: Path) -> None:
    findings = find(tmp_path, keep, stale=True)
    assert list(findings) == ["A207"]
    assert "at all 4 evaluations" in findings["A207"].message


@pytest.mark.parametrize("change", [keep, log_every_fourth, multiply_last_part, write_rows_apart])
def test_right_logs_are_silent(tmp_path: Path, change: Change) -> None:
    assert find(tmp_path, change) == {}
