"""Compares an observed trajectory with a baseline: does it match, and if not, what differs first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.baselines.causes import list_causes, list_modules, tell_pair, tell_setting
from harness.baselines.divergence import count_different, find_evidence, list_identical
from harness.baselines.lengths import (
    advise_on_length,
    has_too_few_steps,
    is_truncated_by_time_limit,
    leave_out_later,
    list_causes_of_length,
    tell_too_few,
    tell_truncation,
)
from harness.baselines.ruler import ExactRuler, ToleranceRuler
from harness.baselines.setting_changes import list_changes
from harness.baselines.threads import HOW_ONE_NUMBER, differ_in_threads, may_be_of_threads, tell_threads
from harness.baselines.tolerance import build_tolerance, find_drift
from harness.baselines.trajectory import Phase
from harness.errors import ObservationError

if TYPE_CHECKING:
    from harness.baselines.evidence import Evidence
    from harness.baselines.ruler import Ruler
    from harness.baselines.setting_changes import SettingChange
    from harness.baselines.trajectory import Trajectory


class Match(StrEnum):
    """What a comparison came to."""

    MATCHES = "matches"
    DIVERGED = "diverged"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference between two trajectories.

    Attributes:
        phase: Where it begins.
        step: The step it is seen in first.
        item: What differs: a tensor, a setting, a number; named as users know it.
        change: Both values and how far apart they are, such as "norm 0.41 -> 0.82, x2.00".
        causes: What is likely behind it, most likely first, in whole sentences.
        identical: What is still the same in and before that step.
        consequence: What became of the loss, in a sentence; empty where it is the same to the end.
        modules: Names of the modules it is about, to find their files by.
        advice: What to do first, where it is not the program that has to be looked into; empty otherwise.
    """

    phase: Phase
    step: int
    item: str
    change: str
    causes: tuple[str, ...] = ()
    identical: tuple[str, ...] = ()
    consequence: str = ""
    modules: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True, slots=True)
class TrajectoryComparison:
    """An observed trajectory against a baseline.

    Attributes:
        match: Whether it matches.
        is_exact: Whether every bit was compared; False for comparisons by tolerance.
        divergence: The first difference; None unless it diverged.
        reason: Why it can't be compared, or how it was compared; empty where nothing is to be said.
        notes: What a reader should know although it matches.
    """

    match: Match
    is_exact: bool
    divergence: Divergence | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def compare_trajectories(
    baseline: Trajectory, observed: Trajectory, *, is_exact: bool | None = None
) -> TrajectoryComparison:
    """Whether an observed trajectory is that of the baseline, and the first difference where it is not.

    Args:
        baseline: The stored one.
        observed: The one of this run.
        is_exact: Whether to compare every bit; None does so within one numerics class where runs are
            deterministic, and compares by tolerance elsewhere: there too, where the runs part by what may have
            been computed before the first step, and the programs began with other numbers of threads.

    Raises:
        ObservationError: The baseline has a loss in a step, and the run has none there; or the baseline has none in
            any step of the run: nothing could be compared.
    """
    obstacle = _find_obstacle(baseline, observed)
    if obstacle:
        return TrajectoryComparison(Match.NOT_COMPARABLE, is_exact=False, reason=obstacle)
    _require_losses(baseline, observed)
    if never_steps(baseline, observed):
        return TrajectoryComparison(Match.DIVERGED, is_exact=False, divergence=_tell_no_steps(baseline))
    is_truncated = is_truncated_by_time_limit(baseline, observed)
    if is_truncated:
        baseline, observed = leave_out_later(baseline, observed), leave_out_later(observed, baseline)
    ruler, evidence, reason = _find_evidence(baseline, observed, is_exact=is_exact)
    is_exact = ruler.is_exact
    if evidence is not None and not is_exact and _is_other_stream(evidence):
        return TrajectoryComparison(
            Match.NOT_COMPARABLE,
            is_exact=False,
            reason=(
                f"torch {baseline.machine.get('torch')} and {observed.machine.get('torch')} may draw other random "
                "numbers from the same seed, and the runs part before the first step"
            ),
        )
    divergence = _build_divergence(evidence, ruler) if evidence is not None else None
    if divergence is None and not is_exact:
        divergence = _find_other_settings(baseline, observed) or _find_drift(baseline, observed, ruler)
    if not is_truncated and len(baseline.points) != len(observed.points):
        divergence = divergence or _tell_length(baseline, observed)
    if divergence is not None:
        return TrajectoryComparison(Match.DIVERGED, is_exact, divergence, reason)
    if has_too_few_steps(baseline, observed):
        return TrajectoryComparison(Match.NOT_COMPARABLE, is_exact, reason=tell_too_few(baseline, observed))
    notes = [tell_setting(change) for change in list_changes(baseline.settings, observed.settings)]
    notes += [tell_truncation(baseline, observed)] if is_truncated else []
    return TrajectoryComparison(Match.MATCHES, is_exact, None, reason, tuple(notes))


