"""Where a run took place: interpreter, versions, devices, host, and the code's commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from reference_model.distributed import World

_PACKAGES = ("torch", "numpy", "scikit-learn", "pyyaml", "pillow")
_VARIABLES = ("RUN_ID", "WORLD_SIZE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
_GIT_TIMEOUT_S = 20


def describe_environment(world: World) -> dict[str, object]:
    """Everything about this process and machine that can change a run's numbers or times."""
    has_cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": world.host,
        "cpu": _cpu_name(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "device": str(world.device),
        "world_size": world.size,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if has_cuda else None,  # type: ignore[no-untyped-call]
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if has_cuda else [],
        "packages": {name: _version(name) for name in _PACKAGES},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "command": sys.argv,
    }


def describe_code() -> tuple[dict[str, object], str] | None:
    """Commit, branch and whether the tree differs from it, with the difference; None outside of git."""
    if _git("rev-parse", "--is-inside-work-tree") != "true":
        return None
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    diff = _git("diff", "HEAD") if commit else ""
    changes = (_git("status", "--porcelain") or "").splitlines()
    facts: dict[str, object] = {
        "commit": commit or None,
        "branch": _git("symbolic-ref", "--short", "--quiet", "HEAD") or None,
        "is_dirty": bool(changes),
        "changes": changes,
    }
    return facts, diff or ""


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Only the end: the first line of `status` starts with a blank that means something.
    return done.stdout.decode("utf-8", errors="replace").rstrip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
