"""The assertions a test makes about a run.

Each fails with an `AssertionError` that names values and the likely cause.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.baselines.revisions import list_changed_files
from harness.baselines.trajectory_judge import (
    TrajectoryVerdict,
    find_non_finite_loss,
    judge_trajectory,
)
from harness.errors import ObservationError, UsageError
from harness.record.artifacts import find_defect
from harness.report.curve import draw_curve
from harness.report.diagnosis import tell_diagnosis, tell_not_applied
from harness.report.trajectory import explain_failure
from harness.rules.diagnosis import diagnose
from harness.rules.finding import Severity
from harness.rules.finite import NON_FINITE_METRIC
from harness.rules.loss import LOSS_NOT_DECREASING
from harness.rules.trend import measure_trend
from harness.selection import RuleSelection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.baselines.trajectory import Trajectory
    from harness.record.request import BaselineRequest
    from harness.record.run import TrainingRun
    from harness.rules.finding import Finding, Rule


MAX_LISTED = 12


def assert_loss_decreases(run: TrainingRun, *, min_drop: float = 0.0) -> None:
    """Fails unless the loss falls over the run, beyond its noise.

    Args:
        run: A run of at least six losses.
        min_drop: How far it must fall at least, as a share of its size at the start: 0.2 asks for 20 %.

    Stricter than the rule T101, which finds no error in a run that is too short or noisy to tell.

    Raises:
        AssertionError: The loss is not shown to fall, falls by less than `min_drop`, or is not finite.
        ObservationError: There are too few losses to tell.
        UsageError: `min_drop` is not a share.

    Source: see `harness.rules.trend.measure_trend` for the test.
    """
    __tracebackhide__ = True
    if not 0 <= min_drop < 1:
        raise UsageError(
            f"min_drop={min_drop!r} is not a share of the loss.\nNext: min_drop=0.2 asks for 20 %."
        )
    if not all(math.isfinite(loss) for loss in run.losses):
        _fail_on(NON_FINITE_METRIC.apply(run), run)
    _require(LOSS_NOT_DECREASING, run)
    _fail_on(LOSS_NOT_DECREASING.apply(run), run)
    trend = measure_trend(run.losses)
    if trend.drop < min_drop:
        raise AssertionError(
            f"the loss falls by {trend.drop:.1%}, from {trend.start:.6g} to {trend.end:.6g}; at least "
            f"{min_drop:.1%} is asked for (min_drop).\n{draw_curve(run.loss_curve)}\n"
            f"Next: train more steps; if this is all that it should fall, min_drop={_round_down(trend.drop)}."
        )


def assert_finite(run: TrainingRun) -> None:
    """Fails when any logged number is NaN or infinite, and names the first: metric, step and value.

    Raises:
        AssertionError: A value is not finite. Rule T201.
        ObservationError: The run has no step.
    """
    __tracebackhide__ = True
    _require(NON_FINITE_METRIC, run)
    _fail_on(NON_FINITE_METRIC.apply(run), run)


def assert_healthy(
    run: TrainingRun,
    *,
    select: Sequence[str] | None = None,
    ignore: Mapping[str, str] | None = None,
    severity: Mapping[str, str] | None = None,
    bounds: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Fails when any rule that applies to the run finds an error.

    Rules are chosen by code (`T101`) or by the beginning of codes (`T1`); what is given here goes over the
    marker's and the project's own (`[tool.harness]`).

    Args:
        run: The run to judge.
        select: Rules to apply; all of them by default.
        ignore: Rules whose findings fail nothing, each with the reason: `{"T102": "starts on purpose so"}`.
        severity: Another severity for rules: `{"T505": "error"}`.
        bounds: Other bounds for rules: `{"T101": {"min_change": 0.05}}`.

    Raises:
        AssertionError: One or more findings; all are listed, causes first, with the rules not applied.
        ObservationError: No rule could be applied, so nothing was judged.
        UsageError: A rule or bound is unknown, or a reason is missing.
    """
    __tracebackhide__ = True
    given = {"select": select, "ignore": ignore, "severity": severity, "bounds": bounds}
    selection = run.selection.merge(RuleSelection.parse(given, source="assert_healthy"))
    diagnosis = diagnose(replace(run, selection=selection))
    if not diagnosis.applied:
        reasons = "\n".join(f"{code}: {reason}" for code, reason in diagnosis.not_applied.items())
        raise ObservationError(f"no rule applies to {run.name}, so nothing was judged:\n{reasons}")
    if not diagnosis.errors:
        return
    lines = tell_diagnosis(diagnosis, is_shown=lambda finding: finding.severity is not Severity.NOTE)
    curve = draw_curve(run.loss_curve)
    raise AssertionError("\n".join([*lines, curve, *tell_not_applied(diagnosis)]).rstrip())


