"""Counts what a step does: operations by phase, floating-point operations, bytes of its tensors at their most."""

from __future__ import annotations

import functools
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from harness.record.counters import CountedStep
from harness.record.step_observation import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.watch.timing import PhaseClock

QUESTIONS = frozenset(
    {
        *(
            "is_contiguous",
            "sym_is_contiguous",
            "is_strides_like_format",
            "is_non_overlapping_and_dense",
            "size",
        ),
        *(
            "sym_size",
            "stride",
            "sym_stride",
            "storage_offset",
            "sym_storage_offset",
            "numel",
            "sym_numel",
            "dim",
        ),
        *("device", "layout", "detach"),
    }
)
"""Operations that only ask about a tensor, or give it another face: which of them show depends on who asks."""
FOREIGN = ("profiler", "prim")
DISPATCH = ("torch/_dynamo/eval_frame.py", "torch/_compile.py")
"""Files of torch whose frames stand between an operation and the mode that it is dispatched to."""
WATCHER = str(Path(__file__).parent)


def is_called_by_watcher() -> bool:
    """Whether the watcher itself calls the operation that is being dispatched.

    Only a call of its own is: between the program's calls, which go through it, and their operations there are
    frames of torch.
    """
    frame = sys._getframe(2)  # noqa: SLF001  the documented way to the stack
    while frame.f_back is not None and frame.f_code.co_filename.endswith(DISPATCH):
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(WATCHER)


class StepCounter(TorchDispatchMode):
    """Counts the operations between `open` and `close`, each under the phase that is current.

    Args:
        number: The step's number.
        clock: Tells the phase.
    """

    def __init__(self, number: int, clock: PhaseClock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = CountedStep(number)
        self._clock = clock
        self._live: dict[int, tuple[Any, int]] = {}
        self._bytes = 0

    def open(self) -> None:
        """Starts to count, in this thread and in the backward passes it starts."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> bool:
        """Ends counting; False where the program has entered a mode of its own meanwhile, and has not left it."""
        if _get_current_dispatch_mode() is not self:
            return False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._live.clear()
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and counts it."""
        kwargs = kwargs or {}
        name = getattr(func, "_schema", None) and func._schema.name  # noqa: SLF001  the operation's only full name
        is_ours = self._clock.is_left_out or is_called_by_watcher()
        if is_ours or not name or name.partition("::")[2] in QUESTIONS or name.startswith(FOREIGN):
            return func(*args, **kwargs)
        self._note_storages(tree_leaves((args, kwargs)), is_new=False)
        result = func(*args, **kwargs)
        self._note_storages(tree_leaves(result), is_new=True)
        phase = PHASES[self._clock.current]
        names = self.counted.ops.setdefault(phase, {})
        names[name] = names.get(name, 0) + 1
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)  # noqa: SLF001
        if formula is not None:
            flops = self.counted.flops
            flops[phase] = flops.get(phase, 0) + int(formula(*args, **kwargs, out_val=result))
        return result

    def _note_storages(self, leaves: list[Any], *, is_new: bool) -> None:
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
                continue
            storage = leaf.untyped_storage()
            key = id(storage)
            if key in self._live:
                continue
            # What an operation was given was there before it; what it returned, and is not of those, is new.
            num_bytes = storage.nbytes() if is_new else 0
            self._live[key] = weakref.ref(storage, functools.partial(self._forget, key)), num_bytes
            self._bytes += num_bytes
            self.counted.tensor_bytes = max(self.counted.tensor_bytes, self._bytes)

    def _forget(self, key: int, _: object) -> None:
        _, num_bytes = self._live.pop(key, (None, 0))
        self._bytes -= num_bytes
