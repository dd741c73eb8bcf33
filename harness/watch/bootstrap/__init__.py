"""How a child process is watched without a change to it: an environment to start it with.

`site/sitecustomize.py` is run by Python at start-up in every process that inherits the environment. It waits
for torch to be imported, and only then loads the watcher.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.watch.options import ObserverOptions

VARIABLE = "HARNESS_WATCH"
LOADED_FILES = "loaded-files-"
SITE = Path(__file__).parent / "site"


def watch_environment(
    folder: Path,
    options: ObserverOptions,
    base: Mapping[str, str] | None = None,
    *,
    turns: Path | None = None,
) -> dict[str, str]:
    """The variables to add to a child's environment so that it and its children write records to a folder.

    Args:
        folder: Where each process that trains leaves its file; use a new one for every run.
        options: How to watch.
        base: The environment the child is to have otherwise; this process's own by default.
        turns: Socket that gives the child its turns; it then also leaves the names of the files it loaded. None
            lets it run.

    Raises:
        UsageError: The folder already holds records.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and holds the record of another run.\nNext: give a new folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    before = (os.environ if base is None else base).get("PYTHONPATH")
    settings: dict[str, object] = {"folder": str(folder.absolute()), "options": options.to_json()}
    if turns is not None:
        settings["turns"] = str(turns.absolute())
    return {
        VARIABLE: json.dumps(settings),
        "PYTHONPATH": os.pathsep.join([str(SITE), *([before] if before else [])]),
    }