def assert_artifacts(
    run: TrainingRun, *patterns: str, min_count: int = 1, min_size_bytes: int = 1, parse: bool = True
) -> None:
    """Fails unless the run left the files it promised, and they can be read.

    Args:
        run: The run; globs are relative to its `run_dir`.
        patterns: One or more globs, such as `"metrics.csv"` or `"checkpoints/*.pt"`.
        min_count: How many files each glob must match.
        min_size_bytes: How large each file must be.
        parse: Whether files of a known kind must parse; see `harness.record.artifacts.find_defect`.

    Raises:
        AssertionError: Files are missing, too small or unreadable; all are listed.
        UsageError: No pattern was given, or one is not a relative glob.
    """
    __tracebackhide__ = True
    if not patterns:
        raise UsageError('assert_artifacts(run) names no file.\nNext: assert_artifacts(run, "metrics.csv").')
    defects = []
    is_missing = False
    for pattern in patterns:
        paths = run.artifacts(pattern)
        if len(paths) < min_count:
            is_missing = True
            defects.append(f"{pattern}: {len(paths)} files, at least {min_count} asked for")
        for path in paths:
            size = path.stat().st_size
            defect = f"{size} bytes, at least {min_size_bytes} asked for" if size < min_size_bytes else None
            if defect is None and parse:
                defect = find_defect(path)
            if defect:
                defects.append(f"{path.relative_to(run.run_dir)}: {defect}")
    if defects:
        there = [str(path.relative_to(run.run_dir)) for path in run.artifacts("**/*")]
        more = len(there) - MAX_LISTED
        listing = ", ".join(there[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
        stopped = (
            [note for note in run.observed.notes if "ended from outside" in note] if run.observed else []
        )
        raise AssertionError(
            "\n".join(
                [
                    f"{len(defects)} artifact problem{'s' if len(defects) > 1 else ''} under {run.run_dir}:",
                    *(f"  {defect}" for defect in defects),
                    f"Files there: {listing or 'none'}.",
                    _advise_on_files(stopped, is_missing=is_missing),
                ]
            )
        )


def assert_matches_baseline(run: TrainingRun, *, exact: bool | None = None) -> None:
    """Fails unless the run trained as its stored baseline did, step by step, and names what differs first.

    In a session that accepts baselines it fails on nothing that moved: what is accepted is stored once the test
    has passed. A baseline that can't be compared with passes and is noted (`--harness-require-baseline` fails it).

    Args:
        run: A run of the `smoke_training` fixture.
        exact: Whether to compare every bit; None does so where the last digits repeat, within one numerics class,
            and compares by tolerance elsewhere.

    Raises:
        AssertionError: The run leaves its baseline, there is none in any class, or it may not be accepted.
        ObservationError: The run lacks what its baseline holds, so that nothing could be compared.
        BaselineError: The baseline can't be read.
        UsageError: The run has no name to find a baseline by, or was not traced; or it is to be accepted, and was
            ended by a time limit.
    """
    __tracebackhide__ = True
    request = run.baseline
    if request is None:
        raise UsageError(
            "assert_matches_baseline(run) has no baseline to look for: the run is none of the smoke_training fixture.\n"
            "Next: run = smoke_training(train, config) in the test; or harness check --baseline NAME -- command."
        )
    result = judge_trajectory(run, request, is_exact=exact)
    if request.reason is not None:
        _refuse_accepting(run, request, result.observed)
    request.judged.append(result)
    commit = result.baseline.provenance.commit if result.baseline else None
    is_diverged = result.verdict is TrajectoryVerdict.DIVERGED
    changed = list_changed_files(request.folder, commit) if is_diverged and commit else None
    if message := explain_failure(result, request, changed):
        raise AssertionError(message)


def _refuse_accepting(run: TrainingRun, request: BaselineRequest, observed: Trajectory) -> None:
    __tracebackhide__ = True
    if (found := find_non_finite_loss(observed)) is not None:
        step, loss = found
        raise AssertionError(
            f"the loss of {request.test} is {loss} at step {step}; such a run is not accepted as a baseline.\n"
            "Next: assert_finite(run) in a test, or harness check without --accept-baselines, tells where it begins."
        )
    limit = observed.ended_by
    if limit is not None and limit.is_of_time:
        raise UsageError(
            f"{request.test} was ended by its time limit ({limit}), after {limit.num_steps} steps on this machine and "
            "under this load; such a run is not accepted as a baseline.\n"
            f"Next: end it by max_steps={limit.num_steps} (--max-steps {limit.num_steps}), or raise max_seconds until "
            "the program ends by itself."
        )
    errors = [] if request.accepts_findings else diagnose(run).errors
    if errors:
        count = f"{len(errors)} finding{'s' if len(errors) > 1 else ''} with severity error"
        told = "".join(f"\n  {finding.code} {finding.name}: {finding.message}" for finding in errors)
        raise AssertionError(
            f"{request.test} has {count}, so it is not accepted as a baseline:{told}\n"
            'Next: correct it, or ignore the rule with a reason: smoke_training(ignore={"CODE": "why"}); '
            "--accept-with-findings accepts it all the same."
        )


def _round_down(share: float) -> str:
    """A share that this run would have kept, in two digits."""
    return f"{max(0.0, math.floor(share * 100) / 100):g}"


def _advise_on_files(stopped: Sequence[str], *, is_missing: bool) -> str:
    if stopped:
        return (
            f"Next: the program was {stopped[0]}, perhaps before it wrote them: raise the limit, or let the "
            "program write earlier."
        )
    if is_missing:
        return (
            "Next: check that the program writes them in this mode, and into this folder; where it writes "
            "elsewhere, smoke_training.options(run_dir=...)."
        )
    return "Next: look at the file; was the program stopped while writing, or is it not closed at its end?"


def _require(rule: Rule, run: TrainingRun) -> None:
    obstacle = rule.find_obstacle(run)
    if obstacle is not None:
        raise ObservationError(
            f"{rule.code} {rule.name} can't be judged for {run.name}: {obstacle}.\n"
            "Next: log the loss of every step, or train more steps."
        )


def _fail_on(findings: Iterable[Finding], run: TrainingRun) -> None:
    __tracebackhide__ = True
    messages = [str(finding) for finding in findings]
    if messages:
        raise AssertionError("\n".join([*messages, draw_curve(run.loss_curve)]).rstrip())
