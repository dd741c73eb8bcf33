"""Tells how a run and its baseline compare: what differs first, what follows from it, and where to look."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.baselines.comparison import Match
from harness.baselines.lengths import has_too_few_steps
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_judge import TrajectoryVerdict
from harness.report.moves import list_moves

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.baselines.comparison import Divergence
    from harness.baselines.trajectory import Provenance, Trajectory
    from harness.baselines.trajectory_judge import TrajectoryResult
    from harness.record.request import BaselineRequest

SHORT_COMMIT = 7
STORED = re.compile(r"(^|/)(trajectories|budgets)/[^/]+/[^/]+\.json$")
"""Baselines, which change when others are accepted."""
MAX_FILES = 6
MAX_OTHERS = 3


def explain_failure(
    result: TrajectoryResult, request: BaselineRequest, changed: Sequence[str] | None = None
) -> str:
    """Why a comparison fails its test, in lines; empty where it does not.

    Args:
        result: What the comparison came to.
        request: How the baseline is accepted, and whether one that can't be compared with fails.
        changed: Files that are not as in the baseline's commit, from where the program ran; None where not known.
    """
    match result.verdict:
        case TrajectoryVerdict.MISSING_BASELINE:
            return (
                f"{request.test} has no baseline in any numerics class; observed {_tell_observed(result.observed)}.\n"
                f"It would lie in {result.place}.\n"
                f"Next: {_advise_on_first(result.observed, request)}"
            )
        case TrajectoryVerdict.DIVERGED:
            return "\n".join([*tell_divergence(result, changed), _tell_next(result, request)])
        case TrajectoryVerdict.NOT_COMPARABLE if request.requires_class:
            return (
                f"{tell_outcome(result)}\n{tell_baseline(result)}\n"
                f"Next: {_advise_on_comparing(result, request)}; or leave out --harness-require-baseline, which fails "
                "here."
            )
    return ""


def _advise_on_first(observed: Trajectory, request: BaselineRequest) -> str:
    """How a first run is accepted; one that its time limit ended would be refused."""
    limit = observed.ended_by
    if limit is None or not limit.is_of_time:
        return request.tell_accepting("initial")
    told = request.tell_accepting("initial", max_steps=limit.num_steps)
    return f"end it by max_steps={limit.num_steps} in place of {limit}: {told}"


def _advise_on_comparing(result: TrajectoryResult, request: BaselineRequest) -> str:
    """What makes a run comparable with a baseline."""
    if result.baseline is not None and has_too_few_steps(result.baseline, result.observed):
        return "raise max_seconds, or end both runs by max_steps"
    return f"accept one for this machine: {request.tell_accepting('new numerics class')}"


def tell_outcome(result: TrajectoryResult) -> str:
    """What a comparison came to, in one line."""
    comparison = result.comparison
    if result.verdict is TrajectoryVerdict.MISSING_BASELINE or comparison is None or result.baseline is None:
        told = result.verdict if result.baseline is None else "compared"
        return f"{told}: {_tell_observed(result.observed)}, {result.observed.numerics_class}"
    how = "to the last digit" if comparison.is_exact else "by tolerance"
    elsewhere = "" if result.is_of_own_class else f" of class {result.baseline.numerics_class}"
    reason = f": {comparison.reason.rstrip('.')}" if comparison.reason else ""
    if result.verdict is TrajectoryVerdict.NOT_COMPARABLE:
        return f"not comparable with its baseline{elsewhere}{reason}"
    if result.verdict is TrajectoryVerdict.MATCHES:
        num_steps = min(len(result.baseline.points), len(result.observed.points))
        return f"matches its baseline{elsewhere} in {_count(num_steps, 'step')}, {how}{reason}"
    return f"{result.verdict}{elsewhere}{reason}"


def tell_accepted(result: TrajectoryResult) -> str:
    """What accepting a run moves, and by how much, in one line: `accepted: tests/a.py::test: final loss ...`."""
    head = f"{result.verdict}: {result.observed.test}: "
    if result.baseline is None:
        return (
            f"{head}{_tell_observed(result.observed)}; the first baseline, {result.observed.numerics_class}"
        )
    if result.verdict is TrajectoryVerdict.UNCHANGED:
        return f"{head}{_tell_observed(result.observed)}; {result.place} stays as it is"
    loss = next(
        (move for move in list_moves(result.baseline, result.observed) if move.metric == "loss"), None
    )
    parts = [f"final loss {loss.change}"] if loss else []
    if not result.is_of_own_class:
        parts.append(f"new in class {result.observed.numerics_class} beside {result.baseline.numerics_class}")
    divergence = result.divergence
    if divergence is not None:
        parts.append(f"first difference: {_tell_first(divergence)}")
    elif result.is_of_own_class and result.comparison and result.comparison.reason:
        parts.append(f"compared by tolerance: {result.comparison.reason}")
    elif result.is_of_own_class and result.comparison and result.comparison.match is Match.MATCHES:
        parts.append("the same training, of which other names, settings or steps are kept now")
    return head + ", ".join(parts)


def tell_divergence(result: TrajectoryResult, changed: Sequence[str] | None = None) -> list[str]:
    """What differs first and what follows from it, in lines; nothing unless they differ."""
    comparison, baseline = result.comparison, result.baseline
    if comparison is None or baseline is None or comparison.divergence is None:
        return [
            f"{result.observed.test} differs from its baseline: {comparison.reason if comparison else ''}"
        ]
    divergence = comparison.divergence
    consequence = divergence.consequence or "the losses do not differ"
    lines = [
        f"{result.observed.test} leaves its baseline at step {divergence.step}: {consequence}.",
        f"First difference: {_tell_first(divergence)}{_tell_identical(divergence)}.",
    ]
    lines += [f"Likely: {cause}" for cause in divergence.causes]
    if comparison.reason:
        lines.append(f"Compared {'exactly' if comparison.is_exact else 'by tolerance'}: {comparison.reason}")
    if baseline.provenance.commit:
        lines += tell_changed_files(result.observed, divergence.modules, baseline.provenance, changed)
    return [*lines, tell_baseline(result)]


def tell_baseline(result: TrajectoryResult) -> str:
    """Which baseline it was, in one line."""
    assert result.baseline is not None  # noqa: S101  the callers have one
    return f"Baseline: {result.place} ({tell_provenance(result.baseline.provenance)})."


def tell_provenance(provenance: Provenance) -> str:
    """When, at which commit and why a baseline was accepted."""
    parts = [f"accepted {provenance.accepted_at.partition('T')[0]}"] if provenance.accepted_at else []
    if provenance.commit:
        dirty = " with uncommitted changes" if provenance.uncommitted else ""
        parts.append(f"commit {provenance.commit[:SHORT_COMMIT]}{dirty}")
    return (
        ", ".join([*parts, f'"{provenance.reason}"'] if provenance.reason else parts) or "of unknown origin"
    )


def tell_changed_files(
    observed: Trajectory, modules: Iterable[str], provenance: Provenance, changed: Sequence[str] | None
) -> list[str]:
    """Which files that the program uses changed since the baseline's commit, those of affected modules first.

    Args:
        observed: The run's trajectory, which knows the program's files.
        modules: Modules that the first difference is about.
        provenance: Where the baseline comes from.
        changed: Files that are not as in its commit; None where that is not known.
    """
    commit = (provenance.commit or "")[:SHORT_COMMIT]
    if changed is None:
        return [f"What changed since is not known: commit {commit} is not in this clone, or this is not git."]
    affected = find_sources(observed, modules)
    named = {file: what for file, what in affected.items() if file in changed}
    used = [file for file in observed.project_files if file in changed and file not in named]
    shown = [f"{file} ({what})" for file, what in named.items()] + used
    others = [file for file in changed if file not in (*named, *used) and not STORED.search(file)]
    if not observed.project_files and not observed.sources:
        if not others:
            return [f"Since commit {commit} no file changed."]
        return [
            f"Changed since commit {commit}: {_list(others, MAX_FILES)}; it is not known which the program imports."
        ]
    if not shown:
        rest = f"; changed are {_list(others, MAX_OTHERS)}" if others else ", nor any other"
        return [f"Since commit {commit} no file changed that the program imports{rest}."]
    rest = f"; beside them {_list(others, MAX_OTHERS)}" if others else ""
    return [
        f"Changed since commit {commit}, of the files that the program imports: {_list(shown, MAX_FILES)}{rest}."
    ]


def find_sources(observed: Trajectory, modules: Iterable[str]) -> dict[str, str]:
    """The project's own files that modules come from, with what is in them: `{"net.py": "Block of blocks.0"}`.

    A module of a library is looked for in the module that holds it; where the classes of those are not known, every
    class of the model counts. Names that are no modules, as those of an optimizer's settings, have no file.
    """
    described = {str(name): str(text) for name, text in observed.settings.get(Phase.FORWARD, {}).items()}
    found: dict[str, dict[str, None]] = {}
    for module in modules:
        precise = next(
            (
                (f"{kind} of {name}" if kind != name else kind, observed.sources[kind])
                for name in _list_holders(module)
                if (kind := described.get(name, name).partition("(")[0]) in observed.sources
            ),
            None,
        )
        if precise is not None:
            found.setdefault(precise[1], {})[precise[0]] = None
        elif any(module in names for names in observed.parameters) or _is_module(module, described):
            for kind, file in observed.sources.items():
                found.setdefault(file, {})[kind] = None
    return {file: ", ".join(list(names)[:MAX_OTHERS]) for file, names in found.items()}


def _list_holders(module: str) -> list[str]:
    """A module, what holds it, and so on up: `a.b.c`, `a.b`, `a`."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _is_module(name: str, described: dict[str, str]) -> bool:
    is_known = name in described or any(other.startswith(f"{name}.") for other in described)
    return is_known and not name.startswith(("precision: ", "torch."))


def _tell_next(result: TrajectoryResult, request: BaselineRequest) -> str:
    advice = (result.divergence.advice if result.divergence else "") or "find the change"
    return f"Next: {advice}; if it is intended: {request.tell_accepting()}"


def _tell_first(divergence: Divergence) -> str:
    change = f" ({divergence.change})" if divergence.change else ""
    return f"{divergence.phase} at step {divergence.step}: {divergence.item}{change}"


def _tell_identical(divergence: Divergence) -> str:
    if not divergence.identical:
        return ""
    *most, last = divergence.identical
    names = f"{', '.join(most)} and {last}" if most else last
    return f"; {names} {'are' if most else 'is'} identical"


def _tell_observed(observed: Trajectory) -> str:
    loss = next((move for move in list_moves(observed, observed) if move.metric == "loss"), None)
    final = "" if loss is None or loss.observed is None else f", final loss {loss.observed:.4g}"
    return f"{_count(len(observed.points), 'step')}{final}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _list(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    # Names of files need not be text that can be written; reports are.
    return ", ".join(names[:most]).encode(errors="replace").decode() + more
