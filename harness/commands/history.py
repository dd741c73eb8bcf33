"""`harness trend add` and `harness trend pin`: what goes into a history, and what it is measured against."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness import clock
from harness.commands.output import EXIT_GOOD, say
from harness.errors import BaselineError, ObservationError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from harness.baselines.pools import Pool
    from harness.tracking.store import History

SESSION = "session.json"
MARKS = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", ".git")


def find_root(folder: Path) -> Path:
    """The project a folder lies in: the nearest folder above it with a project's file, else itself."""
    for place in (folder, *folder.parents):
        if any((place / mark).exists() for mark in MARKS):
            return place
    return folder


def open_history(options: argparse.Namespace, root: Path) -> History:
    """The history of the project, where the options, the environment or its configuration say."""
    from harness.project import read_ini  # noqa: PLC0415  late
    from harness.tracking.store import URI_VARIABLE, History, find_place  # noqa: PLC0415

    given, source = options.tracking_uri, "--tracking-uri"
    if not given and not os.environ.get(URI_VARIABLE):
        given, source = read_ini(root, "harness_tracking_uri"), "ini harness_tracking_uri"
    return History(find_place(root, given, source=source))


def add_launches(options: argparse.Namespace, root: Path, paths: Sequence[str]) -> int:
    """Adds the launches of session documents and of folders of baselines to the history.

    Raises:
        HarnessError: There is nothing to add, or the history can't be written.
    """
    from harness.tracking.launches import find_ci, read_pool, read_session  # noqa: PLC0415  late

    if not paths:
        raise UsageError(
            "harness trend add needs what to add.\nNext: harness trend add harness-report/session.json"
        )
    history, num_added, num_found = open_history(options, root), 0, 0
    for named in map(Path, paths):
        artifacts: list[Path] = []
        path = named / SESSION if (named / SESSION).is_file() else named
        if path.is_dir():
            launches = [launch for pool in _read_pools(path) for launch in read_pool(pool)]
        else:
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                launches = read_session(document, reason=options.reason, ci=find_ci())
            except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise UsageError(
                    f"{path} is no document of a session: {type(error).__name__}: {error}.\n"
                    "Next: name the session.json of a report, or a folder of baselines."
                ) from error
            artifacts = [path, path.parent / "summary.md", path.parent / "traces"]
        num_found += len(launches)
        num_added += history.add(launches, artifacts)
    if not num_found:
        raise ObservationError(
            f"{', '.join(paths)} holds no launch to add: no training that passed its assertions, and no stored pool.\n"
            "Next: run the trainings first, and name the session.json of their report, or a folder of baselines."
        )
    noun = "launch" if num_added == 1 else "launches"
    say(f"harness: {num_added} {noun} added, {num_found - num_added} there already.")
    return EXIT_GOOD


def pin_release(options: argparse.Namespace, root: Path, names: Sequence[str]) -> int:
    """Pins the present launches of every pool as those of a release.

    Raises:
        HarnessError: There is no name, reason or pool, or a pool can't be written.
    """
    if len(names) != 1 or not options.reason.strip():
        raise UsageError(
            "harness trend pin needs the name of a release, and a reason.\n"
            'Next: harness trend pin v1.2 --reason "released"'
        )
    from harness.baselines.pools import PoolStore  # noqa: PLC0415  late
    from harness.baselines.shelves import FolderShelf  # noqa: PLC0415

    folder = root / options.baselines
    pools, store, now = _read_pools(folder), PoolStore(FolderShelf(folder)), clock.now_utc()
    if options.runner_class:
        pools = [pool for pool in pools if pool.runner_class == options.runner_class]
    if not pools:
        raise ObservationError(f"there is no pool under {folder} to pin.\nNext: accept baselines first.")
    for pool in pools:
        store.pin(pool.test, pool.runner_class, name=names[0], reason=options.reason, pinned_at=now)
        say(
            f"harness: {names[0]} pinned: {len(pool.launches)} launches of {pool.test} on {pool.runner_class}."
        )
    say("Next: commit the baselines; the anchor of each history is taken from the nights that follow.")
    return EXIT_GOOD


def _read_pools(folder: Path) -> list[Pool]:
    """Every pool under a folder of baselines.

    Raises:
        BaselineError: A file of them is damaged.
    """
    from harness.baselines.pools import PoolStore  # noqa: PLC0415  late
    from harness.baselines.shelves import FolderShelf  # noqa: PLC0415

    store, pools = PoolStore(FolderShelf(folder)), []
    for name in store.list_names():
        path, pool = folder / name, store.read_file(name)
        if pool is None:
            continue  # removed meanwhile
        if store.path(pool.test, pool.runner_class) != path:
            raise BaselineError(
                f"baseline {path} is not where {pool.test} on {pool.runner_class} belongs.\nNext: move it back."
            )
        pools.append(pool)
    return pools
