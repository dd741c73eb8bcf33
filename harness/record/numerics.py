"""The numerics class of a run: runs of one class compute the same bits from the same program and seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from harness.record.environment import slug

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGEST_LENGTH = 6


def describe_machine(numerics: Mapping[str, str], *, cpu: str, device: str) -> dict[str, str]:
    """All that a numerics class is derived from, by name: processor, libraries, threads, overrides.

    Args:
        numerics: What the process that trained told of its machine, see `harness.watch.numerics`.
        cpu: Name of the processor.
        device: "cpu" or "cuda"; what belongs to the other one is left out.
    """
    is_gpu = device == "cuda"
    kept = {name: value for name, value in numerics.items() if is_gpu or name not in ("gpu", "cuda", "cudnn")}
    return {"device": device, "cpu": cpu, **kept}


def derive_numerics_class(machine: Mapping[str, str]) -> str:
    """A folder name for a machine's numerics, such as `cpu-amd-epyc-avx512-torch2.13.0-1t-3f9a1c`.

    The digest at its end covers everything that `describe_machine` found.
    """
    device = machine.get("device", "cpu")
    parts = [device, machine.get("gpu", "gpu") if device == "cuda" else machine.get("cpu", "")]
    parts += [machine.get("capability", ""), f"torch{machine.get('torch', '').partition('+')[0]}"]
    parts.append(f"{machine.get('threads', '')}t")
    text = "\n".join(f"{name}={machine[name]}" for name in sorted(machine))
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    return slug("-".join([*(part for part in parts if part), digest]))
