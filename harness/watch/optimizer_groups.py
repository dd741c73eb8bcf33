"""Describes optimizers: what their groups hold, and the settings of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation

if TYPE_CHECKING:
    from torch.optim import Optimizer

PLAIN = (bool, int, float, str)


def describe_idle(optimizer: Optimizer, names: dict[int, str]) -> OptimizerObservation:
    """An optimizer that has not stepped, with the names of what it holds by their identities."""
    groups, ids = describe_groups(optimizer)
    for group, members in zip(groups, ids, strict=True):
        group.parameters = [names.get(member, "?") for member in members]
    return OptimizerObservation(type(optimizer).__name__, groups)


def describe_groups(optimizer: Optimizer) -> tuple[list[OptimizerGroup], list[list[int]]]:
    """The groups, which no parameter is named in yet, and the identities of what each holds."""
    groups, ids = [], []
    for group in optimizer.param_groups:
        hyperparameters = {
            name: found for name, value in group.items() if (found := _as_plain(value)) is not None
        }
        members = group["params"]
        num_elements = sum(parameter.numel() for parameter in members)
        groups.append(OptimizerGroup(hyperparameters, [], num_elements))
        ids.append([id(member) for member in members])
    return groups, ids


def _as_plain(value: object) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(part, PLAIN) for part in value):
        return list(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.device.type == "cpu":
        return value.item()
    return None
