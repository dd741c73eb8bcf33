"""Builds the trajectory of a run from its record."""

from __future__ import annotations

import itertools
import math
import re
import struct
import zlib
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.baselines.parameter_names import list_group_names
from harness.baselines.run_settings import collect_settings
from harness.baselines.side_calls import write_side_calls
from harness.baselines.trajectory import (
    DeepPoint,
    InputPoint,
    LossPoint,
    TensorPoint,
    TracePoint,
    Trajectory,
)
from harness.baselines.trajectory_json import (
    NO_GRADIENT,
    NOT_FINITE,
    TENSOR_SIGNS,
    WHOLE_MARK,
    round_to_single,
    shorten,
)
from harness.errors import ObservationError
from harness.record.numerics import derive_numerics_class, describe_machine
from harness.record.watched import train_together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.record.deep import DeepObservation, StillParameter
    from harness.record.observation import RunObservation, StepObservation
    from harness.record.run import Step, TrainingRun
    from harness.record.trace import StepTrace

TRACED_STEPS = 64
"""First steps that are traced where runs are compared; enough for a smoke training, and a few kilobytes."""
STEPS_BY_TENSOR = 16
MAX_TENSOR_FINGERPRINTS = 2048
"""Tensors are told apart in the first steps, and only so many of all; then a step has one fingerprint."""
MAX_DEEP_STEPS = 2
WEIGHT_DIGITS, RATE_DIGITS = 12, 10
MAX_MODULES = 64
MAX_STILL = 64
TEST_FILE = re.compile(r"(test_.*|.*_test|conftest)\.py")


def build_trajectory(run: TrainingRun, *, test: str) -> Trajectory:
    """The trajectory of a run.

    Args:
        run: The run; watched, or with a history of its own.
        test: Name of the test or command, under which it is stored.

    Raises:
        ObservationError: The run has no step with a loss: there is nothing to compare by.
    """
    observed = run.observed
    is_watched = observed is not None and bool(observed.steps) and len(observed.steps) == len(run.steps)
    points = _build_points(observed, run.steps) if observed and is_watched else _build_logged(run)
    if not any(point.loss is not None for point in points):
        raise ObservationError(
            f"{run.name} has no step with a loss, so there is no trajectory to compare.\n"
            "Next: let the program be watched (--harness-watch=deep), or log the loss of every step."
        )
    numerics = observed.numerics if observed else {}
    machine = describe_machine(
        numerics.get("machine") or {"torch": run.environment.torch},
        cpu=run.environment.cpu,
        device=run.device,
    )
    is_strict = numerics.get("precision", {}).get("deterministic algorithms") == "true"
    return Trajectory(
        test=test,
        numerics_class=derive_numerics_class(machine),
        device=run.device,
        num_ranks=len(run.ranks) if train_together(run.ranks) else 1,
        is_deterministic=run.device == "cpu" or is_strict,
        points=points,
        deep=_build_deep_points(observed) if observed else (),
        # Of a run in which no optimizer stepped, what was seen tells that it was watched.
        settings=collect_settings(observed) if observed and (is_watched or not observed.steps) else {},
        parameters=_list_parameters(observed) if observed and is_watched else (),
        machine=machine,
        threads_at_start=numerics.get("start", {}).get("threads", ""),
        ended_by=observed.ended_by if observed else None,
        sources=dict(sorted(observed.sources.items())) if observed else {},
        project_files=tuple(_leave_out_tests(observed.project_files, test)) if observed else (),
    )


def _list_parameters(observed: RunObservation) -> tuple[tuple[str, ...], ...]:
    """Names of each optimizer's tensors; those that no model owns by their position among all."""
    counter = itertools.count()
    rows = [
        [(name, next(counter)) for names in groups for name in names] for groups in list_group_names(observed)
    ]
    return tuple(
        tuple(f"?{position}" if name.startswith("?") else name for name, position in row) for row in rows
    )


def _leave_out_tests(files: Iterable[str], test: str) -> Iterator[str]:
    """The files without those of other tests, which one process of pytest imports beside the one that trains."""
    path, is_test, _ = test.partition("::")
    own = path.rpartition("/")[2]
    for file in files:
        name = file.rpartition("/")[2]
        if not is_test or name == own or not TEST_FILE.fullmatch(name):
            yield file


def _build_logged(run: TrainingRun) -> tuple[TracePoint, ...]:
    """The points of a run whose steps it told itself, in any order: their losses, of a step told twice the last."""
    losses = dict(run.loss_curve)
    return tuple(TracePoint(step=step, loss=_shorten(losses[step])) for step in sorted(losses))


