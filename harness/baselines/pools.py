"""Pools of measurements: what the launches of one test cost on one runner class, in one file each.

A file is a document of pytest-benchmark's schema (`stats.data` holds one step time per launch, in seconds),
so that its tools can read it; the launches themselves stand beside it under `harness`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.baselines.files import RESTORE, locked, name_file, parse_document, read_json, write_json
from harness.errors import BaselineError
from harness.record.counters import CountedStep
from harness.record.fixed_work import FixedWork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.baselines.shelves import Shelf
    from harness.record.environment import Environment

SCHEMA_VERSION = 1
FOLDER = "budgets"
MAX_LAUNCHES = 40
DATA_METRICS = ("step_time_s", "wall_clock_s")
OCCASION_GAP_S = 3600.0
"""Launches that followed one another sooner than this were made on one occasion: the machine was as it was then."""
KEPT_OCCASIONS = 10
"""So many occasions are kept, however many launches each has: how they differ is the noise that counts most."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What one process measured, and the circumstances: the sampling unit of every time.

    Attributes:
        values: Measurements by metric name, in the metric's unit.
        recorded_at: Moment in UTC at which it was accepted.
        commit: Commit of the work tree; None outside git.
        is_dirty: Whether tracked files differed from that commit.
        reason: Why the person or job that accepted it did so.
        counted: The operations of a step, as a JSON object; kept of the newest launch.
        fixed_work: How fast the machine was meanwhile; None where that was not timed.
    """

    values: dict[str, float]
    recorded_at: str
    commit: str | None
    is_dirty: bool | None
    reason: str
    counted: dict[str, Any] | None = None
    fixed_work: FixedWork | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """The launches of a release, kept while the pool moves on, so that drift over many baselines stays visible.

    Attributes:
        name: What people call the release.
        reason: Why it was pinned.
        pinned_at: Moment in UTC.
        launches: The pool as it was then.
    """

    name: str
    reason: str
    pinned_at: str
    launches: tuple[Launch, ...]

    def values(self, metric: str) -> list[float]:
        """The measurements of one metric, of the launches that have it."""
        return [launch.values[metric] for launch in self.launches if metric in launch.values]


@dataclass(frozen=True, slots=True)
class Pool:
    """The launches of one test on one runner class, oldest first, and the pinned release."""

    test: str
    runner_class: str
    launches: tuple[Launch, ...] = field(default=())
    anchor: Anchor | None = None

    def values(self, metric: str) -> list[float]:
        """The measurements of one metric, of the launches that have it."""
        return [launch.values[metric] for launch in self.launches if metric in launch.values]

    def list_occasions(self, metric: str) -> list[list[Launch]]:
        """The launches that have a measurement, those that were made on one occasion together."""
        occasions = (
            [launch for launch in occasion if metric in launch.values]
            for occasion in _split_by_occasion(self.launches)
        )
        return [launches for launches in occasions if launches]

    @property
    def counted(self) -> dict[str, Any] | None:
        """The operations of a step of the newest launch that has them, as a JSON object."""
        return next((launch.counted for launch in reversed(self.launches) if launch.counted), None)


class PoolStore:
    """The pools under a baselines folder: `budgets/<runner class>/<test>.json`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def path(self, test: str, runner_class: str) -> Path:
        """Where the pool of a test can be written.

        Raises:
            UsageError: The store is that of a commit.
        """
        return self._shelf.path(_name(test, runner_class))

    def locate(self, test: str, runner_class: str) -> str:
        """What messages call the file of a test."""
        return self._shelf.locate(_name(test, runner_class))

    def find_classes(self, test: str) -> list[str]:
        """The runner classes that have a pool for a test, sorted."""
        return [name.split("/")[1] for name in self._shelf.list_files(_name(test, "*"))]

    def read(self, test: str, runner_class: str) -> Pool | None:
        """The pool of a test on a runner class; None when there is none.

        Raises:
            BaselineError: The file is damaged, of a newer schema, or belongs to another test or runner class.
        """
        pool = self.read_file(_name(test, runner_class))
        if pool is not None and (pool.test, pool.runner_class) != (test, runner_class):
            place = self.locate(test, runner_class)
            raise BaselineError(
                f"baseline {place} belongs to {pool.test} on {pool.runner_class}, not to {test} on {runner_class}.\n"
                "Next: delete it and accept a new one."
            )
        return pool

    def list_names(self) -> list[str]:
        """The files of all pools by their names on the shelf, by runner class and name."""
        return self._shelf.list_files(f"{FOLDER}/*/*.json")

    def read_file(self, name: str) -> Pool | None:
        """The pool in a file of the shelf; None when there is none.

        Raises:
            BaselineError: The file is damaged, or of a newer schema.
        """
        text = self._shelf.read(name)
        return None if text is None else parse_pool(text, self._shelf.locate(name))

    def extend(
        self,
        test: str,
        added: Sequence[Launch],
        environment: Environment,
        runner_class: str,
        *,
        anew: bool = False,
    ) -> tuple[Pool, int]:
        """Adds launches to a pool, or starts the pool anew with them, and writes it.

        It holds 40 launches: the newest of every occasion, and while there are more than ten occasions the oldest goes.

        Returns:
            The pool, and how many of the launches that were added it holds.

        Raises:
            BaselineError: The old file can't be read or the new one can't be written; the old one stays.
        """
        path = self.path(test, runner_class)
        with locked(path):
            before = self.read(test, runner_class)
            earlier = before.launches if before and not anew else ()
            launches, num_added = _keep_most(earlier, added)
            # The pinned release outlives the launches, also where they start anew.
            pool = Pool(test, runner_class, launches, anchor=before.anchor if before else None)
            write_json(path, _build_document(pool, environment))
        return pool, num_added

    def pin(self, test: str, runner_class: str, *, name: str, reason: str, pinned_at: str) -> Pool | None:
        """Keeps the launches of a pool as those of a release, in the place of an earlier one; None without a pool.

        Raises:
            BaselineError: The file can't be read or written; it stays as it was.
        """
        path = self.path(test, runner_class)
        with locked(path):
            before = self.read(test, runner_class)
            document = read_json(path, schema_version=SCHEMA_VERSION)
            if before is None or document is None:
                return None
            anchor = Anchor(name, reason, pinned_at, before.launches)
            document["harness"]["anchor"] = _describe_anchor(anchor)
            write_json(path, document)
        return replace(before, anchor=anchor)


