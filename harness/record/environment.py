"""The environment of a run, and the runner class derived from it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Environment:
    """Machine and library versions that can change a trajectory or a time.

    Attributes:
        cpu: Model name of the processor, with family and model number where the system tells them.
        num_cpus: Processors this process may use.
        gpus: Names of the visible GPUs.
        packages: Versions of the packages that matter to training and were installed.
        commit: Of the git work tree; None outside of one.
        is_dirty: Whether tracked files differ from it, stored baselines left out.
    """

    python: str
    platform: str
    machine: str
    host: str
    cpu: str
    num_cpus: int
    torch: str
    cuda: str | None = None
    gpus: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    is_dirty: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The environment as a JSON object."""
        return asdict(self) | {"gpus": list(self.gpus)}


def derive_runner_class(environment: Environment, *, device: str, threads: int | None) -> str:
    """A folder name for machines whose clocks may be compared, such as `cpu-amd-epyc-2c-torch2.13-py3.11-1t`.

    Two runs of one class share processor (or GPU name and count), torch minor, CUDA version, Python minor
    and thread count.
    """
    if device == "cuda":
        parts = ["cuda", environment.gpus[0] if environment.gpus else "gpu", f"{len(environment.gpus)}x"]
        parts.append(f"cu{environment.cuda}")
    else:
        parts = ["cpu", environment.cpu, f"{environment.num_cpus}c"]
    parts += [f"torch{_minor(environment.torch)}", f"py{_minor(environment.python)}"]
    if threads is not None:
        parts.append(f"{threads}t")
    return slug("-".join(parts))


def slug(text: str) -> str:
    """`text` as a file name: lower case, runs of anything but letters, digits, dot and underscore to one dash."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.")


def _minor(version: str) -> str:
    return ".".join(version.split("+", maxsplit=1)[0].split(".")[:2])
