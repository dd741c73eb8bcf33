"""The document of a session: everything the reports show, as plain JSON data with a schema version."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.budgets.metrics import measure
from harness.record.watched import find_phase_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.budgets.results import BudgetResult
    from harness.record.run import TrainingRun
    from harness.rules.diagnosis import Diagnosis

SCHEMA_VERSION = 1


def describe_run(run: TrainingRun, diagnosis: Diagnosis) -> dict[str, Any]:
    """One run as JSON data: identity, cost, loss curve and what the rules say.

    Numbers that are not finite become the text `nan`, `inf` or `-inf`, as JSON has none.
    """
    return {
        "name": run.name,
        "source": run.source,
        "command": list(run.command) if run.command else None,
        "run_dir": str(run.run_dir),
        "device": run.device,
        "seed": run.seed,
        "threads": run.threads,
        "num_steps": len(run.steps),
        "loss_name": run.loss_name,
        "loss": [[step, replace_non_finite(value)] for step, value in run.loss_curve],
        "measured": {name: replace_non_finite(value) for name, value in measure(run).items()},
        "throughput_unit": run.throughput_unit,
        "watched": _describe_watched(run),
        "is_profiled": run.is_profiled,
        "trace": str(run.trace) if run.trace else None,
        "notes": list(run.notes),
        "findings": [finding.to_json() for finding in diagnosis.findings],
        "rules_not_applied": diagnosis.not_applied,
        "findings_ignored": [finding.to_json() | {"reason": reason} for finding, reason in diagnosis.ignored],
        "environment": run.environment.to_json(),
    }


def _describe_watched(run: TrainingRun) -> dict[str, Any] | None:
    """What was watched, in short: the whole is in `RunObservation.to_json`."""
    observed = run.observed
    if observed is None:
        return None
    shares = find_phase_shares(observed)
    return {
        "num_steps": len(observed.steps),
        "outcome": str(observed.outcome),
        "num_ranks": len(run.ranks),
        "optimizers": [
            {"name": optimizer.name, "num_groups": len(optimizer.groups), "num_steps": optimizer.num_steps}
            for optimizer in observed.optimizers
        ],
        "num_trainable_parameters": sum(observed.trainable_parameters.values()),
        "phase_shares": {phase: round(share, 4) for phase, share in shares.items()},
        "not_seen": list(observed.not_seen),
    }


def describe_test(
    nodeid: str,
    *,
    runner_class: str | None,
    runs: Sequence[dict[str, Any]],
    budget: Iterable[BudgetResult],
    outcome: str,
    message: str,
    trajectories: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    """One test as JSON data; `outcome` is `passed`, `failed`, `skipped`, `xfailed` or `not observed`."""
    return {
        "nodeid": nodeid,
        "runner_class": runner_class,
        "outcome": outcome,
        "message": message,
        "runs": list(runs),
        "budget": [result.to_json() for result in budget],
        "trajectories": [replace_non_finite(trajectory) for trajectory in trajectories],
    }


def build_session(
    tests: Sequence[dict[str, Any]], *, version: str, created_at: str, notes: Iterable[str] = ()
) -> dict[str, Any]:
    """The whole session as one document; `notes` are about the report itself."""
    return {
        "schema_version": SCHEMA_VERSION,
        "harness_version": version,
        "created_at": created_at,
        "tests": list(tests),
        "notes": [note for note in notes if note],
    }


def replace_non_finite(value: Any) -> Any:
    """`value` with every NaN and infinity in it as text, since JSON has none."""
    if isinstance(value, dict):
        return {key: replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_non_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