def _split_by_occasion(launches: Sequence[Launch]) -> list[list[Launch]]:
    occasions: list[list[Launch]] = []
    latest_s = -math.inf
    for launch in launches:
        at_s = clock.read_utc_s(launch.recorded_at)
        # A clock may have been put back.
        if abs(at_s - latest_s) > OCCASION_GAP_S:
            occasions.append([])
        occasions[-1].append(launch)
        latest_s = at_s
    return occasions


def _keep_most(earlier: Sequence[Launch], added: Sequence[Launch]) -> tuple[tuple[Launch, ...], int]:
    """The launches that a pool holds, and how many of them were added; only the newest that is counted stays so."""
    launches = [*earlier, *added]
    counted = [launch for launch in launches if launch.counted is not None]
    occasions = _split_by_occasion(launches)
    for _ in range(len(launches) - MAX_LAUNCHES):
        del (occasions[0] if len(occasions) > KEPT_OCCASIONS else max(occasions, key=len))[0]
        occasions = [occasion for occasion in occasions if occasion]
    kept = [launch for occasion in occasions for launch in occasion]
    ids = set(map(id, added))
    return (
        tuple(replace(launch, counted=None) if launch in counted[:-1] else launch for launch in kept),
        sum(id(launch) in ids for launch in kept),
    )


def parse_pool(text: str, place: str) -> Pool:
    """The pool in the text of a file.

    Raises:
        BaselineError: The text is damaged, or of a newer schema.
    """
    document = parse_document(text, place, schema_version=SCHEMA_VERSION)
    try:
        header = document["harness"]
        launches = tuple(_read_launch(launch) for launch in header["launches"])
        anchor = _read_anchor(header.get("anchor"))
        pool = Pool(header["test"], header["runner_class"], launches, anchor)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BaselineError(f"baseline {place} is incomplete: {error}.\n{RESTORE}") from error
    if not launches:
        raise BaselineError(f"baseline {place} holds no launch.\nNext: delete it and accept a new one.")
    return pool


def _name(test: str, runner_class: str) -> str:
    return f"{FOLDER}/{runner_class}/{name_file(test)}"


def _read_launch(document: Any) -> Launch:
    values: dict[str, Any] = document["values"]
    for metric, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{metric} is {value!r}")
    clock.read_utc_s(document["recorded_at"])
    if (counted := document.get("counted")) is not None:
        CountedStep.from_json(counted)
    work = document.get("fixed_work")
    return Launch(**(document | {"fixed_work": None if work is None else FixedWork.from_json(work)}))


def _describe_launch(launch: Launch) -> dict[str, Any]:
    optional = ("counted", "fixed_work")
    return {
        name: value for name, value in asdict(launch).items() if name not in optional or value is not None
    }


def _describe_anchor(anchor: Anchor) -> dict[str, Any]:
    return asdict(anchor) | {"launches": [_describe_launch(launch) for launch in anchor.launches]}


def _read_anchor(document: Any) -> Anchor | None:
    if document is None:
        return None
    launches = tuple(_read_launch(launch) for launch in document["launches"])
    return Anchor(**(document | {"launches": launches}))


def _build_document(pool: Pool, environment: Environment) -> dict[str, Any]:
    from pytest_benchmark import __version__ as benchmark_version  # noqa: PLC0415  only when accepting
    from pytest_benchmark.stats import Stats  # noqa: PLC0415

    metric = next((name for name in DATA_METRICS if pool.values(name)), DATA_METRICS[-1])
    data = pool.values(metric)
    stats: Any = Stats()  # type: ignore[no-untyped-call]  # pytest-benchmark's own statistics are untyped
    for value in data:
        stats.update(value)
    newest = pool.launches[-1]
    return {
        "machine_info": {
            "machine": environment.machine,
            "system": environment.platform,
            "python_version": environment.python,
            "cpu": {"brand_raw": environment.cpu, "count": environment.num_cpus},
            "torch": environment.torch,
            "gpus": list(environment.gpus),
        },
        "commit_info": {"id": newest.commit, "dirty": newest.is_dirty, "time": newest.recorded_at},
        "benchmarks": [
            {
                "group": None,
                "name": pool.test.split("::")[-1],
                "fullname": pool.test,
                "params": None,
                "param": None,
                "extra_info": {"metric": metric, "unit": "seconds", "rounds": "one process launch each"},
                "options": {},
                "stats": {**stats.as_dict(), "iterations": 1, "data": data} if data else {},
            }
        ],
        "datetime": newest.recorded_at,
        "version": benchmark_version,
        "harness": {
            "schema_version": SCHEMA_VERSION,
            "test": pool.test,
            "runner_class": pool.runner_class,
            "launches": [_describe_launch(launch) for launch in pool.launches],
            **({"anchor": _describe_anchor(pool.anchor)} if pool.anchor else {}),
        },
    }
