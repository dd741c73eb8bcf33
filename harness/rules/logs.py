"""Rules about what a program logs, against what was watched."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from typing import TYPE_CHECKING

from harness.record.agreement import Kind, compare_logged
from harness.record.observation import Outcome
from harness.rules.accumulation import find_shares
from harness.rules.deep_steps import list_deep, observed_of
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.record.agreement import Agreement
    from harness.record.run import TrainingRun

RATE = re.compile(r"(^|[/_ -])(lr|learning_rate)([/_ -]|$)", re.IGNORECASE)
NO_RATE = re.compile(r"scale|mult|ratio|decay|factor|base|init|max|min", re.IGNORECASE)
NEAR = 0.02
SAME = 1e-4
MIN_ROWS = 6


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched that the log could be compared with"
    if not run.logged or run.logged is run.steps:
        return "the program left no log of its own"
    return None


def _check_loss(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    agreement = compare_logged(run)
    name = agreement.metric or "loss"
    values = dict(_select(run, name))
    told = _judge(run, agreement, values)
    if told is not None:
        seen, cause, advice = told
        yield Evidence(
            message=f"{seen} ({run.logged_source}).",
            cause=cause,
            advice=advice,
            subject=name,
            step=min(values),
        )


def _judge(
    run: TrainingRun, agreement: Agreement, values: Mapping[int, float]
) -> tuple[str, str, str] | None:
    """What is certainly wrong with a logged loss: what was seen, why, and what to do; None when nothing is."""
    name = agreement.metric
    watched = [loss for loss in observed_of(run).losses if math.isfinite(loss)]
    if agreement.kind is Kind.REPEATED:
        repeated = next(iter(values.values()))
        seen = (
            f"logged `{name}` is {repeated:.6g} in all {len(values)} rows, the loss of one step, while the watched "
            f"loss goes from {watched[0]:.6g} to {watched[-1]:.6g}"
        )
        cause = "a value kept from one step is logged again and again."
        return seen, cause, "log the loss of the step at hand, read after its forward."
    if agreement.num_hidden:
        seen = f"logged `{name}` is a finite number in {agreement.num_hidden} rows whose watched loss is not"
        cause = "NaN is replaced or passed over before logging."
        return seen, cause, "log what reaches backward as it is, so that a broken training shows."
    late = _count_late(run, agreement, values)
    if late:
        seen = (
            f"logged `{name}` is one row behind: {late} rows in a row hold the watched loss of the step before "
            "theirs, and the first two rows are equal"
        )
        cause = "the value of the last iteration is logged before it is replaced."
        return seen, cause, "log after the loss of the step has been computed."
    wrong = _find_wrong_scale(run, agreement)
    if wrong is None:
        return None
    scale, cause = wrong
    seen = (
        f"logged `{name}` is {scale} (compared in {agreement.num_compared} rows; the watched losses of whole steps "
        f"are {min(watched):.6g} to {max(watched):.6g})"
    )
    return seen, cause, "log the mean over all samples or tokens of the step, which is what is optimized."


def _find_wrong_scale(run: TrainingRun, agreement: Agreement) -> tuple[str, str] | None:
    """By what a logged loss differs from the mean that is optimized, and why; None where it does not, or may."""
    if agreement.kind not in (Kind.SAME, Kind.SCALED, Kind.SHIFTED, Kind.MEAN, Kind.SMOOTHED):
        return None
    shares = find_shares(run)
    if shares and all(_is_near(one.total, 1.0) for one in shares):
        return _judge_accumulated(agreement, len(shares[0].weights))
    samples = [step.num_samples for step in observed_of(run).steps if step.num_samples]
    usual = statistics.median(samples) if samples else 0.0
    if (
        agreement.kind is Kind.SCALED
        and usual > 1
        and _is_near(agreement.scale, 1.0 / usual)
        and _is_plain_mean(run)
    ):
        return (
            f"{agreement.scale:.4g} times the watched loss: {usual:.0f} times too small, the samples in a batch",
            "a loss that is a mean already is divided by the number of samples.",
        )
    return None


def _judge_accumulated(agreement: Agreement, num: int) -> tuple[str, str] | None:
    """The same where the micro-batches' losses are known to add up to the step's mean."""
    scale = agreement.scale
    if agreement.of == "last micro-batch" and _is_near(scale, 1.0):
        return (
            f"the share of the last of {num} micro-batches, and not the step's loss",
            "the loss of the last micro-batch, divided for accumulation already, is logged in place of the sum.",
        )
    if agreement.of == "mean of micro-batches":
        scale /= num
    is_whole = agreement.of != "last micro-batch"
    if is_whole and _is_near(scale, 1.0 / num):
        return (
            f"{scale:.4g} times the watched loss: {num} times too small, the number of micro-batches",
            "losses that were divided for accumulation are divided once more for the log.",
        )
    if is_whole and _is_near(scale, float(num)):
        return (
            f"{scale:.4g} times the watched loss: the number of micro-batches",
            "losses that were divided for accumulation are multiplied for the log, and then summed, too.",
        )
    return None


def _is_plain_mean(run: TrainingRun) -> bool:
    """Whether each step is one backward of one loss function that takes the mean, as it is."""
    calls = [
        [call for call in deep.loss_functions if call.is_training]
        for step, deep in list_deep(run)
        if step.num_micro_batches == 1
    ]
    return bool(calls) and all(
        len(step) == 1 and step[0].reduction == "mean" and _is_near(step[0].scale or 0.0, 1.0)
        for step in calls
    )


def _count_late(run: TrainingRun, agreement: Agreement, values: Mapping[int, float]) -> int:
    """Rows that hold the loss of the step before theirs, with the first one doubled; 0 where that is not so."""
    logged, watched = list(values.values()), observed_of(run).losses
    if agreement.kind is Kind.SAME or not MIN_ROWS <= len(logged) <= len(watched):
        return 0
    shown = [watched[0], *watched[: len(logged) - 1]]
    is_late = all(
        math.isclose(one, two, rel_tol=SAME, abs_tol=1e-9) for one, two in zip(logged, shown, strict=True)
    )
    differs = sum(not math.isclose(one, two, rel_tol=SAME) for one, two in zip(logged, watched, strict=False))
    return len(logged) - 1 if is_late and differs > 0.8 * (len(logged) - 1) else 0


def _check_rate(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    steps = observed_of(run).steps
    groups: dict[tuple[int, int], list[float]] = {}
    for step in steps:
        for optimizer, rates in zip(step.optimizers, step.learning_rates, strict=False):
            for position, rate in enumerate(rates):
                if rate is not None:
                    groups.setdefault((optimizer, position), []).append(rate)
    names = [
        name
        for name in dict.fromkeys(name for step in run.logged for name in step.metrics)
        if RATE.search(name) and not NO_RATE.search(name)
    ]
    for name in names if groups else ():
        logged = [value for _, value in _select(run, name) if math.isfinite(value)]
        ratio = bounds["min_ratio"]
        if len(logged) < MIN_ROWS:
            continue
        first = next(iter(groups.values()))
        told = f"({run.logged_source})"
        if len(set(logged)) == 1 and all(_moves(rates, ratio) for rates in groups.values()):
            yield Evidence(
                message=f"logged `{name}` is {logged[0]:.6g} in all {len(logged)} rows, while the "
                "optimizer stepped with "
                f"{min(first):.6g} to {max(first):.6g} {told}.",
                cause="the configured learning rate is logged, not the one in force.",
                advice='log optimizer.param_groups[0]["lr"], or scheduler.get_last_lr()[0], before the schedule steps.',
                subject=name,
            )
            return
        # What is logged after the last step is the rate of a step that never comes.
        if _moves(logged[:-1], ratio) and all(len(set(rates)) == 1 for rates in groups.values()):
            yield Evidence(
                message=f"logged `{name}` goes from {logged[0]:.6g} to {logged[-1]:.6g}, while the "
                "optimizer stepped with "
                f"{first[0]:.6g} every time {told}.",
                cause="the schedule moves an optimizer other than the one that steps, or its rate is "
                "computed and never "
                "put into the optimizer.",
                advice='build the scheduler over the optimizer that steps, or set param_groups[0]["lr"] in the loop.',
                subject=name,
            )
            return


def _moves(rates: Sequence[float], ratio: float) -> bool:
    return len(rates) > 1 and max(rates) > ratio * max(min(rates), 0.0)


def _check_end(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    agreement = compare_logged(run)
    if (
        agreement.kind is not Kind.SAME
        or observed.outcome is not Outcome.COMPLETED
        or len(observed.optimizers) > 1
    ):
        return
    pairs = _select(run, agreement.metric or "loss")
    indices = [number - agreement.shift for number, _ in pairs]
    losses = [step.loss for step in observed.steps]
    # By number, and not by position, so that the end of the log is known.
    is_numbered = all(
        0 <= index < len(losses)
        and math.isclose(losses[index] or math.nan, value, rel_tol=NEAR, abs_tol=1e-3)
        for index, (_, value) in zip(indices, pairs, strict=True)
        if math.isfinite(value)
    )
    if not is_numbered or len(indices) < MIN_ROWS:
        return
    usual = statistics.median(after - before for before, after in itertools.pairwise(indices))
    missing = len(losses) - 1 - indices[-1]
    if usual >= 1 and missing > max(bounds["min_rows"] * usual, bounds["min_share"] * len(losses)):
        yield Evidence(
            message=f"the log ends at step {pairs[-1][0]}, {missing} steps before training did; until "
            "then there was a row "
            f"every {usual:g} step{'s' * (usual != 1)} ({run.logged_source}).",
            cause="a writer that is not flushed or closed, or logging that stopped for a reason of its own.",
            advice="flush after every row, and close the writer in a finally block.",
            subject=agreement.metric or "loss",
            step=pairs[-1][0],
        )


def _select(run: TrainingRun, name: str) -> list[tuple[int, float]]:
    return [(step.step, step.metrics[name]) for step in run.logged if name in step.metrics]


def _is_near(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=NEAR)


LOGGED_LOSS = Rule(
    code="A201",
    name="logged-loss-is-wrong",
    severity=Severity.WARNING,
    summary="The logged loss is the one that is optimized.",
    explanation="""\
