"""Other machines, emulated on this one, each in a process of its own: fewer instructions, threads, processors."""

from __future__ import annotations

import shutil
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
        emulator: What Python is started by, for another processor: every instruction is carried out in software, and
            libraries are told another maker and model, so that they choose the code they have for that one.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    emulator: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether it can be had here; the emulator of processors is a package of the system, `qemu-user`."""
        return not self.emulator or shutil.which(self.emulator[0]) is not None


def _emulate(processor: str) -> Machine:
    environment = {EMULATED: processor}
    return Machine(f"cpu-{processor.lower()}", environment, emulator=("qemu-x86_64", "-cpu", processor))


EMULATED = "HARNESS_BENCHMARK_CPU"
"""Tells a process that it already runs on an emulated processor."""


HOME = Machine("as-it-is")
"""This machine, with one thread: where baselines are recorded."""
# Threads that wait by spinning take minutes beside another load; how they wait changes no number.
TWO_THREADS = Machine("two-threads", {"OMP_WAIT_POLICY": "PASSIVE"}, threads=2)
SETTINGS = (
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
PROCESSORS = (_emulate("Haswell"), _emulate("Nehalem"))
"""Of another maker than that of the machine the tables were made on: with AVX2, and with SSE4.2 alone."""
OTHERS = (*SETTINGS, *PROCESSORS)
MACHINES = {machine.name: machine for machine in (HOME, *OTHERS)}
