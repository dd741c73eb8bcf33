"""What a run was set up with, as plain values by phase and name, and how two runs differ in it."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_json import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.baselines.trajectory import Settings
    from harness.record.deep import DeepObservation, LossFunctionObservation
    from harness.record.observation import LoaderObservation, RunObservation

IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable", "lr", "initial_lr", "params")
"""Settings of an optimizer that choose how it computes and not what, and the rates, which belong to the schedule."""
SCHEDULER_STATE = ("last_epoch", "verbose", "_step_count", "last_lr", "_last_lr", "base_lrs")

DIGITS = 9
"""Of a setting that is a number: machines differ in the last ones of a root or power."""
MAX_PASSES = 3
ORDER = "order of pass"


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting in which two runs differ; None where a run does not have it."""

    phase: Phase
    name: str
    baseline: Any
    observed: Any

    def __str__(self) -> str:
        if self.baseline is None:
            return f"{self.name} is new: {_show(self.observed)}"
        if self.observed is None:
            return f"{self.name} is gone (was {_show(self.baseline)})"
        return f"{self.name}: {_show(self.baseline)} -> {_show(self.observed)}"


def _show(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


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


def list_changes(baseline: Settings, observed: Settings) -> list[SettingChange]:
    """The settings in which two runs differ, in the order of phases.

    Phases that one of the runs tells nothing of are passed over: it was watched less closely.
    """
    changes: list[SettingChange] = []
    for phase in Phase:
        before, now = baseline.get(phase), observed.get(phase)
        if before is None or now is None:
            continue
        changes += [
            SettingChange(phase, name, before.get(name), now.get(name))
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name) and not _is_open_order(name, before.get(name), now.get(name))
        ]
    return changes


def _is_open_order(name: str, before: Any, now: Any) -> bool:
    """Whether two orders can't be compared, because the passes did not go equally far."""
    return ORDER in name and (
        before is None or now is None or before.partition("/")[2] != now.partition("/")[2]
    )


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
        found[unheld.name] = f"{shape}{'' if unheld.is_trainable else ' frozen'} in no optimizer"
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
    calls = observed.steps[0].clipping if observed.steps else []
    bounds = [f"{call.kind} to {call.max_norm:g}" for call in calls if call.max_norm is not None]
    return {"clipping": ", ".join(bounds) or ("called" if calls else "none")}


def _collect_optimizers(observed: RunObservation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, optimizer in enumerate(observed.optimizers):
        found[f"optimizer {index}"] = optimizer.name
        for number, group in enumerate(optimizer.groups):
            name = f"optimizer {index} group {number}"
            found |= {
                f"{name} {key}": _as_value(value)
                for key, value in group.hyperparameters.items()
                if key not in IMPLEMENTATION and value is not None and value is not False
            }
            names = sorted(group.parameters)
            digest = zlib.crc32("\n".join(names).encode()) & 0xFFFF
            found[f"{name} parameters"] = f"{len(names)} of {group.num_elements:,} numbers ({digest:04x})"
    return found


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