def _build_points(observed: RunObservation, steps: Sequence[Step]) -> tuple[TracePoint, ...]:
    points: list[TracePoint] = []
    num_left = MAX_TENSOR_FINGERPRINTS
    for seen, step in zip(observed.steps, steps, strict=True):
        loss = next((value for name, value in step.metrics.items() if name.startswith("loss")), seen.loss)
        num_tensors = sum(map(len, seen.trace.gradients)) if seen.trace else 0
        has_tensors = 0 < num_tensors <= num_left and len(points) < STEPS_BY_TENSOR
        num_left -= num_tensors if has_tensors else 0
        points.append(_build_point(seen, loss, has_tensors=has_tensors))
    return tuple(points)


def _build_point(seen: StepObservation, loss: float | None, *, has_tensors: bool) -> TracePoint:
    trace = seen.trace
    clipped = None if trace is None else _join(trace.gradients)
    facts: dict[str, Any] = {}
    if trace is not None:
        facts = {
            "batch": _name_batch(trace),
            "generators": dict(trace.generators),
            "update_norm": _join(trace.updates),
            "gradients": _fingerprint(trace.gradients, has_tensors=has_tensors),
            "updates": _fingerprint(trace.updates, has_tensors=has_tensors),
            "weight_norm": _join_digits(trace.weights),
            "num_eval_calls": trace.num_eval_calls,
            "outputs": _join_outputs(trace.outputs),
            "unclipped": _fingerprint(_list_unclipped(trace), has_tensors=has_tensors),
            "side_calls": write_side_calls(trace.side_calls),
        }
    return TracePoint(
        step=seen.step,
        loss=_shorten(loss),
        learning_rates=tuple(_round_rate(rate) for group in seen.learning_rates for rate in group),
        grad_norm=_shorten(seen.grad_norm if seen.grad_norm is not None or seen.clipping else clipped),
        clipped_norm=_shorten(clipped if clipped is not None else seen.clipped_grad_norm),
        num_micro_batches=seen.num_micro_batches,
        shapes=_tell_shapes(seen.batch_shapes),
        optimizers=tuple(seen.optimizers),
        was_skipped=seen.was_skipped,
        **facts,
    )


