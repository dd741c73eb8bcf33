"""What the watcher's hooks take by themselves, among the steps of a training.

    python -m benchmarks.hooks
    python -m benchmarks.hooks --size 1 --rounds 10
    python -m benchmarks.hooks --as-child

The whole cost of watching (`benchmarks/overhead.py`) is a small difference of two large times, and on a shared machine
it takes hours to tell. This is most of it, and takes a minute: the same training, with marks in front of every hook and
behind it, whose times are subtracted from each other; the same marks without a watcher between them are the zero. The
caches are those that the step leaves, as in every training. Left out is what the program itself loses by the hooks,
going in and out, the first two steps, and deep steps.

`--as-child` keeps the record as in a watched child process, where a crash has to leave it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data.dataloader import _BaseDataLoaderIter

from benchmarks.overhead import SIZES, Model, train
from harness.watch.cores import choose_cores, pinned
from harness.watch.observer import Observer
from harness.watch.options import Depth, ObserverOptions
from harness.watch.record_file import RecordFile
from harness.watch.taps import TapSet

if TYPE_CHECKING:
    from collections.abc import Callable

    Builder = Callable[[Callable[..., Any]], Callable[..., Any]]

now_ns = time.perf_counter_ns
PLACES: dict[str, tuple[type, str] | Callable[..., Any]] = {
    "loader": (_BaseDataLoaderIter, "__next__"),
    "model": (Model, "__call__"),
    "backward": torch.autograd.backward,
    "scheduler": (CosineAnnealingLR, "step"),
}
BEFORE, AFTER = "before the optimizer", "after it"
HOOKS = (*PLACES, BEFORE, AFTER)
SLOWEST = 0.02
"""Share of the steps that a mean leaves out: deep ones, and those in which others had the processor."""
NUM_EARLY = 2
"""Steps before the marks are complete: the model's class is known after the first."""


class Marks:
    """Times in front of each hook and behind it, and what lies between them."""

    def __init__(self) -> None:
        self.taken_ns: dict[str, list[int]] = defaultdict(list)
        self._inside_ns: dict[str, tuple[int, int]] = {}
        self._latest_ns = 0

    def put_inside(self, place: str) -> Builder:
        """Builds the mark that the hook calls."""

        def keep(start_ns: int, end_ns: int) -> None:
            self._inside_ns[place] = (start_ns, end_ns)

        return _build_mark(keep)

    def put_outside(self, place: str) -> Builder:
        """Builds the mark that calls the hook."""

        def keep(start_ns: int, end_ns: int) -> None:
            inner = self._inside_ns.pop(place, (start_ns, start_ns))
            self.taken_ns[place].append(inner[0] - start_ns + end_ns - inner[1])

        return _build_mark(keep)

    def begin(self, *_: object) -> None:
        """As a hook of an optimizer, in front of the watcher's."""
        self._latest_ns = now_ns()

    def end(self, place: str) -> Callable[..., None]:
        """Builds a hook of an optimizer that stands behind the watcher's."""
        return lambda *_: self.taken_ns[place].append(now_ns() - self._latest_ns)


def _build_mark(keep: Callable[[int, int], None]) -> Builder:
    """A layer around a call, whose two ends are kept."""

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        def layer(*args: Any, **kwargs: Any) -> Any:
            start_ns = now_ns()
            try:
                return call(*args, **kwargs)
            finally:
                keep(start_ns, now_ns())

        return layer

    return build


def measure(depth: Depth | None, num_steps: int, size: tuple[int, int], *, as_child: bool) -> Marks:
    """One training with marks, watched or not."""
    marks = Marks()
    inside, outside = TapSet(), TapSet()
    num_done = 0

    def after_step() -> None:
        nonlocal num_done
        num_done += 1
        if num_done == NUM_EARLY:
            _put(outside, marks.put_outside)

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _put(inside, marks.put_inside)
        stack.callback(inside.remove_all)
        for register in (register_optimizer_step_pre_hook, register_optimizer_step_post_hook):
            stack.callback(register(marks.begin).remove)
        sink = RecordFile(Path(folder)) if as_child else None
        stack.enter_context(
            nullcontext() if depth is None else Observer(ObserverOptions(depth=depth), sink=sink)
        )
        stack.callback(outside.remove_all)
        stack.callback(register_optimizer_step_pre_hook(marks.end(BEFORE)).remove)
        stack.callback(register_optimizer_step_post_hook(marks.end(AFTER)).remove)
        train(num_steps, *size, after_step)
    return marks


def _put(taps: TapSet, build: Callable[[str], Builder]) -> None:
    for name, place in PLACES.items():
        if isinstance(place, tuple):
            taps.wrap_method(*place, build(name))
        else:
            taps.wrap_function(place, build(name))


def find_mean(values: list[int]) -> float:
    """The mean of all but the slowest."""
    return statistics.fmean(sorted(values)[: max(1, round(len(values) * (1 - SLOWEST)))])


def main() -> None:
    """Prints a table: microseconds of a step in every hook, in the middle of the steps and on average."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="steps per run")
    parser.add_argument("--rounds", type=int, default=6, help="runs at each depth, in turn")
    parser.add_argument("--size", type=int, default=5, choices=list(SIZES), help="of a step, in ms, about")
    parser.add_argument("--as-child", action="store_true", help="keep the record as a child process does")
    options = parser.parse_args()
    torch.set_num_threads(1)
    depths = [None, *Depth]
    taken: dict[Depth | None, dict[str, list[int]]] = {depth: defaultdict(list) for depth in depths}
    with pinned(choose_cores(1)):
        for index in range(options.rounds + 1):
            for depth in depths:
                marks = measure(depth, options.steps, SIZES[options.size], as_child=options.as_child)
                # The first round imports, and keeps what later ones find.
                for hook in HOOKS if index else ():
                    taken[depth][hook] += marks.taken_ns[hook]
    print(f"| depth | {' | '.join(HOOKS)} | all, us a step |\n|{' --- |' * (len(HOOKS) + 2)}")
    for depth in Depth:
        parts = [
            (
                (statistics.median(taken[depth][hook]) - statistics.median(taken[None][hook])) / 1e3,
                (find_mean(taken[depth][hook]) - find_mean(taken[None][hook])) / 1e3,
            )
            for hook in HOOKS
        ]
        total = [sum(part[kind] for part in parts) for kind in (0, 1)]
        cells = [f"{median:.1f} / {mean:.1f}" for median, mean in [*parts, total]]
        print(f"| {depth} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
