"""Reads what the last digits of this process's numbers depend on, beside the arithmetic of the program."""

from __future__ import annotations

import functools
import os
import zlib
from typing import Any

import torch

OVERRIDES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""Variables that choose the instructions of the libraries below torch."""
PRECISION = "precision"
MACHINE = "machine"
START = "start"


def capture_numerics() -> dict[str, Any]:
    """What the machine brings, under "machine", and what the program asked torch for, under "precision".

    Two processes with the same machine part compute the same bits from the same program and seed, on a CPU.
    """
    return {MACHINE: _capture_machine(), PRECISION: _capture_precision()}


def capture_start() -> dict[str, str]:
    """What a program may change before its first step, and may have computed with until then: its threads."""
    return {"threads": str(torch.get_num_threads())}


def _capture_machine() -> dict[str, str]:
    found = {
        "torch": str(torch.__version__),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "build": _fingerprint_build(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return found | {name: value for name in OVERRIDES if (value := os.environ.get(name))}


@functools.cache
def _fingerprint_build() -> str:
    """A fingerprint of how torch was built, with the versions of its math libraries."""
    lines = torch.__config__.show().splitlines()
    built = "\n".join(line for line in lines if "CPU capability" not in line)
    return f"{zlib.crc32(built.encode()):08x}"


def _capture_precision() -> dict[str, str]:
    found = {
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32 matmul": torch.get_float32_matmul_precision(),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "oneDNN": str(torch.backends.mkldnn.enabled).lower(),
        "denormals flushed": str(_flushes_denormals()).lower(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuDNN benchmark"] = str(torch.backends.cudnn.benchmark).lower()
        found["cuDNN deterministic"] = str(torch.backends.cudnn.deterministic).lower()
        found["cuDNN TF32"] = str(torch.backends.cudnn.allow_tf32).lower()
    return found


def _flushes_denormals() -> bool:
    return bool((torch.tensor(1e-38) * 1e-5 == 0).item())
