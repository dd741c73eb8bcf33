"""Probes a copy of a trained model after the run: is it deterministic in eval mode, what do its outputs depend on?

The program's own model is never called. A copy of it is made at the end of a deep step, without gradients and
hooks; generators are put back afterwards.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from harness import clock
from harness.record.structure import ProbeObservation
from harness.watch.draws import Draws
from harness.watch.exchange import MIN_SAMPLES, exchanged, list_changes, measure_change, measure_rows
from harness.watch.members import list_buffers, list_parameters
from harness.watch.model_copy import (
    bring_up_to_date,
    copy_model,
    find_obstacle_to_call,
    find_obstacle_to_copy,
)
from harness.watch.passes import Captured, list_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from harness.watch.next_tokens import TargetNote
    from harness.watch.session import Session

MAX_FORWARD_S = 0.3
TOLERANCE_FACTOR = 8.0
"""A first call that takes no longer than so many times the limit is given another chance."""
MAX_NOISE = 1e-5
OUTPUT_DIMENSIONS = 3
MATRIX_DIMENSIONS = 2
POSITIONS = re.compile(r"(^|[._])(pos(?!t)|wpe)", re.IGNORECASE)
COLLECTIONS = (list, dict, set)
PLAIN = (int, float, str, type(None), *COLLECTIONS)
RELATIVE = re.compile(r"rel|bias", re.IGNORECASE)


class ModelProbe:
    """Keeps the latest copy of a trained model with its batch, and probes it when the run is over."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: tuple[nn.Module, Captured, int] | None = None
        self._originals: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._obstacle: ProbeObservation | None = None

    def keep(self, captured: Captured, step: int) -> None:
        """Copies the model as it is now, in place of an earlier copy."""
        module = captured.module()
        if module is None:
            return
        before, self._kept = self._kept, None
        try:
            model = None
            if before is not None and before[1].module() is module and bring_up_to_date(before[0], module):
                model = before[0]
            obstacle = find_obstacle_to_call(module) if model is not None else find_obstacle_to_copy(module)
            if obstacle is None:
                if model is None:
                    model = copy_model(module)
                    self._originals = weakref.WeakSet(module.modules())
                self._kept = (model, captured, step)
        except Exception as error:  # noqa: BLE001  whatever a class does when it is copied
            obstacle = f"it can't be copied: {type(error).__name__}"
        self._obstacle = ProbeObservation(type(module).__name__, step, obstacle=obstacle)

    def run(self) -> None:
        """Probes what was kept, and notes what came out."""
        if self._kept is None:
            if self._obstacle is not None and self._obstacle.obstacle is not None:
                self._session.run.probes.append(self._obstacle)
            return
        module, captured, step = self._kept
        self._kept = None
        found = ProbeObservation(type(module).__name__, step)
        self._session.run.probes.append(found)
        batch_sizes = {loader.batch_size for loader in self._session.run.loaders}
        with _undisturbed():
            try:
                _Probing(module, captured, found, self._originals).run(batch_sizes)
            except Exception as error:  # noqa: BLE001  the model is the program's
                found.obstacle = f"its call failed with {type(error).__name__}: {str(error)[:200]}"


