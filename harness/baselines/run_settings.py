"""What a run was set up with, as plain values by phase and name."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

from harness.baselines.parameter_names import list_group_names
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_json import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.baselines.trajectory import Settings
    from harness.record.deep import DeepObservation, LossFunctionObservation
    from harness.record.loader_observation import LoaderObservation
    from harness.record.observation import RunObservation
    from harness.record.step_observation import ClippingCall, StepObservation

IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
"""Settings of an optimizer that choose how it computes and not what."""
NOT_ITS_OWN = (*IMPLEMENTATION, "lr", "initial_lr", "params")
"""The rates belong to the schedule."""
SCHEDULER_STATE = ("last_epoch", "verbose", "_step_count", "last_lr", "_last_lr", "base_lrs")

DIGITS = 9
"""Of a setting that is a number: machines differ in the last ones of a root or power."""
MAX_PASSES = 3
NOT_FINITE_BATCHES = "batches that are not finite"
ORDER = "order of pass"
NOT_HELD = " in no optimizer"
EQUAL_ROWS = "matrices of equal rows"
UNOWNED = "?"
"""Begins the name of a parameter that no model owns which was seen."""


def collect_settings(observed: RunObservation) -> Settings:
    """The settings of a run that was watched."""
    first = observed.deep_steps[0] if observed.deep_steps else None
    settings: dict[Phase, dict[str, Any]] = {
        Phase.DATA: _collect_data(observed.loaders),
        Phase.RNG: {} if observed.seed is None else {"seed": observed.seed},
        Phase.INITIALISATION: {} if first is None else _collect_parameters(first),
        Phase.FORWARD: _collect_forward(observed, first),
        Phase.LOSS: {} if first is None else _collect_losses(observed, first),
        Phase.CLIPPING: _collect_clipping(observed),
        Phase.OPTIMIZER: _collect_optimizers(observed),
        Phase.SCHEDULE: _collect_schedule(observed),
    }
    return {str(phase): found for phase, found in settings.items() if found}


def _collect_data(loaders: Iterable[LoaderObservation]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, loader in enumerate(loaders):
        name = f"loader {index}"
        found[f"{name} dataset"] = loader.dataset
        found[f"{name} num_samples"] = loader.num_samples
        found[f"{name} batch_size"] = loader.batch_size
        found[f"{name} sampler"] = loader.sampler
        found[f"{name} drop_last"] = loader.drop_last
        found[f"{name} num_workers"] = loader.num_workers
        if loader.non_finite_batches:
            found[f"{name} {NOT_FINITE_BATCHES}"] = " ".join(map(str, loader.non_finite_batches))
        for number, epoch in enumerate(loader.epochs[:MAX_PASSES], 1):
            if epoch.order is not None:
                found[f"{name} {ORDER} {number}"] = f"{epoch.order}/{epoch.num_indices}"
    return found


def _collect_parameters(first: DeepObservation) -> dict[str, Any]:
    found = {}
    for parameter in first.parameters:
        shape = "x".join(map(str, parameter.shape)) or "scalar"
        frozen = "" if parameter.is_trainable else " frozen"
        found[parameter.name] = f"{shape} {parameter.dtype}{frozen}"
    for unheld in first.unheld:
        shape = "x".join(map(str, unheld.shape)) or "scalar"
        found[unheld.name] = f"{shape}{'' if unheld.is_trainable else ' frozen'}{NOT_HELD}"
    equal = [parameter.name for parameter in first.parameters if parameter.are_rows_equal]
    if first.parameters:
        found[EQUAL_ROWS] = ", ".join(equal) or "none"
    return found


def _collect_forward(observed: RunObservation, first: DeepObservation | None) -> dict[str, Any]:
    found: dict[str, Any] = dict(observed.modules)
    precision = observed.numerics.get("precision", {})
    found |= {f"precision: {name}": value for name, value in precision.items()}
    if first is not None:
        found["precision: autocast"] = first.autocast or "off"
    if observed.modules or precision:
        found["torch.compile"] = observed.compilation.is_used
    return found


def _collect_losses(observed: RunObservation, first: DeepObservation) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{call.name} {index}": _describe_loss(call)
        for index, call in enumerate(first.loss_functions)
        if call.is_training
    }
    if observed.steps:
        found["micro-batches"] = observed.steps[0].num_micro_batches
    return found


def _describe_loss(call: LossFunctionObservation) -> str:
    parts = [f"reduction={call.reduction}"]
    if call.label_smoothing:
        parts.append(f"label_smoothing={call.label_smoothing:g}")
    if call.has_weight:
        parts.append("weighted")
    if call.ignore_index is not None:
        parts.append(f"ignore_index={call.ignore_index}")
    return " ".join(parts)


def _collect_clipping(observed: RunObservation) -> dict[str, Any]:
    if not observed.steps:
        return {}
    first = observed.steps[0]
    calls = first.clipping
    bounds = [f"{call.kind} to {call.max_norm:g}" for call in calls if call.max_norm is not None]
    found = {"clipping": ", ".join(bounds) or ("called" if calls else "none")}
    if calls:
        if (reach := _describe_reach(first)) is not None:
            found["clipping covers"] = reach
        places = [_describe_place(call, first) for call in calls]
        found |= {"clipping comes": ", ".join(dict.fromkeys(filter(None, places)))} if any(places) else {}
    return found


def _describe_reach(step: StepObservation) -> str | None:
    """Whether all gradients of a step were clipped; None where that was not seen."""
    counts = [call.num_gradients for call in step.clipping]
    if step.trace is None or any(count is None for count in counts):
        return None
    num_gradients = sum(norm is not None for row in step.trace.gradients for norm in row)
    num_clipped = sum(count for count in counts if count is not None)
    return "all gradients" if num_clipped >= num_gradients else f"{num_clipped} of {num_gradients} gradients"


def _describe_place(call: ClippingCall, step: StepObservation) -> str | None:
    """When in the step a call came; None where that was not seen."""
    if call.is_before_unscale:
        return "before the loss scale is taken off"
    if call.num_micro_batches is None:
        return None
    return f"{'before' if call.num_micro_batches < step.num_micro_batches else 'after'} the last backward"


def _collect_optimizers(observed: RunObservation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names_of = list_group_names(observed)
    for index, optimizer in enumerate(observed.optimizers):
        found[f"optimizer {index}"] = optimizer.name
        for number, group in enumerate(optimizer.groups):
            name = f"optimizer {index} group {number}"
            found |= {
                f"{name} {key}": _as_value(value)
                for key, value in group.hyperparameters.items()
                if key not in NOT_ITS_OWN and value is not None and value is not False
            }
            found[f"{name} implementation"] = (
                ", ".join(key for key in IMPLEMENTATION if group.hyperparameters.get(key)) or "default"
            )
            names = names_of[index][number]
            found[f"{name} parameters"] = f"{len(names)} of {group.num_elements:,} numbers"
            # Names that are known in part, as of a model that is gone, tell nothing.
            if not any(part.startswith(UNOWNED) for part in names):
                found[f"{name} parameters"] += f" ({_digest(sorted(names))})"
                found[f"{name} order"] = _digest(names)
    return found


def _digest(names: Iterable[str]) -> str:
    digest = zlib.crc32("\n".join(names).encode()) & 0xFFFF
    return f"{digest:04x}"


def _collect_schedule(observed: RunObservation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, optimizer in enumerate(observed.optimizers):
        for number, group in enumerate(optimizer.groups):
            rate = group.hyperparameters.get("initial_lr", group.hyperparameters.get("lr"))
            found[f"optimizer {index} group {number} learning rate"] = _as_value(rate)
    for index, scheduler in enumerate(observed.schedulers):
        found[f"scheduler {index}"] = scheduler.name
        found |= {
            f"scheduler {index} {key}": _as_value(value)
            for key, value in scheduler.hyperparameters.items()
            if key not in SCHEDULER_STATE
        }
    return found


def _as_value(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{shorten(value):.{DIGITS}g}") if math.isfinite(value) else str(value)
    return [_as_value(part) for part in value] if isinstance(value, (list, tuple)) else value
