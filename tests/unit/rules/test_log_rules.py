from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.log_files import LogFile, read_log_file, read_log_files
from harness.record.observation import Outcome, RunObservation
from harness.record.optimizer_observation import OptimizerObservation
from harness.record.run import Step
from harness.record.step_observation import StepObservation
from harness.record.watched import build_watched_steps
from harness.rules import log_files, log_values, logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun
    from harness.rules.finding import Rule

    MakeRun = Callable[..., TrainingRun]

LOSSES = [2.1234567 + 0.83**step * math.cos(step + 0.3) for step in range(20)]
RATES = [0.1 * 0.9**step for step in range(20)]
RULES = (*logs.RULES, *log_values.RULES, *log_files.RULES)


def observe(rates: Sequence[float] = RATES, **changes: Any) -> RunObservation:
    whole: dict[str, Any] = {
        "steps": [
            StepObservation(
                step,
                loss=loss,
                losses=[loss],
                num_micro_batches=1,
                optimizers=[0],
                learning_rates=[[rates[step]]],
            )
            for step, loss in enumerate(LOSSES)
        ],
        "optimizers": [OptimizerObservation("SGD", [], 20)],
        "outcome": Outcome.COMPLETED,
    }
    return RunObservation(**whole | changes)


def log(
    losses: Sequence[float] = LOSSES, rates: Sequence[float] = RATES, **others: Sequence[float]
) -> list[Step]:
    columns = {"loss": losses, "lr": rates, **others}
    return [
        Step(step + 1, {name: values[step] for name, values in columns.items() if step < len(values)})
        for step in range(len(losses))
    ]


def make_rows(steps: Sequence[int], **columns: Sequence[float | str]) -> LogFile:
    rows: list[dict[str, float | str]] = [
        {"step": float(step), **{name: values[at] for name, values in columns.items()}}
        for at, step in enumerate(steps)
    ]
    return LogFile(Path("metrics.csv"), rows)


def find(
    make_run: MakeRun, logged: list[Step], file: LogFile | None, observed: RunObservation
) -> dict[str, str]:
    run = make_run(
        steps=build_watched_steps(observed),
        observed=observed,
        logged=logged,
        logged_source="metrics file" if logged else "",
        log_files=(file,) if file else (),
    )
    return {
        finding.code: finding.message
        for rule in RULES
        if rule.find_obstacle(run) is None
        for finding in rule.apply(run)
    }


