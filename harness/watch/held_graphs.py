"""Tells which autograd graphs of earlier steps are still held: a mark on each, which is gone when the graph is."""

from __future__ import annotations

import weakref
from typing import Any

import torch

MAX_MARKS = 256
FIRST_STEPS = 16
MARKED_EVERY = 8
"""Steps after the first ones: a mark takes as long as a fifth of all else that is seen of a step."""
KEY = "harness"


class _Tag:
    """Lives as long as the node whose metadata hold it."""

    __slots__ = ("__weakref__",)


class Mark:
    """A mark that was made, with the step of its backward, where that is known and the backward counts."""

    __slots__ = ("reference", "step")

    def __init__(self, mark: _Tag) -> None:
        self.reference = weakref.ref(mark)
        self.step: int | None = None


class HeldGraphs:
    """Marks the graphs that backwards begin at, in the metadata of their last nodes: of some steps, up to 256."""

    def __init__(self) -> None:
        self._marks: list[Mark] = []
        self._num_rounds = 0
        self._latest_calls = 0

    def mark(self, loss: object, num_calls: int) -> Mark | None:
        """Marks the graph of what a backward begins at, if that is the turn of its step.

        Steps are counted by the backwards that come behind an optimizer's call, however many optimizers there are.
        """
        self._num_rounds += num_calls != self._latest_calls
        self._latest_calls = num_calls
        if self._num_rounds >= FIRST_STEPS and self._num_rounds % MARKED_EVERY:
            return None
        node = loss.grad_fn if isinstance(loss, torch.Tensor) else None
        if node is None or len(self._marks) >= MAX_MARKS:
            return None
        metadata: Any = node.metadata  # a dict; typed as a method that gives one
        metadata[KEY] = held = _Tag()
        self._marks.append(Mark(held))
        return self._marks[-1]

    def count(self, before_step: int) -> tuple[int, int]:
        """How many graphs of steps before this one are still held, and how many were marked."""
        earlier = [mark for mark in self._marks if mark.step is not None and mark.step < before_step]
        return sum(mark.reference() is not None for mark in earlier), len(earlier)
