"""What a watched run showed of optimizers, schedulers and the GradScaler, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class OptimizerGroup:
    """One parameter group.

    Attributes:
        hyperparameters: Numbers, flags and names of the group when it first stepped, `lr` among them.
        parameters: Names of the parameters in it, as the model has them; `?` and a position where no model
            that was seen owns it.
        num_elements: Numbers in those parameters.
    """

    hyperparameters: dict[str, Any]
    parameters: list[str]
    num_elements: int


@dataclass(slots=True)
class OptimizerObservation:
    """One optimizer that stepped.

    Attributes:
        name: Its class.
        groups: Its parameter groups.
        num_steps: How often it stepped.
        same_parameters_as: Position of the optimizer before it that held the very same parameters; None without
            one.
    """

    name: str
    groups: list[OptimizerGroup]
    num_steps: int = 0
    same_parameters_as: int | None = None


@dataclass(slots=True)
class SchedulerObservation:
    """One learning rate scheduler.

    Attributes:
        name: Its class.
        num_steps: Calls of `step`, the one of its constructor left out.
        num_before_first_optimizer_step: How many of them came before any optimizer had stepped.
        last_epoch: Its own counter at the end.
        num_idle: Calls since which no optimizer at all had stepped, those before the first step left out.
        num_foreign: Calls since which optimizers had stepped, but not its own.
        optimizer: Position of its optimizer among those that stepped; None where that one never did.
        hyperparameters: What it was built with, as far as it is plain: `T_max`, `base_lrs`, `total_steps` ...
        last_rates: The rates it had set, when last looked at.
        last_seen_step: The last deep step at whose end it was still there; None where none looked at it.
        is_part: Whether another scheduler steps it.
    """

    name: str
    num_steps: int = 0
    num_before_first_optimizer_step: int = 0
    last_epoch: int | None = None
    num_idle: int = 0
    num_foreign: int = 0
    optimizer: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    last_rates: list[float] = field(default_factory=list)
    last_seen_step: int | None = None
    is_part: bool = False


@dataclass(slots=True)
class ScalerObservation:
    """The GradScalers of the run.

    Attributes:
        num_scaled: How often a loss was scaled.
        num_skipped: Steps skipped.
        last_scale: The scale at the end; None where `update` was never called.
        num_steps: Calls of its `step`.
        num_backwards: Backwards that began at a loss as `scale` gave it.
    """

    num_scaled: int = 0
    num_steps: int = 0
    num_backwards: int = 0
    num_skipped: int = 0
    last_scale: float | None = None
