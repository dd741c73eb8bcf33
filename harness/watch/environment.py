"""Reads the environment of this process: machine, libraries, GPUs, commit."""

from __future__ import annotations

import functools
import os
import platform
from importlib import metadata
from pathlib import Path

from harness.git import run_git
from harness.record.environment import Environment

PACKAGES = ("accelerate", "lightning", "numpy", "pandas", "torch", "transformers")
CPU_KEYS = ("model name", "cpu family", "model")
CODE = (":(top)", *(f":(top,exclude,glob)**/{kind}/*/*.json" for kind in ("budgets", "trajectories")))
"""What git is asked about: all but stored baselines, which the launch before may have written."""


@functools.cache
def capture_environment() -> Environment:
    """The environment of this process and of the git work tree it stands in.

    Imports torch, which a process that runs a training needs anyway.

    Raises:
        ImportError: torch is not installed.
    """
    import torch  # noqa: PLC0415  imported late: 800 ms

    gpus = (
        tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        if torch.cuda.is_available()
        else ()
    )
    commit = run_git("rev-parse", "HEAD", folder=Path())
    changes = run_git("status", "--porcelain", "--untracked-files=no", "--", *CODE, folder=Path())
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        machine=platform.machine(),
        host=platform.node(),
        cpu=read_cpu_name(),
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch=str(torch.version.__version__),
        cuda=torch.version.cuda,
        gpus=gpus,
        packages={name: version for name in PACKAGES if (version := _find_version(name))},
        commit=None if commit is None else commit.decode().strip(),
        is_dirty=None if commit is None or changes is None else bool(changes),
    )


def read_cpu_name() -> str:
    """The processor's model name; family and model number are added because clouds hide the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    first = dict(_split_line(line) for line in reversed(lines) if ":" in line)
    name, family, model = (first.get(key, "") for key in CPU_KEYS)
    name = name or platform.machine()
    return f"{name} f{family}m{model}" if family and model else name


def _split_line(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
