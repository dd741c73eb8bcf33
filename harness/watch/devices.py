"""GPUs of this machine, and seeds and threads of a call."""

from __future__ import annotations

import contextlib
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Gpu:
    """One visible CUDA device; its memory in GiB."""

    name: str
    memory_gb: float


def find_gpus() -> list[Gpu]:
    """The CUDA devices this process can use; empty without a GPU, a driver or a CUDA build of torch."""
    import torch  # noqa: PLC0415  imported late

    if not torch.cuda.is_available():
        return []
    found = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [Gpu(properties.name, properties.total_memory / 2**30) for properties in found]


def explain_missing_gpu(gpus: list[Gpu], *, count: int, memory_gb: float, name: str) -> str | None:
    """Why these GPUs don't meet a requirement; None when they do.

    Args:
        gpus: What the machine has.
        count: How many GPUs must meet the rest.
        memory_gb: Memory each must have, in GiB.
        name: Text each name must hold, upper and lower case alike.
    """
    if not gpus:
        return "needs a GPU; torch sees none (torch.cuda.is_available() is False)"
    fitting = [gpu for gpu in gpus if name.lower() in gpu.name.lower() and gpu.memory_gb >= memory_gb]
    if len(fitting) >= count:
        return None
    wanted = f"{count} GPU{'s' if count > 1 else ''}"
    wanted += f" named like {name!r}" if name else ""
    wanted += f" with at least {memory_gb:g} GiB" if memory_gb else ""
    there = ", ".join(f"{gpu.name} ({gpu.memory_gb:.0f} GiB)" for gpu in gpus)
    return f"needs {wanted}; this machine has {there}"


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seeds Python, NumPy (where loaded) and torch for a block, and gives their states back afterwards.

    With None nothing is touched.
    """
    if seed is None:
        yield
        return
    import torch  # noqa: PLC0415  imported late

    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


@contextlib.contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Holds torch's intra-op threads of this process to a number for a block; None leaves them alone."""
    if threads is None:
        yield
        return
    import torch  # noqa: PLC0415  imported late

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