What the program logs is compared with what reached backward: step numbers from 0, from 1 or from where a run was
resumed, every step or every so many, means, smoothed values and rounding are all understood. Told is only what is
certain: one loss repeated in all rows; finite numbers where the loss was not; rows that are one step behind, with the
first one doubled; the share of the last micro-batch, or the loss times or over their number, where the weights of the
micro-batches in the gradient are known to add up to one; a mean that is divided by the number of samples.

Silent about a log that follows by no rule: it may hold a validation loss or a part of the loss.""",
    cases=("a logged loss that is off by the number of accumulation steps (transformers#37766)",),
    find_obstacle=_find_obstacle,
    check=_check_loss,
)
LOGGED_RATE = Rule(
    code="A202",
    name="logged-learning-rate-is-wrong",
    severity=Severity.WARNING,
    summary="The logged learning rate is the one that the optimizer steps with.",
    explanation="""\
A logged learning rate that never changes while that of every parameter group does, or one that changes while those of
all groups stay as they are. Silent where any group behaves like the log, and about single rows: rates are logged
before or after the schedule steps.""",
    cases=("a scheduler built over another optimizer than the one that steps",),
    bounds=(Bound("min_ratio", 1.2, "largest over smallest learning rate from which on it changes"),),
    find_obstacle=_find_obstacle,
    check=_check_rate,
)
LOG_ENDS_EARLY = Rule(
    code="A206",
    name="log-ends-early",
    severity=Severity.WARNING,
    summary="The log goes on to the end of training.",
    explanation="""\
Only where every logged loss is that of the watched step with its number, and the run came to its own end. The steps
after the last row are counted.""",
    cases=("the last rows left in a buffer that was never flushed",),
    bounds=(
        Bound("min_rows", 2.0, "rows that may be missing at the end, at the usual interval"),
        Bound("min_share", 0.1, "share of the steps that may be missing at the end"),
    ),
    find_obstacle=_find_obstacle,
    check=_check_end,
)
RULES = (LOGGED_LOSS, LOGGED_RATE, LOG_ENDS_EARLY)
