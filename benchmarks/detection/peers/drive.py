"""Runs the plugin's tests on mutants, each in a forked child; started in an environment that has the plugin.

Reads a JSON list of `{"name", "program", "source"}` from the first argument, writes `{name: {"failed", "output"}}`
to the second.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_S = 120.0
IMPORTED = ("torch._dynamo", "torch.utils.data", "numpy", "pytest_torch", "transformers.trainer", "lightning")
TEST_FILE = Path(__file__).with_name("check_programs.py")


def main() -> None:
    """Runs every mutant of the list, a few at a time."""
    wanted: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    num_jobs = int(sys.argv[3])
    import torch  # noqa: PLC0415  after the arguments are known to be good

    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    # The plugin looks for leaks among all objects there are; these are none of a test's.
    gc.freeze()
    found: dict[str, dict[str, Any]] = {}
    running: dict[int, tuple[dict[str, Any], Path, float]] = {}
    while wanted or running:
        while wanted and len(running) < num_jobs:
            mutant = wanted.pop(0)
            folder = Path(tempfile.mkdtemp(prefix="plugin-"))
            running[_start(mutant, folder)] = (mutant, folder, time.monotonic() + LIMIT_S)
        for process, (mutant, folder, ends_at_s) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and time.monotonic() > ends_at_s:
                os.killpg(process, signal.SIGKILL)
                ended, status = os.waitpid(process, 0)
            if ended:
                del running[process]
                output = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
                found[mutant["name"]] = {"failed": status != 0, "output": output[-3000:]}
                sys.stderr.write(f"\r{len(found)} tested, {len(wanted)} to go ")
        time.sleep(0.02)
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def _start(mutant: dict[str, Any], folder: Path) -> int:
    process = os.fork()
    if process:
        return process
    code = 3
    try:
        os.setsid()
        target = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        path = folder / f"{mutant['program']}.py"
        path.write_text(mutant["source"], encoding="utf-8")
        os.environ["DETECTION_MUTANT"] = str(path)
        os.environ["DETECTION_SEED"] = "0"
        import pytest  # noqa: PLC0415

        options = [
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:harness",
            "--torch-device=cpu",
            "--tb=line",
            "-c",
            os.devnull,
        ]
        code = int(
            pytest.main([*options, f"--rootdir={folder}", f"--basetemp={folder / 'base'}", str(TEST_FILE)])
        )
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
