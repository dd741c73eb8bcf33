"""The launches that go into the history, read off a session's document or a stored pool."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.budgets.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.baselines.pools import Pool

CI_VARIABLES = ("GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILD_ID")
TIMES = frozenset(metric.name for metric in METRICS if metric.is_time)


@dataclass(frozen=True, slots=True)
class TrackedLaunch:
    """One process launch of one test, as the history holds it.

    Attributes:
        test: Node id, with `#2` behind it for the second run of a test.
        runner_class: Class of the machine.
        recorded_at: Moment in UTC.
        commit: Commit of the work tree; None outside git.
        is_dirty: Whether tracked files differed from that commit; None where unknown.
        reason: Why it was accepted as a baseline; empty for a launch that was only measured.
        version: Version of the harness; empty where unknown.
        ci: Run of the CI system; empty elsewhere.
        values: Finite measurements by metric name.
    """

    test: str
    runner_class: str
    recorded_at: str
    commit: str | None
    is_dirty: bool | None
    reason: str
    version: str
    ci: str
    values: dict[str, float]

    @property
    def key(self) -> str:
        """The same for the same launch, so that nothing enters the history twice."""
        facts = [self.test, self.runner_class, self.recorded_at, sorted(self.values.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_session(document: Mapping[str, Any], *, reason: str = "", ci: str = "") -> list[TrackedLaunch]:
    """The launches of a session's document.

    A test that failed its own assertions measured a broken training, and is left out; one that only failed its
    budget is what a trend is there to see. Of a session with several workers the times are left out.

    Raises:
        KeyError, TypeError, ValueError: The document is none of a session.
    """
    is_crowded = int(document.get("num_workers", 0)) > 1
    launches = []
    for test in document["tests"]:
        if test["outcome"] != "passed" and not _failed_its_budget(test):
            continue
        for number, run in enumerate(test["runs"]):
            values = {
                name: float(value)
                for name, value in run["measured"].items()
                if math.isfinite(float(value)) and not (is_crowded and name in TIMES)
            }
            if not values:
                continue
            environment = run["environment"]
            launches.append(
                TrackedLaunch(
                    test=test["nodeid"] + (f"#{number + 1}" if number else ""),
                    runner_class=test["runner_class"],
                    recorded_at=document["created_at"],
                    commit=environment["commit"],
                    is_dirty=environment["is_dirty"],
                    reason=reason,
                    version=document["harness_version"],
                    ci=ci,
                    values=values,
                )
            )
    return launches


def _failed_its_budget(test: Mapping[str, Any]) -> bool:
    """Whether a test ended with a verdict of its budget: what it failed with begins with one of its lines."""
    return any(line["message"] and test["message"].startswith(line["message"]) for line in test["budget"])


def read_pool(pool: Pool) -> list[TrackedLaunch]:
    """The launches of a stored pool."""
    return [
        TrackedLaunch(
            test=pool.test,
            runner_class=pool.runner_class,
            recorded_at=launch.recorded_at,
            commit=launch.commit,
            is_dirty=launch.is_dirty,
            reason=launch.reason,
            version="",
            ci="",
            values=dict(launch.values),
        )
        for launch in pool.launches
    ]


def find_ci() -> str:
    """The run of the CI system this process belongs to; empty elsewhere."""
    return next((f"{name}={os.environ[name]}" for name in CI_VARIABLES if os.environ.get(name)), "")
