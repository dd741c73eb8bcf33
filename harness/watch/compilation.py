"""Knows when torch is turning a program into a graph, and counts what torch.compile did."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from harness.record.observation import CompilationObservation


def is_capturing() -> bool:
    """Whether a call is being compiled or traced: what the watcher did now would end up in the graph."""
    return torch.compiler.is_compiling() or is_tracing()


find_tracing = torch._C._get_tracing_state  # noqa: SLF001  as nn.Module asks; the public one is not typed
"""The state of `torch.jit.trace` while it records the calls of this thread; else None."""


def is_tracing() -> bool:
    """Whether `torch.jit.trace` is recording the calls of this thread."""
    return find_tracing() is not None


def is_capturing_graph() -> bool:
    """Whether a CUDA graph is being captured, in which nothing may wait for the device or ask for its generator."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


def count_graphs() -> tuple[int, int]:
    """Graphs compiled and graph breaks met by this process so far; zeros before the compiler is loaded."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", None)
    if counters is None:
        return 0, 0
    return int(counters["stats"].get("unique_graphs", 0)), sum(counters["graph_break"].values())


def count_frames() -> int:
    """Frames that this process has handed to the compiler so far."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", None)
    return 0 if counters is None else sum(counters["frames"].values())


def note_compilation(found: CompilationObservation, foreign: tuple[int, int]) -> None:
    """Fills in what has been compiled, without graphs and graph breaks that are not the training's."""
    graphs, breaks = count_graphs()
    found.num_graphs = graphs - foreign[0]
    found.num_graph_breaks = breaks - foreign[1]
    found.is_used = found.is_used or found.num_graphs > 0
