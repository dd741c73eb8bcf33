"""Other machines, emulated on this one: fewer instructions, or other threads, each in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine whose sums come out in another order.

    Attributes:
        name: For tables and folders.
        environment: Variables that switch instructions off; they count from the start of a process only.
        threads: Of torch.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1


HOME = Machine("as-it-is")
"""This machine, with one thread: where baselines are recorded."""
# Threads that wait by spinning take minutes beside another load; how they wait changes no number.
TWO_THREADS = Machine("two-threads", {"OMP_WAIT_POLICY": "PASSIVE"}, threads=2)
OTHERS = (
    TWO_THREADS,
    Machine("aten-default", {"ATEN_CPU_CAPABILITY": "default"}),
    Machine("aten-avx2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    Machine("mkl-sse4.2", {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
    Machine("mkl-avx2", {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    Machine("mkl-compatible", {"MKL_CBWR": "COMPATIBLE"}),
    Machine("onednn-sse4.1", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Machine("onednn-avx2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Machine(
        "all-avx2",
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
    ),
    Machine(
        "all-sse",
        {
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
        },
    ),
)
MACHINES = {machine.name: machine for machine in (HOME, *OTHERS)}
