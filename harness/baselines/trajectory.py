"""A trajectory: how a training went, step by step and phase by phase, small enough to be kept in version control."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.record.limit import Limit  # noqa: TC001  files are checked by the kinds of these fields


class Phase(StrEnum):
    """The phases of a training in the order of cause and effect: what differs first is looked for in this order."""

    DATA = "data"
    RNG = "RNG"
    INITIALISATION = "initialisation"
    FORWARD = "forward"
    LOSS = "loss"
    GRADIENTS = "gradients"
    CLIPPING = "clipping"
    OPTIMIZER = "optimizer"
    SCHEDULE = "schedule"


TORCH_GENERATORS = ("torch", "cuda")
"""Generators that every training draws from; others, only where they move while it trains."""

Settings = dict[str, dict[str, Any]]
"""What a run was set up with, as plain values by phase and name: `settings["optimizer"]["AdamW 0 weight_decay"]`."""


@dataclass(frozen=True, slots=True)
class TracePoint:
    """One optimizer step.

    Numbers are those of the run; fingerprints are short texts that tell equal from different.

    Attributes:
        step: Position among the steps, from 0.
        loss: The headline loss; None where none was seen.
        learning_rates: Of every group of the optimizers that stepped.
        grad_norm: Norm of all gradients, before clipping.
        clipped_norm: The same as the optimizers got them.
        update_norm: Norm of the change of all parameters.
        num_micro_batches: Backward passes of the step.
        shapes: Shapes of what the model was called with, as text.
        batch: Fingerprints of what loaders gave, of the first micro-batch that the model was called with, and of
            all others; `-` for what was not seen.
        generators: Fingerprint of each random generator when the step began, by name.
        optimizers: Positions of the optimizers that stepped.
        gradients: Fingerprint of the gradient of each tensor of these optimizers, or one of all of them; empty
            where the step was not traced.
        updates: Fingerprint of the change of each, or one of all.
        was_skipped: Whether a GradScaler skipped it.
        weight_norm: Norm of all parameters of these optimizers before the step, to so many digits that it tells
            equal from different.
        num_eval_calls: Calls of models in eval mode, with gradients recorded; None where they were not counted.
        outputs: Fingerprint of what models gave in all calls of the step, with a closure in its first call; empty where
            it is not known.
        unclipped: As `gradients`, before the program clipped them; empty where it did not, or that is not known, as in
            baselines of earlier versions.
        calls: The first calls of models in the step, where there are several, as text that `calls_in_order.py` reads.
        side_calls: Calls of models that no optimizer holds, in eval mode or without gradients, as text that
            `side_calls.py` reads.
    """

    step: int
    loss: float | None = None
    learning_rates: tuple[float | None, ...] = ()
    grad_norm: float | None = None
    clipped_norm: float | None = None
    update_norm: float | None = None
    num_micro_batches: int = 1
    shapes: str = ""
    batch: str = ""
    generators: dict[str, str] = field(default_factory=dict)
    optimizers: tuple[int, ...] = (0,)
    gradients: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    was_skipped: bool = False
    weight_norm: float | None = None
    num_eval_calls: int | None = None
    outputs: str = ""
    unclipped: tuple[str, ...] = ()
    calls: str = ""
    side_calls: str = ""


@dataclass(frozen=True, slots=True)
class TensorPoint:
    """One parameter in a step watched in depth: its contents before the step, and the sizes of what moved it.

    Attributes:
        contents: Fingerprint before the step; empty where it was too large to be taken.
        grad_norm: As the optimizer got it; None without a gradient.
        unclipped_norm: The same before the program clipped it; None where it did not.
    """

    name: str
    contents: str = ""
    weight_norm: float | None = None
    grad_norm: float | None = None
    update_norm: float | None = None
    unclipped_norm: float | None = None


@dataclass(frozen=True, slots=True)
class InputPoint:
    """One tensor that the model was called with: its type, and where its numbers lie."""

    shape: str
    dtype: str
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True, slots=True)
class LossPoint:
    """One call of a loss function.

    Attributes:
        inputs: Fingerprint of what it was given.
        targets: Fingerprint of its targets.
        scale: Factor with which its result reached the gradient; None where no gradient came through.
    """

    name: str
    value: float | None = None
    scale: float | None = None
    inputs: str = ""
    targets: str = ""


@dataclass(frozen=True, slots=True)
class DeepPoint:
    """One step watched in depth.

    Attributes:
        outputs: Fingerprint of what each module gave, by name, in the order in which they were through.
        in_eval_mode: Modules that took part in eval mode.
        still: Parameters that no optimizer held, of all models seen until then: of a teacher, or frozen.
    """

    step: int
    inputs: tuple[InputPoint, ...] = ()
    outputs: dict[str, str] = field(default_factory=dict)
    losses: tuple[LossPoint, ...] = ()
    tensors: tuple[TensorPoint, ...] = ()
    still: tuple[TensorPoint, ...] = ()
    in_eval_mode: tuple[str, ...] = ()
    autocast: str | None = None
    loss_scale: float | None = None
    generators_after: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a stored trajectory comes from.

    Attributes:
        accepted_at: Moment in UTC.
        reason: Why a person or job accepted it.
        commit: Commit of the work tree; None outside git.
        uncommitted: Digest of the difference of tracked files from that commit; None without one.
        environment: Machine and versions, for people.
    """

    accepted_at: str = ""
    reason: str = ""
    commit: str | None = None
    uncommitted: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """How one training went.

    Attributes:
        test: Name of the test or command.
        numerics_class: Runs of one class compute the same bits from the same program.
        device: "cpu" or "cuda".
        num_ranks: Processes that trained.
        is_deterministic: Whether runs of one class are expected to be equal to the last bit.
        points: The steps.
        deep: Those watched in depth.
        settings: What the run was set up with.
        parameters: Names of the tensors of each optimizer, in the order of its groups.
        machine: What the numerics class is derived from, as it was after the first step.
        threads_at_start: Threads of torch when the program began, before it may have set another number; empty where
            that is not known, as in baselines of earlier versions.
        ended_by: The limit that ended it from outside; None where none did, or that is not known.
        sources: Files of the project's own classes, by class; relative to the folder the program ran in.
        project_files: Python files of the project that the program imported.
        provenance: Where it comes from; empty for a run that was not stored.
    """

    test: str
    numerics_class: str
    device: str = "cpu"
    num_ranks: int = 1
    is_deterministic: bool = True
    points: tuple[TracePoint, ...] = ()
    deep: tuple[DeepPoint, ...] = ()
    settings: Settings = field(default_factory=dict)
    parameters: tuple[tuple[str, ...], ...] = ()
    machine: dict[str, str] = field(default_factory=dict)
    threads_at_start: str = ""
    ended_by: Limit | None = None
    sources: dict[str, str] = field(default_factory=dict)
    project_files: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def losses(self) -> list[tuple[int, float]]:
        """The `(step, loss)` pairs."""
        return [(point.step, point.loss) for point in self.points if point.loss is not None]

    def find_deep(self, step: int) -> DeepPoint | None:
        """What was seen in depth of a step; None where it was not watched so."""
        return next((deep for deep in self.deep if deep.step == step), None)

    def list_tensors(self, point: TracePoint) -> list[str]:
        """Names of the tensors that `gradients` and `updates` of a step speak of."""
        return [
            name
            for index in point.optimizers
            if index < len(self.parameters)
            for name in self.parameters[index]
        ]
