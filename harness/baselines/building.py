"""Builds the trajectory of a run from its record."""

from __future__ import annotations

import itertools
import math
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

from harness.baselines.calls_in_order import write_calls
from harness.baselines.deep_building import build_deep_points, join_norms, join_prints, shorten_known
from harness.baselines.parameter_names import list_group_names
from harness.baselines.run_settings import collect_settings
from harness.baselines.side_calls import write_side_calls
from harness.baselines.trajectory import (
    TracePoint,
    Trajectory,
)
from harness.baselines.trajectory_json import (
    NO_GRADIENT,
    NOT_FINITE,
    TENSOR_SIGNS,
    WHOLE_MARK,
    shorten,
    sign,
)
from harness.errors import ObservationError
from harness.record.numerics import derive_numerics_class, describe_machine
from harness.record.watched import train_together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.record.observation import RunObservation
    from harness.record.run import Step, TrainingRun
    from harness.record.step_observation import StepObservation
    from harness.record.trace import StepTrace

TRACED_STEPS = 64
"""First steps that are traced where runs are compared; enough for a smoke training, and a few kilobytes."""
STEPS_BY_TENSOR = 16
MAX_TENSOR_FINGERPRINTS = 2048
"""Tensors are told apart in the first steps, and only so many of all; then a step has one fingerprint."""
WEIGHT_DIGITS, RATE_DIGITS = 12, 10
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
        deep=build_deep_points(observed) if observed else (),
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
    return tuple(TracePoint(step=step, loss=shorten_known(losses[step])) for step in sorted(losses))


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
    clipped = None if trace is None else join_norms(trace.gradients)
    facts: dict[str, Any] = {}
    if trace is not None:
        facts = {
            "batch": _name_batch(trace),
            "generators": dict(trace.generators),
            "update_norm": join_norms(trace.updates),
            "gradients": _fingerprint(trace.gradients, has_tensors=has_tensors),
            "updates": _fingerprint(trace.updates, has_tensors=has_tensors),
            "weight_norm": _join_digits(trace.weights),
            "num_eval_calls": trace.num_eval_calls,
            "outputs": join_prints(trace.outputs),
            "unclipped": _fingerprint(_list_unclipped(trace), has_tensors=has_tensors),
            "calls": write_calls(trace.calls, all_of_them=has_tensors),
            "side_calls": write_side_calls(trace.side_calls),
        }
    return TracePoint(
        step=seen.step,
        loss=shorten_known(loss),
        learning_rates=tuple(_round_rate(rate) for group in seen.learning_rates for rate in group),
        grad_norm=shorten_known(seen.grad_norm if seen.grad_norm is not None or seen.clipping else clipped),
        clipped_norm=shorten_known(clipped if clipped is not None else seen.clipped_grad_norm),
        num_micro_batches=seen.num_micro_batches,
        shapes=_tell_shapes(seen.batch_shapes),
        optimizers=tuple(seen.optimizers),
        was_skipped=seen.was_skipped,
        **facts,
    )


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


def _tell_shapes(batches: Iterable[Iterable[tuple[int, ...]]]) -> str:
    told = [" ".join("x".join(map(str, shape)) for shape in shapes) for shapes in batches]
    if len(told) > 1 and len(set(told)) == 1:
        return f"{len(told)} of {told[0]}"
    return ", ".join(told)


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
    return sign(struct.pack("<d", norm), TENSOR_SIGNS)


def _round_rate(rate: float | None) -> float | None:
    """A rate to more digits than any comparison of rates looks at."""
    if rate is None or not math.isfinite(rate):
        return rate
    return float(f"{shorten(rate):.{RATE_DIGITS}g}")
