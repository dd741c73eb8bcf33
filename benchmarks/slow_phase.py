"""Runs a program with one phase of every step made longer by a busy loop, without a change to it.

    python benchmarks/slow_phase.py forward 120000 -m reference_model --mode ci
    python benchmarks/slow_phase.py backward 0 train.py --steps 30

The second word is the number of turns of the loop. A loop of work, and not of time, so that it takes its share also
where the other programs of a machine slow all of the step down.
"""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.sgd import SGD
from torch.utils.data import dataloader

if TYPE_CHECKING:
    from collections.abc import Callable

PHASES = ("data", "forward", "backward", "optimizer")


def spin(num_turns: int) -> int:
    """Works for nothing."""
    value = 1
    for _ in range(num_turns):
        value = value * 5 & 0xFFFF
    return value


def slow_down(phase: str, num_turns: int) -> None:
    """Has every step spin once in a phase: in the loader, before the loss, in the loss's gradient, or in the step."""
    if phase == "data":
        _spin_before(dataloader._SingleProcessDataLoaderIter, "_next_data", num_turns)  # noqa: SLF001
    elif phase == "forward":
        _spin_before(torch.nn.functional, "cross_entropy", num_turns)
    elif phase == "backward":
        # In the engine: a hook on the loss itself runs when its gradient is there.
        backward = torch.autograd.backward

        def spinning(tensors: Any, *args: Any, **kwargs: Any) -> None:
            loss = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
            loss.register_hook(lambda _gradient: [spin(num_turns), None][1])
            backward(tensors, *args, **kwargs)

        torch.autograd.backward = spinning
    else:
        kinds: tuple[type[Optimizer], ...] = (Adam, AdamW, SGD)
        for kind in kinds:
            if "step" in kind.__dict__:
                _spin_before(kind, "step", num_turns)


def _spin_before(owner: Any, name: str, num_turns: int) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def spinning(*args: Any, **kwargs: Any) -> Any:
        spin(num_turns)
        return original(*args, **kwargs)

    setattr(owner, name, spinning)


def main() -> None:
    """Slows down what the arguments say, and runs the rest of them as Python would."""
    phase, num_turns, *words = sys.argv[1:]
    if phase not in PHASES or not words:
        sys.exit(f"{phase!r} is no phase of {', '.join(PHASES)}, or there is no program.\n{__doc__}")
    if int(num_turns):
        slow_down(phase, int(num_turns))
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent.absolute()))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