def number_again(names: Iterable[str]) -> list[str]:
    """The names, with a number after those that were there before: several models may call their parts alike."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _list_unclipped(trace: StepTrace) -> list[list[float | None]]:
    """The norms of all gradients before clipping; nothing where none was clipped."""
    return [
        [norm if before is None else before for before, norm in zip(*rows, strict=True)]
        for rows in zip(trace.unclipped, trace.gradients, strict=False)
    ]


def _name_batch(trace: StepTrace) -> str:
    """What loaders gave, the first micro-batch, and the others: a step draws random numbers between these."""
    first, *others = trace.called_with or ["-"]
    parts = [trace.given or "-", first or "-"]
    if others:
        parts.append(f"{zlib.crc32(' '.join(others).encode()):08x}")
    return " ".join(parts)


def _join_outputs(outputs: Sequence[str]) -> str:
    """One fingerprint for what all calls gave; empty where one of them gave nothing that can be told."""
    return f"{zlib.crc32(' '.join(outputs).encode()):08x}" if outputs and all(outputs) else ""


def _tell_shapes(batches: Iterable[Iterable[tuple[int, ...]]]) -> str:
    told = [" ".join("x".join(map(str, shape)) for shape in shapes) for shapes in batches]
    if len(told) > 1 and len(set(told)) == 1:
        return f"{len(told)} of {told[0]}"
    return ", ".join(told)


def _join(rows: Iterable[Iterable[float | None]]) -> float | None:
    norms = [norm for row in rows for norm in row if norm is not None]
    return round_to_single(math.sqrt(sum(norm * norm for norm in norms))) if norms else None


def _join_digits(rows: Iterable[Iterable[float | None]]) -> float | None:
    """The norm over all, to the digits that tell equal from different whatever the order of an optimizer.

    NaN where one is not finite, as parameters that are no numbers are there all the same; None without any.
    """
    norms = sorted(norm for row in rows for norm in row if norm is not None)
    squares = [norm * norm for norm in norms]
    if not all(map(math.isfinite, squares)):
        return math.nan
    return float(f"{math.sqrt(math.fsum(squares)):.{WEIGHT_DIGITS}g}") if norms else None


def _fingerprint(rows: Iterable[Iterable[float | None]], *, has_tensors: bool) -> tuple[str, ...]:
    """Two signs for the bits of every norm, or eight for all of them, in whatever order an optimizer holds them."""
    norms = [norm for row in rows for norm in row]
    if has_tensors or not norms:
        return tuple(_fingerprint_norm(norm) for norm in norms)
    return (f"{WHOLE_MARK}{zlib.crc32(repr(sorted(map(repr, norms))).encode()):08x}",)


def _fingerprint_norm(norm: float | None) -> str:
    if norm is None:
        return NO_GRADIENT
    if not math.isfinite(norm):
        return NOT_FINITE
    checksum = zlib.crc32(struct.pack("<d", norm))
    return b64encode(checksum.to_bytes(4, "big")).decode()[:TENSOR_SIGNS]


def _build_deep_points(observed: RunObservation) -> tuple[DeepPoint, ...]:
    traces = {seen.step: seen.trace for seen in observed.steps}
    return tuple(_build_deep(deep, traces.get(deep.step)) for deep in observed.deep_steps[:MAX_DEEP_STEPS])


def _build_deep(deep: DeepObservation, trace: StepTrace | None) -> DeepPoint:
    named = number_again(module.path or module.name for module in deep.modules)
    outputs = {
        name: module.output
        for name, module in zip(named, deep.modules, strict=True)
        if module.output is not None
    }
    if len(outputs) > MAX_MODULES and deep.step > 0:
        outputs = {}
    return DeepPoint(
        step=deep.step,
        inputs=tuple(
            InputPoint(
                shape="x".join(map(str, tensor.shape)),
                dtype=tensor.dtype,
                minimum=_shorten(tensor.minimum),
                maximum=_shorten(tensor.maximum),
                mean=_shorten(tensor.mean),
                std=_shorten(tensor.std),
            )
            for tensor in deep.inputs
        ),
        outputs=outputs,
        losses=tuple(
            LossPoint(
                name=call.name,
                value=_shorten(call.value),
                scale=_shorten(call.scale),
                inputs=call.inputs or "",
                targets=call.targets or "",
            )
            for call in deep.loss_functions
            if call.is_training
        ),
        tensors=_build_tensors(deep, trace),
        still=_build_still(deep.still),
        in_eval_mode=tuple(module.path or module.name for module in deep.modules if not module.is_training),
        autocast=deep.autocast,
        loss_scale=_shorten(deep.loss_scale),
        generators_after=dict(deep.rng_fingerprints_after),
    )


def _build_tensors(deep: DeepObservation, trace: StepTrace | None) -> tuple[TensorPoint, ...]:
    unclipped = [norm for row in trace.unclipped for norm in row] if trace is not None else []
    if len(unclipped) != len(deep.parameters):
        unclipped = [None] * len(deep.parameters)
    names = number_again(parameter.name for parameter in deep.parameters)
    return tuple(
        TensorPoint(
            name=name,
            contents=parameter.fingerprint or "",
            weight_norm=_shorten(parameter.weight_norm),
            grad_norm=_shorten(parameter.grad_norm),
            update_norm=_shorten(parameter.update_norm),
            unclipped_norm=_shorten(norm),
        )
        for name, parameter, norm in zip(names, deep.parameters, unclipped, strict=True)
    )


def _build_still(parameters: Sequence[StillParameter]) -> tuple[TensorPoint, ...]:
    """Parameters that no optimizer holds; of many, all of a model together."""
    names = number_again(parameter.name for parameter in parameters)
    if len(names) > MAX_STILL:
        names = [f"{name.partition('.')[0]}.*" for name in names]
    grouped: dict[str, list[StillParameter]] = {}
    for name, parameter in zip(names, parameters, strict=True):
        grouped.setdefault(name, []).append(parameter)
    return tuple(
        TensorPoint(
            name=name,
            contents=_join_outputs([parameter.fingerprint or "" for parameter in rows]),
            weight_norm=_join([[parameter.weight_norm for parameter in rows]]),
        )
        for name, rows in grouped.items()
    )


def _round_rate(rate: float | None) -> float | None:
    """A rate to more digits than any comparison of rates looks at."""
    if rate is None or not math.isfinite(rate):
        return rate
    return float(f"{shorten(rate):.{RATE_DIGITS}g}")


def _shorten(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return value
    return shorten(value)