def _find_evidence(
    baseline: Trajectory, observed: Trajectory, *, is_exact: bool | None
) -> tuple[Ruler, Evidence | None, str]:
    """How two runs are compared, where they part, and why by tolerance; that is empty where every bit is compared."""
    reason = _tell_tolerance(baseline, observed, is_asked=is_exact is False)
    if is_exact or (is_exact is None and _are_repeatable(baseline, observed)):
        evidence = find_evidence(baseline, observed, ExactRuler())
        if is_exact or not may_be_of_threads(evidence):
            return ExactRuler(), evidence, ""
        reason = tell_threads(baseline, observed)
    ruler = build_tolerance(baseline, observed)
    return ruler, find_evidence(baseline, observed, ruler), reason


def _are_repeatable(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether both are expected to be the same to the last bit: of one class, and deterministic."""
    is_one_class = baseline.numerics_class == observed.numerics_class
    return is_one_class and baseline.is_deterministic and observed.is_deterministic


def _find_obstacle(baseline: Trajectory, observed: Trajectory) -> str:
    """Why two trajectories can't be compared; empty where they can."""
    if baseline.device != observed.device:
        return (
            f"the baseline was trained on {baseline.device}, this run on {observed.device}, "
            "and their random numbers differ"
        )
    if baseline.num_ranks != observed.num_ranks:
        return f"the baseline was trained by {baseline.num_ranks} ranks, this run by {observed.num_ranks}"
    return ""


def _require_losses(baseline: Trajectory, observed: Trajectory) -> None:
    pairs = list(zip(baseline.points, observed.points, strict=False))
    if all(one.loss is None for one, _ in pairs):
        raise ObservationError(
            f"the baseline has no loss in any of the {len(pairs)} steps that it has in common with this run: nothing "
            "could be compared.\nNext: accept a new baseline, of a run whose loss is seen."
        )
    for one, other in pairs:
        if one.loss is not None and other.loss is None:
            raise ObservationError(
                f"the baseline has a loss in step {one.step} ({one.loss:.6g}), and this run has none there: it can't "
                "be compared.\nNext: check that the loss still reaches backward, or is still logged."
            )


def never_steps(baseline: Trajectory, observed: Trajectory) -> bool:
    """Whether a run was watched, and no optimizer stepped in it; those of the baseline did."""
    has_stepped = any(point.learning_rates for point in observed.points)
    return (
        bool(baseline.parameters) and bool(observed.settings) and not has_stepped and not observed.parameters
    )


def _tell_no_steps(baseline: Trajectory) -> Divergence:
    return Divergence(
        phase=Phase.OPTIMIZER,
        step=baseline.points[0].step,
        item="steps of an optimizer",
        change=f"{len(baseline.points)} -> none",
        causes=("no optimizer steps any more: its `step` is not called, or it is no optimizer of torch.",),
    )


def _tell_tolerance(baseline: Trajectory, observed: Trajectory, *, is_asked: bool) -> str:
    """Why the comparison is by tolerance, threads at the start aside."""
    if is_asked and _are_repeatable(baseline, observed):
        return "as asked for"
    if baseline.numerics_class == observed.numerics_class:
        return "runs of this kind are not expected to repeat to the last bit"
    names = sorted(baseline.machine.keys() | observed.machine.keys())
    changes = [
        f"{name} {baseline.machine.get(name, 'none')} -> {observed.machine.get(name, 'none')}"
        for name in names
        if baseline.machine.get(name) != observed.machine.get(name)
    ]
    told = f"the baseline was made on another kind of machine ({', '.join(changes)})"
    return f"{told}; {HOW_ONE_NUMBER}" if differ_in_threads(baseline, observed) else told


def _is_other_stream(evidence: Evidence) -> bool:
    """Whether it may be another version of torch, and no change of the program, that draws other numbers."""
    pair = evidence.pair
    # Data may be drawn too; those of a file are the same whatever the version.
    is_drawn = evidence.phase is Phase.DATA and evidence.find(Phase.INITIALISATION) is not None
    return (
        evidence.is_from_start
        and (is_drawn or evidence.phase in (Phase.RNG, Phase.INITIALISATION))
        and not evidence.list_changes(evidence.phase)
        and pair.baseline.machine.get("torch") != pair.observed.machine.get("torch")
    )


def _build_divergence(evidence: Evidence, ruler: Ruler) -> Divergence:
    pair = evidence.pair
    found = evidence.find(evidence.phase)
    changes = evidence.list_changes(evidence.phase)
    if found is not None:
        item, change = found.item, found.change
    elif changes:
        # Without a difference of its own, a phase is blamed for a setting.
        item, change = _name_change(changes[0])
    else:
        first = next(difference for difference in evidence.differences if difference.moves)
        item, change = first.item, first.change
    num = count_different(pair.baseline.points, pair.observed.points, ruler)
    num_common = min(len(pair.baseline.points), len(pair.observed.points))
    told = tell_pair(pair)
    how = "differ" if ruler.is_exact else "differ by more than rounding may make of them"
    spread = f"the losses of {num} of {num_common} steps {how}" if num else f"the losses do not {how}"
    return Divergence(
        phase=evidence.phase,
        step=pair.baseline.points[evidence.first_index].step,
        item=item,
        change=change,
        causes=tuple(list_causes(evidence)),
        identical=tuple(list_identical(evidence)),
        consequence="; ".join(part for part in (spread, told) if part),
        modules=list_modules(evidence),
    )


def _name_change(change: SettingChange) -> tuple[str, str]:
    return change.name, f"{change.baseline} -> {change.observed}"


def _find_other_settings(baseline: Trajectory, observed: Trajectory) -> Divergence | None:
    """Settings that differ by more than two versions of torch do, though the numbers are within the tolerance."""
    is_one_torch = baseline.machine.get("torch") == observed.machine.get("torch")
    changes = [
        change
        for change in list_changes(baseline.settings, observed.settings)
        if change.phase in SET_EXACTLY
        and not change.is_neutral
        and (is_one_torch or (change.baseline is not None and change.observed is not None))
    ]
    if not changes:
        return None
    first = changes[0]
    item, change = _name_change(first)
    return Divergence(
        phase=first.phase,
        step=baseline.points[0].step,
        item=item,
        change=change,
        causes=tuple(f"{change}." for change in changes),
        consequence="the losses are within the tolerance for another kind of machine",
    )


SET_EXACTLY = (Phase.LOSS, Phase.CLIPPING, Phase.OPTIMIZER, Phase.SCHEDULE)
"""Phases whose settings are the program's own alone, whatever the machine."""


def _find_drift(baseline: Trajectory, observed: Trajectory, ruler: Ruler) -> Divergence | None:
    drift = find_drift(baseline, observed, ruler) if isinstance(ruler, ToleranceRuler) else ""
    if not drift:
        return None
    step = next(
        point.step for index, point in enumerate(baseline.points) if math.isinf(ruler.find_allowed(index))
    )
    return Divergence(
        phase=Phase.FORWARD,
        step=step,
        item="course of the loss",
        change=drift,
        causes=(
            "where it begins can't be told between two kinds of machines; on one with a baseline of its own it can.",
        ),
    )


def _tell_length(baseline: Trajectory, observed: Trajectory) -> Divergence:
    before, now = len(baseline.points), len(observed.points)
    last = min(before, now)
    return Divergence(
        phase=Phase.DATA,
        step=(baseline if before > now else observed).points[last].step,
        item="number of steps",
        change=f"{before} -> {now}",
        causes=list_causes_of_length(baseline, observed),
        identical=(
            f"each of the {last} steps that both have" if last > 1 else "the one step that both have",
        ),
        advice=advise_on_length(baseline, observed),
    )
