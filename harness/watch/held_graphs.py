"""Tells which autograd graphs of earlier steps are still held: a mark on each, which is gone when the graph is."""

from __future__ import annotations

import weakref
from typing import Any

import torch

MAX_MARKS = 256
FIRST_STEPS = 16
MARKED_EVERY = 8
"""Steps after the first ones: a mark takes as long as a fifth of all else that is seen of a step."""
MARK = "harness"


class _Mark:
    """Lives as long as the node whose metadata hold it."""

    __slots__ = ("__weakref__",)


class HeldGraphs:
    """Marks the graphs that backwards begin at, in the metadata of their last nodes: of some steps, up to 256."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, weakref.ref[_Mark]]] = []

    def mark(self, loss: object, step: int) -> None:
        """Marks the graph of what a backward begins at, if it is the turn of the step."""
        if step >= FIRST_STEPS and step % MARKED_EVERY:
            return
        node = loss.grad_fn if isinstance(loss, torch.Tensor) else None
        if node is not None and len(self._marks) < MAX_MARKS:
            metadata: Any = node.metadata  # a dict; typed as a method that gives one
            metadata[MARK] = mark = _Mark()
            self._marks.append((step, weakref.ref(mark)))

    def count(self, before_step: int) -> tuple[int, int]:
        """How many graphs of steps before this one are still held, and how many were marked."""
        earlier = [reference for step, reference in self._marks if step < before_step]
        return sum(reference() is not None for reference in earlier), len(earlier)
