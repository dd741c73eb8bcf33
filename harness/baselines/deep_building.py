"""Builds the steps of a trajectory that were watched in depth."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from typing import TYPE_CHECKING

from harness.baselines.parameter_names import FirstNames
from harness.baselines.trajectory import DeepPoint, InputPoint, LossPoint, TensorPoint
from harness.baselines.trajectory_json import round_to_single, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.record.deep import DeepObservation, StillParameter
    from harness.record.observation import RunObservation
    from harness.record.trace import StepTrace

MAX_DEEP_STEPS, MAX_DEEP_STAGES = 2, 8
"""The first steps that are kept, and how many there may be of which the first ones of later optimizers are kept."""
MAX_MODULES = 64
MAX_STILL = 64
"""Parameters that no optimizer holds are kept one by one; of more, all of a model together."""


def build_deep_points(observed: RunObservation) -> tuple[DeepPoint, ...]:
    """The first steps watched in depth, and the first one of each later optimizer that is among the others."""
    traces = {seen.step: seen.trace for seen in observed.steps}
    known: set[int] = set()
    begins = set()
    for seen in observed.steps:
        if not known.issuperset(seen.optimizers):
            begins.add(seen.step)
        known.update(seen.optimizers)
    first_names = FirstNames.read(observed)
    return tuple(
        _build_deep(deep, traces.get(deep.step), first_names)
        for place, deep in enumerate(observed.deep_steps)
        if place < MAX_DEEP_STEPS or (deep.step in begins and place < MAX_DEEP_STAGES)
    )


def _build_deep(deep: DeepObservation, trace: StepTrace | None, first_names: FirstNames) -> DeepPoint:
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
                minimum=shorten_known(tensor.minimum),
                maximum=shorten_known(tensor.maximum),
                mean=shorten_known(tensor.mean),
                std=shorten_known(tensor.std),
            )
            for tensor in deep.inputs
        ),
        outputs=outputs,
        losses=tuple(
            LossPoint(
                name=call.name,
                value=shorten_known(call.value),
                scale=shorten_known(call.scale),
                inputs=call.inputs or "",
                targets=call.targets or "",
            )
            for call in deep.loss_functions
            if call.is_training
        ),
        tensors=_build_tensors(deep, trace, first_names),
        still=_build_still(deep.still, first_names),
        in_eval_mode=tuple(module.path or module.name for module in deep.modules if not module.is_training),
        autocast=deep.autocast,
        loss_scale=shorten_known(deep.loss_scale),
        generators_after=dict(deep.rng_fingerprints_after),
    )


def _build_tensors(
    deep: DeepObservation, trace: StepTrace | None, first_names: FirstNames
) -> tuple[TensorPoint, ...]:
    unclipped = [norm for row in trace.unclipped for norm in row] if trace is not None else []
    if len(unclipped) != len(deep.parameters):
        unclipped = [None] * len(deep.parameters)
    names = number_again(first_names.shorten(parameter.name) for parameter in deep.parameters)
    return tuple(
        TensorPoint(
            name=name,
            contents=parameter.fingerprint or "",
            weight_norm=shorten_known(parameter.weight_norm),
            grad_norm=shorten_known(parameter.grad_norm),
            update_norm=shorten_known(parameter.update_norm),
            unclipped_norm=shorten_known(norm),
        )
        for name, parameter, norm in zip(names, deep.parameters, unclipped, strict=True)
    )


def _build_still(parameters: Sequence[StillParameter], first_names: FirstNames) -> tuple[TensorPoint, ...]:
    """Parameters that no optimizer holds; of many, all of a model together."""
    names = number_again(first_names.shorten(parameter.name) for parameter in parameters)
    if len(names) > MAX_STILL:
        names = [f"{name.partition('.')[0]}.*" for name in names]
    grouped: dict[str, list[StillParameter]] = {}
    for name, parameter in zip(names, parameters, strict=True):
        grouped.setdefault(name, []).append(parameter)
    return tuple(
        TensorPoint(
            name=name,
            contents=rows[0].fingerprint or ""
            if len(rows) == 1
            else join_prints([parameter.fingerprint or "" for parameter in rows]),
            weight_norm=join_norms([[parameter.weight_norm for parameter in rows]]),
        )
        for name, rows in grouped.items()
    )


def number_again(names: Iterable[str]) -> list[str]:
    """The names, with a number after those that were there before: several models may call their parts alike."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def join_prints(outputs: Sequence[str]) -> str:
    """One fingerprint for what all calls gave; empty where one of them gave nothing that can be told."""
    return f"{zlib.crc32(' '.join(outputs).encode()):08x}" if outputs and all(outputs) else ""


def join_norms(rows: Iterable[Iterable[float | None]]) -> float | None:
    """The norm over all, as a number of single precision; None without any."""
    norms = [norm for row in rows for norm in row if norm is not None]
    return round_to_single(math.sqrt(sum(norm * norm for norm in norms))) if norms else None


def shorten_known(value: float | None) -> float | None:
    """`shorten`, of a number that may be missing or not finite."""
    if value is None or not math.isfinite(value):
        return value
    return shorten(value)