@pytest.mark.parametrize(
    ("rule", "logged", "file", "message"),
    [
        (logs.LOGGED_LOSS, log([LOSSES[0]] * 20), None, "the loss of one step"),
        (logs.LOGGED_LOSS, log([LOSSES[0], *LOSSES[:-1]]), None, "one row behind"),
        (logs.LOGGED_RATE, log(rates=[0.1] * 20), None, "logged `lr` is 0.1 in all 20 rows"),
        (logs.LOG_ENDS_EARLY, log(LOSSES[:12]), None, "the log ends at step 12, 8 steps before training did"),
        (log_values.STALE_EVALUATION, log(val_loss=[1.23456] * 4), None, "at all 4 evaluations"),
        (
            log_values.METRIC_OUT_OF_RANGE,
            log(val_accuracy=[0.5, 230.0]),
            None,
            "`val_accuracy` is 230 at step 2",
        ),
        (
            log_files.REPEATED_ROWS,
            [],
            make_rows([step for step in range(8) for _ in range(2)], loss=[step // 2 for step in range(16)]),
            "8 of 16 are the same",
        ),
        (log_files.LOG_STEP_STUCK, [], make_rows([1] * 12, loss=LOSSES), "12 of 12 rows of `metrics.csv`"),
        (
            log_files.UNREADABLE_LOG,
            [],
            LogFile(Path("metrics.csv"), [], ["line 1: there is a header and no row"]),
            "there is a header and no row",
        ),
    ],
)
def test_faults_of_logs_are_told(
    make_run: MakeRun, rule: Rule, logged: list[Step], file: LogFile | None, message: str
) -> None:
    found = find(make_run, logged, file, observe())
    assert list(found) == [rule.code]
    assert message in found[rule.code]


def test_a_finite_log_of_a_loss_that_is_not_is_told(make_run: MakeRun) -> None:
    observed = observe()
    for step in observed.steps[17:]:
        step.loss = math.nan
        step.losses = [math.nan]
    assert "a finite number in 3 rows" in find(make_run, log(), None, observed)["A201"]


def test_a_log_of_a_schedule_that_moves_nothing_is_told(make_run: MakeRun) -> None:
    message = find(make_run, log(), None, observe([0.1] * 20))["A202"]
    assert "while the optimizer stepped with 0.1 every time" in message


MEANS = [(one + two) / 2 for one, two in zip(LOSSES[::2], LOSSES[1::2], strict=True)]


@pytest.mark.parametrize(
    ("logged", "file", "observed"),
    [
        (log(), None, observe()),
        # Rounded, every second step, a validation loss, a part of the loss.
        (log([round(loss, 2) for loss in LOSSES]), None, observe()),
        ([Step(2 * at, {"loss": loss}) for at, loss in enumerate(MEANS, start=1)], None, observe()),
        (log([math.sin(step) for step in range(20)]), None, observe()),
        # A constant rate logged as such; the rate of a group that is not scheduled.
        (log(rates=[0.1] * 20), None, observe([0.1] * 20)),
        # Ended from outside, with rows still in a buffer and half a line.
        (log(LOSSES[:12]), None, observe(outcome=Outcome.STOPPED)),
        (
            [],
            LogFile(Path("metrics.csv"), [{"step": 1.0, "loss": 2.0}], ["line 3: cut off"], is_cut_off=True),
            observe(outcome=Outcome.STOPPED),
        ),
        # A coarse value that stays, an accuracy that stays, a share in per cent.
        (log(val_loss=[0.69] * 5, val_accuracy=[0.25] * 5, train_acc=[97.5] * 5), None, observe()),
        # Rows of training and validation, micro-batches of one step, a training that begins again.
        (
            [],
            make_rows([step // 2 for step in range(16)], split=["train", "val"] * 8, loss=LOSSES),
            observe(),
        ),
        ([], make_rows([step // 2 for step in range(16)], loss=LOSSES), observe()),
        ([], make_rows([*range(8), *range(8)], loss=LOSSES), observe()),
    ],
)
def test_right_logs_are_silent(
    make_run: MakeRun, logged: list[Step], file: LogFile | None, observed: RunObservation
) -> None:
    assert find(make_run, logged, file, observed) == {}


def test_every_rank_in_one_file_is_told_though_losses_differ(make_run: MakeRun) -> None:
    file = make_rows([step // 2 for step in range(16)], loss=LOSSES)
    message = find(make_run, [], file, observe(world_size=2))["A203"]
    assert "once for each of 2 ranks" in message


def test_rows_are_read_one_by_one_and_defects_are_told(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,note\n1,2.5,warm\n1,nan,\n2,3\n")
    file = read_log_file(path)
    assert file.rows[0] == {"step": 1.0, "loss": 2.5, "note": "warm"}
    assert len(file.rows) == 2
    assert file.defects == ["line 4: 2 cells under 3 column names"]
    assert file.is_cut_off


def test_only_logs_that_the_run_wrote_are_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "houses.csv").write_text("rooms,price\n1,2\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "log.csv").write_text("")
    found = read_log_files(tmp_path, "2020-01-01T00:00:00+00:00")
    assert [file.path.name for file in found] == ["log.csv", "metrics.jsonl"]
    assert read_log_files(tmp_path, "2999-01-01T00:00:00+00:00") == []
    assert read_log_files(tmp_path, "") == []
