"""Rules about numbers that a program logs, by themselves."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from harness.rules.finding import Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun

HELD_OUT_LOSS = re.compile(
    r"(^|[/_ .-])(val|valid|validation|eval|test|dev)[/_ .-]?.*(loss|perplexity|ppl)", re.IGNORECASE
)
SHARE = re.compile(r"(^|(?<!grad)(?<!num)[/_ .-])(acc|accuracy|top1|top5)$", re.IGNORECASE)
MIN_LOSSES = 6
MIN_EVALUATIONS = 3
MIN_DIGITS = 4


def _find_obstacle(run: TrainingRun) -> str | None:
    return None if run.logged or run.log_files else "the program left no log of its own"


def _check_still(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = run.observed
    if observed is None or len(set(observed.losses)) < MIN_LOSSES:
        return
    series: dict[str, list[float]] = {}
    for _, name, value in _list_values(run):
        if HELD_OUT_LOSS.search(name):
            series.setdefault(name, []).append(value)
    for name, values in series.items():
        if len(values) < MIN_EVALUATIONS or len(set(values)) > 1 or not math.isfinite(values[0]):
            continue
        digits = f"{values[0]:.12g}".replace(".", "").lstrip("0-").partition("e")[0]
        if len(digits.rstrip("0")) >= MIN_DIGITS:
            yield Evidence(
                message=f"`{name}` is {values[0]:.6g} at all {len(values)} evaluations, to the last "
                "digit, while the model "
                "was trained between them.",
                cause="a copy of the model that does not train is evaluated, or the value of the first evaluation is "
                "logged again.",
                advice="evaluate the model that the optimizer was built over, or the copy after it was updated.",
                subject=name,
            )
            return


def _check_range(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for step, name, value in _list_values(run):
        if SHARE.search(name) and math.isfinite(value) and not 0.0 <= value <= 100.0:  # noqa: PLR2004  per cent
            yield Evidence(
                message=f"`{name}` is {value:.6g}"
                + ("" if step is None else f" at step {step}")
                + ", and no accuracy is below 0 or above 100 per cent.",
                cause="the count is divided by the number of batches where it should be that of samples, "
                "or summed over "
                "several passes without being reset.",
                advice="divide what is right by what was looked at, and reset both before each evaluation.",
                subject=name,
                step=step,
            )
            return


def _list_values(run: TrainingRun) -> Iterator[tuple[int | None, str, float]]:
    """Step, name and value of every number logged: of the history, or else of the files."""
    if run.logged:
        for step in run.logged:
            for name, value in step.metrics.items():
                yield step.step, name, value
        return
    for file in run.log_files:
        for row in file.rows:
            for name, cell in row.items():
                if isinstance(cell, float):
                    yield None, name, cell


STALE_EVALUATION = Rule(
    code="A207",
    name="evaluation-never-changes",
    severity=Severity.WARNING,
    summary="The loss of evaluations changes while the model does.",
    explanation="""\
A logged loss or perplexity whose name says validation, evaluation or test, the same to the last digit at three
evaluations or more, with four digits at least, while the watched losses move. Accuracies, which are counts, may well
stay as they are.""",
    cases=("evaluating the copy of the model that was made before training",),
    find_obstacle=_find_obstacle,
    check=_check_still,
)
METRIC_OUT_OF_RANGE = Rule(
    code="A208",
    name="metric-out-of-range",
    severity=Severity.WARNING,
    summary="Accuracies lie between 0 and 100 per cent.",
    explanation="""\
Logged numbers whose name ends in accuracy, acc, top1 or top5, below 0 or above 100.""",
    cases=("hits of all epochs over the samples of one",),
    find_obstacle=_find_obstacle,
    check=_check_range,
)

RULES = (STALE_EVALUATION, METRIC_OUT_OF_RANGE)
