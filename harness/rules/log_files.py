"""Rules about metrics files, row by row."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING

from harness.record.history import STEP_NAMES
from harness.record.observation import Outcome
from harness.rules.deep_steps import observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.record.log_files import LogFile
    from harness.record.run import TrainingRun

    Row = Mapping[str, float | str]

TIMES = re.compile(r"time|_s$|second|date|elapsed|per_sec|_ms$", re.IGNORECASE)
MIN_ROWS = 6
MIN_VALUES = 3


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched"
    return None if run.log_files else "no metrics file was written"


def _check_readable(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    is_stopped = observed_of(run).outcome is not Outcome.COMPLETED
    for file in run.log_files:
        if not file.defects or (is_stopped and (file.is_cut_off or not file.rows)):
            continue
        yield Evidence(
            message=f"metrics file `{file.path.name}` can't be read: {file.defects[0]}"
            + (f" (and {len(file.defects) - 1} more)" if len(file.defects) > 1 else "")
            + f"; {len(file.rows)} rows can.",
            cause="a writer that was stopped or not flushed, two writers of one file, or a row of another shape."
            if file.rows
            else "nothing was logged but a header, or a writer that was never flushed.",
            advice="look at that line; write rows whole, from one process, and with the same columns.",
            subject=file.path.name,
        )
        return


def _check_repeats(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    world_size = max(observed_of(run).world_size, len(run.ranks))
    for file in run.log_files:
        rows = _list_numbered(file)
        if len(rows) < MIN_ROWS:
            continue
        steps = Counter(_name_row(number, row) for number, row in rows)
        seen = _find_repeats(run, rows, bounds)
        if seen is None and world_size > 1 and set(steps.values()) == {world_size}:
            seen = f"every step stands there {world_size} times, once for each of {world_size} ranks"
        if seen is None:
            continue
        yield Evidence(
            message=f"rows of `{file.path.name}` repeat: {seen}.",
            cause="every rank writes the same file."
            if world_size > 1
            else "the logger is called twice, its handler was added twice, or the whole history is written again.",
            advice="log on rank 0 alone, and once a step.",
            subject=file.path.name,
            step=int(rows[0][0]),
        )
        return


def _find_repeats(
    run: TrainingRun, rows: Sequence[tuple[float, Row]], bounds: Mapping[str, float]
) -> str | None:
    contents = [_strip_times(row) for _, row in rows]
    half, num_rows = len(rows) // 2, len(rows)
    # A training that runs twice logs twice, too, but then there are as many steps.
    is_one_training = max(number for number, _ in rows) >= bounds["min_end"] * len(observed_of(run).steps)
    if contents[:half] == contents[half:] and is_one_training:
        return f"the second half of its {num_rows} rows is the first once more"
    num_same = sum(one == two for one, two in itertools.pairwise(contents))
    if num_same >= bounds["min_share"] * num_rows and any(row != contents[0] for row in contents):
        return f"{num_same} of {num_rows} are the same as the one before"
    return None


def _check_steps(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    if len(observed_of(run).steps) < MIN_ROWS:
        return
    for file in run.log_files:
        rows = _list_numbered(file)
        if len(rows) < MIN_ROWS:
            continue
        (name, num), *_ = Counter(_name_row(number, row) for number, row in rows).most_common(1)
        group = [row for number, row in rows if _name_row(number, row) == name]
        values = max(
            (len({row[column] for row in group}) for column in group[0] if not _is_axis(column)), default=0
        )
        if num >= bounds["min_share"] * len(rows) and num >= MIN_ROWS and values >= MIN_VALUES:
            yield Evidence(
                message=f"{num} of {len(rows)} rows of `{file.path.name}` have the step {name[0]:g}, "
                f"with {values} different "
                "values: the step does not move.",
                cause="a counter that is not advanced, or a number that was written down, is logged as the step.",
                advice="log the counter of the loop; rows of one step are merged or drawn over each "
                "other by most tools.",
                subject=file.path.name,
                step=int(name[0]),
            )
            return


def _list_numbered(file: LogFile) -> list[tuple[float, Row]]:
    """The rows that have a step and something else."""
    found: list[tuple[float, Row]] = []
    for row in file.rows:
        number = next((value for name, value in row.items() if name.strip().lower() in STEP_NAMES), None)
        if isinstance(number, float) and len(row) > 1:
            found.append((number, row))
    return found


def _name_row(number: float, row: Row) -> tuple[float, tuple[object, ...]]:
    """What tells rows of one step apart: the columns that are filled, and the texts in them."""
    texts = [value for value in row.values() if isinstance(value, str)]
    return number, (*sorted(row), *texts)


def _strip_times(row: Row) -> dict[str, float | str]:
    return {name: value for name, value in row.items() if not TIMES.search(name)}


def _is_axis(column: str) -> bool:
    return column.strip().lower() in STEP_NAMES or bool(TIMES.search(column))


UNREADABLE_LOG = Rule(
    code="A205",
    name="log-unreadable",
    severity=Severity.WARNING,
    summary="Metrics files can be read to their end.",
    explanation="""\
CSV and JSON lines files under the run directory that the run wrote, with a column for the step or epoch, or with the
name of a log: lines that can't be parsed, rows with another number of cells than the header, files that are empty or
hold a header alone. A run that was ended from outside may leave a last line without its end, and nothing at all.""",
    cases=("two processes that append to one file", "a column added after the header was written"),
    find_obstacle=_find_obstacle,
    check=_check_readable,
)
REPEATED_ROWS = Rule(
    code="A203",
    name="log-rows-repeated",
    severity=Severity.WARNING,
    summary="Every step is logged once.",
    explanation="""\
Rows that equal the row before them in everything but times; all rows once more, up to the end of training; or every
step as often as there are ranks. Rows that
differ in what they fill or in a text, as one for training and one for validation, are different rows, and so are
micro-batches of one step with losses of their own.""",
    cases=("metrics written by every rank", "a logging handler added twice"),
    bounds=(
        Bound("min_share", 0.3, "share of rows that equal the one before, from which on it is told"),
        Bound("min_end", 0.8, "share of the steps up to which a log that repeats as a whole has to reach"),
    ),
    find_obstacle=_find_obstacle,
    check=_check_repeats,
)
LOG_STEP_STUCK = Rule(
    code="A204",
    name="log-step-stuck",
    severity=Severity.WARNING,
    summary="The logged step moves.",
    explanation="""\
Most rows of a metrics file have one and the same step, while their values differ. Only columns called step,
global_step, iteration or iter count; files by epoch, and rows told apart by a text, are silent.""",
    cases=("a logger that is given the epoch's first step for all of it",),
    bounds=(Bound("min_share", 0.6, "share of rows with the same step from which on it is told"),),
    find_obstacle=_find_obstacle,
    check=_check_steps,
)

RULES = (UNREADABLE_LOG, REPEATED_ROWS, LOG_STEP_STUCK)