class _Probing:
    """One model with one batch, called again and again from the same state."""

    def __init__(
        self,
        module: nn.Module,
        captured: Captured,
        found: ProbeObservation,
        originals: weakref.WeakSet[nn.Module],
    ) -> None:
        self._module = module.eval()
        self._originals = originals
        self._draws: Draws | None = None
        self._is_pure: bool | None = None
        self._args, self._kwargs = captured.args, captured.kwargs
        self._next_tokens = captured.next_tokens
        self._found = found

    def run(self, batch_sizes: set[int | None]) -> None:
        """All probes that make sense for the model, the cheap ones first."""
        found = self._found
        started_s = clock.monotonic_s()
        # On its own: some modules take another way through their kernels when functions are watched.
        self._draws = draws = Draws()
        with _listing_calls(self._originals) as called:
            watched = self._call()
        self._draws = None
        if called:
            # A lambda or a bound method that the model holds still leads to the parts it was made with.
            found.obstacle = "its forward calls parts of the model that it was copied from"
            return
        found.dropouts, found.random_functions = draws.dropouts, draws.random_functions
        took_s = clock.monotonic_s() - started_s
        if MAX_FORWARD_S < took_s <= TOLERANCE_FACTOR * MAX_FORWARD_S:
            # On a busy machine the first call alone tells little.
            started_s = clock.monotonic_s()
            self._call()
            took_s = clock.monotonic_s() - started_s
        if took_s > MAX_FORWARD_S:
            found.obstacle = f"one call takes more than {MAX_FORWARD_S:g} s"
            return
        if (obstacle := _find_obstacle(watched)) is not None:
            found.obstacle = obstacle
            return
        inputs = list_tensors((self._args, self._kwargs))
        sized = [tensor for tensor in inputs if tensor.dim()]
        found.num_samples = num_samples = sized[0].shape[0] if sized else 0
        plan = self._plan_exchange(watched, sized, num_samples, batch_sizes)
        tells_all = plan is not None and len(plan) == len(watched) and self._next_tokens is None
        if plan is not None and tells_all and self._is_sound(watched, sized, plan):
            return
        first = self._call()
        if measure_change(watched, first) <= MAX_NOISE:
            # As close as two ways through the kernels get: the third call would tell nothing new.
            found.repeat_change = 0.0
        else:
            found.repeat_change = measure_change(first, self._call())
        if found.repeat_change > MAX_NOISE:
            # What is random in itself tells nothing about what it depends on.
            return
        if num_samples >= MIN_SAMPLES and sized:
            self._probe_samples(first, sized, num_samples, plan)
        if self._next_tokens is not None:
            found.predicts_next = True
            self._probe_future(self._next_tokens, first)

    def _call(self) -> list[torch.Tensor]:
        """The floating tensors of one call, from the same state as every other."""
        # A call may change what a module holds, such as the queue of a contrastive learner: the first one tells.
        if self._is_pure is None:
            module = copy_model(self._module, shares_parameters=True)
            before = _list_state(module)
            output = self._call_once(module)
            self._is_pure = _list_state(module) == before
        else:
            output = self._call_once(self._module if self._is_pure else copy_model(self._module))
        parts = list_tensors(output if not hasattr(output, "to_tuple") else output.to_tuple())
        return [tensor.detach().clone() for tensor in parts if tensor.is_floating_point() and tensor.numel()]

    def _call_once(self, module: nn.Module) -> Any:
        with self._draws.watching(module) if self._draws is not None else contextlib.nullcontext():
            return module(*self._args, **self._kwargs)

    def _plan_exchange(
        self,
        first: list[torch.Tensor],
        inputs: list[torch.Tensor],
        num_samples: int,
        batch_sizes: set[int | None],
    ) -> list[int] | None:
        """The positions of the outputs that hold a row for every sample; None where samples can't be told apart."""
        is_batch_first = num_samples in batch_sizes and all(
            tensor.shape[0] == num_samples
            and (
                num_samples not in tensor.shape[1:]
                or (tensor.dim() == MATRIX_DIMENSIONS and tensor.is_floating_point())
            )
            for tensor in inputs
        )
        outputs = [
            position
            for position, tensor in enumerate(first)
            if tensor.dim() > 1 and tensor.shape[0] == num_samples and num_samples not in tensor.shape[1:]
        ]
        return outputs if is_batch_first and outputs and num_samples >= MIN_SAMPLES else None

    def _is_sound(self, watched: list[torch.Tensor], inputs: list[torch.Tensor], outputs: list[int]) -> bool:
        """Whether one further call shows all there is to show: as nearly always, when nothing is wrong.

        With other samples in the first and the last place, these change, and all others stay what they were.
        """
        (changed, change), *more = list_changes(self._found.num_samples or 0)
        if more:
            return False
        with exchanged(inputs, change) as has_changed:
            if not has_changed:
                return False
            after = self._call()
        if [tensor.shape for tensor in after] != [tensor.shape for tensor in watched]:
            return False
        share = self._measure_others(watched, after, outputs, changed)
        moved = measure_rows(watched, after, outputs, changed)
        if share > MAX_NOISE or moved <= MAX_NOISE:
            return False
        self._found.repeat_change, self._found.sample_change, self._found.is_constant = 0.0, share, False
        return True

    def _measure_others(
        self,
        before: list[torch.Tensor],
        after: list[torch.Tensor],
        outputs: list[int],
        changed: tuple[int, ...],
    ) -> float:
        """How far the outputs of samples moved that are those they were."""
        others = [row for row in range(self._found.num_samples or 0) if row not in changed]
        return measure_rows(before, after, outputs, others)

    def _probe_samples(
        self,
        first: list[torch.Tensor],
        inputs: list[torch.Tensor],
        num_samples: int,
        outputs: list[int] | None,
    ) -> None:
        """What changes with the samples: everything should, and each with its own sample only."""
        # A loss, which sums over the samples, is the same in any order.
        by_sample = [position for position, tensor in enumerate(first) if num_samples in tensor.shape]
        has_told = False
        if outputs is not None:
            for changed, change in list_changes(num_samples):
                with exchanged(inputs, change) as has_changed:
                    if not has_changed:
                        continue
                    after = self._call()
                has_told |= any(not torch.equal(first[place], after[place]) for place in by_sample)
                share = self._measure_others(first, after, outputs, changed)
                self._found.sample_change = max(share, self._found.sample_change or 0.0)
        if has_told:
            self._found.is_constant = False
            return
        with exchanged(inputs, lambda tensor: tensor.roll(1, 0)) as has_changed:
            if has_changed and by_sample:
                rolled = self._call()
                self._found.is_constant = all(torch.equal(first[place], rolled[place]) for place in by_sample)
        if self._found.is_constant:
            self._found.sample_change = None

    def _probe_future(self, note: TargetNote, first: list[torch.Tensor]) -> None:
        """Whether outputs that are scored change with tokens after them."""
        tokens, time = note.tokens, note.time
        length = tokens.shape[time]
        self._found.future_length = length
        place = next(
            (
                position
                for position, tensor in enumerate(first)
                if tensor.dim() == OUTPUT_DIMENSIONS and tensor.shape[:2] == tokens.shape
            ),
            None,
        )
        if place is None:
            return
        logits = first[place]
        for start in dict.fromkeys((length // 2, length - 1)):

            def change(tensor: torch.Tensor, start: int = start) -> torch.Tensor:
                changed = tensor.clone()
                later = changed.narrow(time, start, length - start)
                values = tokens.unique()  # type: ignore[no-untyped-call]
                # The next of the tokens in the batch: always another one, and always one that the model knows.
                where = torch.searchsorted(values, later)
                later.copy_(values[(where + 1) % len(values)])
                return changed

            with exchanged([tokens], change) as has_changed:
                if not has_changed:
                    continue
                after = self._call()[place]
            is_scored = note.is_scored.narrow(time, 0, start).unsqueeze(-1)
            change_of = (after - logits).abs().narrow(time, 0, start) * is_scored
            share = float(change_of.max()) / (float(logits.abs().max()) or 1.0) if change_of.numel() else 0.0
            if share >= (self._found.future_change or 0.0):
                self._found.future_change = share
                by_position = change_of.amax(dim=(1 - time, 2))
                self._found.future_position = int(by_position.argmax())
        self._probe_positions(tokens, time, place)

    def _probe_positions(self, tokens: torch.Tensor, time: int, place: int) -> None:
        length = tokens.shape[time]
        # A table with a row per position; relative ones are added to attention, and see no difference here.
        if not any(
            POSITIONS.search(name)
            and not RELATIVE.search(name)
            and parameter.dim() > 1
            and length <= max(parameter.shape)
            for name, parameter in self._module.named_parameters()
        ):
            return
        with exchanged([tokens], lambda tensor: tensor[:1, :1].expand_as(tensor).clone()):
            logits = self._call()[place]
        spread = (logits - logits.narrow(time, 0, 1)).abs().max()
        self._found.ignores_position = float(spread) <= 1e-5 * (float(logits.abs().max()) or 1.0)


def _find_obstacle(outputs: list[torch.Tensor]) -> str | None:
    """Why outputs can't be compared with others; None where they can."""
    if not outputs:
        return "it returns no floating tensor"
    are_finite = all(bool(torch.isfinite(tensor).all()) for tensor in outputs)
    return None if are_finite else "it returns numbers that are not finite"


def _list_state(model: nn.Module) -> list[object]:
    """What a call may change: tensors, how often each has been written to, plain values, lengths of collections."""
    tensors = [(id(tensor), tensor._version) for tensor in (*list_parameters(model), *list_buffers(model))]  # noqa: SLF001  no public name
    return [
        *tensors,
        *(
            (name, len(value) if isinstance(value, COLLECTIONS) else value)
            for part in model.modules()
            for name, value in vars(part).items()
            if isinstance(value, PLAIN)
        ),
    ]


@contextlib.contextmanager
def _listing_calls(wanted: weakref.WeakSet[nn.Module]) -> Iterator[list[str]]:
    """The classes of those of these modules that are called inside."""
    called: list[str] = []

    def note(module: nn.Module, args: object) -> None:
        del args
        if module in wanted:
            called.append(type(module).__name__)

    handle = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        handle.remove()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Calls of a model inside change neither generators nor modes of the process."""
    states: list[tuple[Callable[[Any], object], Any]] = [
        (random.setstate, random.getstate()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if (numpy := sys.modules.get("numpy")) is not None and hasattr(numpy, "random"):
        states.append((numpy.random.set_state, numpy.random.get_state()))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    try:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            # What the model's code says, it has said already.
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        for restore, state in states:
            restore(state)
