"""What a watched run showed as a whole, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from harness.record.counters import CountedStep
from harness.record.deep import DeepObservation
from harness.record.limit import Limit
from harness.record.loader_observation import EpochObservation, LoaderObservation, OverlapObservation
from harness.record.optimizer_observation import (
    OptimizerGroup,
    OptimizerObservation,
    ScalerObservation,
    SchedulerObservation,
)
from harness.record.saved import SavedModelObservation
from harness.record.step_observation import StepObservation
from harness.record.structure import CopyObservation, LoadObservation, ProbeObservation


class Outcome(StrEnum):
    """How a watched run ended."""

    COMPLETED = "completed"
    """It ran to its own end."""
    STOPPED = "stopped"
    """The watcher ended it after `max_steps` or `max_seconds`; counts as complete."""
    RAISED = "raised"
    """An exception left it, `SystemExit` with a code and `KeyboardInterrupt` among them."""
    CRASHED = "crashed"
    """The process was gone before it could say how it ended."""

    @property
    def is_complete(self) -> bool:
        """Whether the run may be judged as a whole."""
        return self in {Outcome.COMPLETED, Outcome.STOPPED}


@dataclass(slots=True)
class EvaluationObservation:
    """Forward passes in eval mode or without gradients, between two steps.

    Attributes:
        after_step: Steps done before.
        num_forwards: Calls of outermost modules.
        num_in_training_mode: How many ran in training mode.
        num_with_gradient: How many recorded a graph.
        modules: Classes of the modules called.
        num_trained: Calls of models that train, as deep steps had shown until then.
        num_trained_in_training_mode: How many of those ran in training mode.
        num_trained_with_gradient: How many of those recorded a graph.
    """

    after_step: int
    num_forwards: int = 0
    num_in_training_mode: int = 0
    num_with_gradient: int = 0
    modules: list[str] = field(default_factory=list)
    num_trained: int = 0
    num_trained_in_training_mode: int = 0
    num_trained_with_gradient: int = 0


@dataclass(slots=True)
class CheckpointObservation:
    """One checkpoint written.

    Attributes:
        path: Where to; None for a buffer in memory.
        writer: Function that wrote it, such as `torch.save`.
        after_step: Steps done before.
        keys: Keys of the object, dotted down to tensors; the class name of an object that is no mapping.
        num_bytes: Size right after the call; None where it is no file yet.
        models: What it held of the models that train; when watched deep.
        numbers: Whole numbers under keys that tell how far a training is, such as `step` and `epoch`.
        empty_parts: Keys of empty mappings, and "" where the whole object is one.
        pickled_modules: Classes of whole modules in it, where `torch.save` wrote it.
        unsaved_copies: Classes of models that were evaluated, are copies of one that trains with values of
            their own, as averages are, and are not in it.
        is_kept: Whether the file was there at the end of the run; None where that was not looked at.
        defect: Why the file could not be read at the end of the run; None when it could.
        unsafe: Why it does not load with `weights_only=True`; None when it does, and where that was not tried.
    """

    path: str | None
    writer: str
    after_step: int
    keys: list[str] = field(default_factory=list)
    num_bytes: int | None = None
    models: list[SavedModelObservation] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    empty_parts: list[str] = field(default_factory=list)
    pickled_modules: list[str] = field(default_factory=list)
    unsaved_copies: list[str] = field(default_factory=list)
    is_kept: bool | None = None
    defect: str | None = None
    unsafe: str | None = None


@dataclass(slots=True)
class NonFiniteObservation:
    """The first backward from a loss that was not finite, looked at before it ran.

    Attributes:
        step: The step it was in.
        parameters: Names of the parameters that held numbers that are not finite, at most some of them.
        num_parameters: How many of all did.
        num_all_parameters: Of how many.
        operation: The first operation of the forward pass that made such a number, or the first that was seen
            to be given one; None where it was not found.
        detail: What it did, such as "was given 0".
        before: The operations right before it, nearest first.
        after: The parameters that came last before it, by name.
        is_from_data: Whether it is the data that hold the number.
        risky_operations: Operations with a gradient that may be infinite, and how many there are of each.
    """

    step: int
    parameters: list[str] = field(default_factory=list)
    num_parameters: int = 0
    num_all_parameters: int = 0
    operation: str | None = None
    detail: str = ""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    is_from_data: bool = False
    risky_operations: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class CompilationObservation:
    """What torch.compile did during the run: graphs compiled, and graph breaks by reason."""

    num_graphs: int = 0
    num_graph_breaks: int = 0
    is_used: bool = False


@dataclass(slots=True)
class RunObservation:
    """Everything seen of one process of a run.

    Attributes:
        steps: In order; with more than the limit kept, the middle is left out and `not_seen` says so.
        deep_steps: What was seen in depth on sampled steps.
        counted_steps: The operations of the steps that were counted.
        idle_optimizers: Those that were built while the run was watched, and never stepped.
        autocast: How often autocast was entered, by device and type, such as "cpu bfloat16".
        copies: Copies of trained models that deep steps found.
        probes: What a copy of a trained model did after the run.
        loads: Weights loaded into models that train, while they train.
        non_finite: What the first backward from a loss that is not finite showed, when watched deep.
        num_backwards: Backward passes, those after the last step too.
        num_forwards: Calls of outermost modules that recorded a graph; None where modules were not watched.
        has_process_group: Whether `torch.distributed` was initialized, so that ranks train together.
        num_updates_by_hand: Updates of parameters without an optimizer, before the first step of one; looked for
            under a limit and at depth `deep`.
        num_compared_gradients: Backwards and their like before which parameters were compared for that.
        environments: Imported libraries of environments to act in, which tell reinforcement learning.
        not_seen: What could not be observed, and why, in whole sentences.
        notes: What the watcher did that the reader should know, such as ending the run.
        peak_memory_bytes: Peak resident set of the process.
        cuda_peak_bytes: Peak allocated on the GPU.
        cuda_reserved_bytes: Peak that the allocator held of the GPU's memory.
        first_step_at_s: End of the first step on the clock of the machine, which all its processes share.
        outcome: How it ended.
        error: The exception that ended it, as "Type: message".
        ended_by: The limit that ended it from outside; None where none did.
        seed: Seed of torch's generator, as it was after the first step.
        numerics: What the numbers depend on beside the program's arithmetic: instruction set, threads, libraries,
            and how precise and deterministic the program asked torch to be; after the first step. Under "start",
            the threads when watching began.
        modules: Class and settings of every module of the models called, by name; where runs are compared.
        sources: File of each class of the project's own among them, of data sets too, by class; likewise.
        project_files: Python files of the project that were imported; likewise.
    """

    rank: int = 0
    world_size: int = 1
    process_id: int = 0
    argv: list[str] = field(default_factory=list)
    started_at: str = ""
    torch: str = ""
    steps: list[StepObservation] = field(default_factory=list)
    deep_steps: list[DeepObservation] = field(default_factory=list)
    counted_steps: list[CountedStep] = field(default_factory=list)
    optimizers: list[OptimizerObservation] = field(default_factory=list)
    idle_optimizers: list[OptimizerObservation] = field(default_factory=list)
    schedulers: list[SchedulerObservation] = field(default_factory=list)
    scaler: ScalerObservation | None = None
    autocast: dict[str, int] = field(default_factory=dict)
    loaders: list[LoaderObservation] = field(default_factory=list)
    evaluations: list[EvaluationObservation] = field(default_factory=list)
    checkpoints: list[CheckpointObservation] = field(default_factory=list)
    overlaps: list[OverlapObservation] = field(default_factory=list)
    copies: list[CopyObservation] = field(default_factory=list)
    probes: list[ProbeObservation] = field(default_factory=list)
    loads: list[LoadObservation] = field(default_factory=list)
    compilation: CompilationObservation = field(default_factory=CompilationObservation)
    non_finite: NonFiniteObservation | None = None
    trainable_parameters: dict[str, int] = field(default_factory=dict)
    num_backwards: int = 0
    num_forwards: int | None = None
    has_process_group: bool = False
    num_updates_by_hand: int = 0
    num_compared_gradients: int = 0
    environments: list[str] = field(default_factory=list)
    not_seen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    cuda_peak_bytes: int | None = None
    cuda_reserved_bytes: int | None = None
    first_step_at_s: float | None = None
    wall_clock_s: float | None = None
    outcome: Outcome = Outcome.CRASHED
    error: str | None = None
    ended_by: Limit | None = None
    seed: int | None = None
    numerics: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    project_files: list[str] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """The headline loss of every step that had one and was not skipped."""
        return [step.loss for step in self.steps if step.loss is not None and not step.was_skipped]

    def to_json(self, *, with_steps: bool = True) -> dict[str, Any]:
        """The run as a JSON object; the steps may be left out where they are written one by one."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        plain["steps"] = [step.to_json() for step in self.steps] if with_steps else []
        plain["deep_steps"] = [deep.to_json() for deep in self.deep_steps] if with_steps else []
        for name in RUN_PARTS:
            plain[name] = [asdict(part) for part in plain[name]]
        plain["scaler"] = None if self.scaler is None else asdict(self.scaler)
        plain["non_finite"] = None if self.non_finite is None else asdict(self.non_finite)
        plain["compilation"] = asdict(self.compilation)
        plain["ended_by"] = None if self.ended_by is None else asdict(self.ended_by)
        plain["outcome"] = str(self.outcome)
        return plain

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The run that `to_json` wrote; keys of a later schema are passed over."""
        known = {entry.name for entry in fields(cls)}
        plain = {name: part for name, part in value.items() if name in known}
        plain["steps"] = [StepObservation.from_json(step) for step in plain.get("steps", [])]
        plain["deep_steps"] = [DeepObservation.from_json(deep) for deep in plain.get("deep_steps", [])]
        for name, kind in RUN_PARTS.items():
            plain[name] = [kind(**part) for part in plain.get(name, [])]
        for optimizer in (*plain["optimizers"], *plain["idle_optimizers"]):
            optimizer.groups = [OptimizerGroup(**group) for group in optimizer.groups]
        for loader in plain["loaders"]:
            loader.epochs = [EpochObservation(**epoch) for epoch in loader.epochs]
            if loader.label_range is not None:
                smallest, largest = loader.label_range
                loader.label_range = (smallest, largest)
        for checkpoint in plain["checkpoints"]:
            checkpoint.models = [SavedModelObservation(**model) for model in checkpoint.models]
        if plain.get("scaler") is not None:
            plain["scaler"] = ScalerObservation(**plain["scaler"])
        if plain.get("non_finite") is not None:
            plain["non_finite"] = NonFiniteObservation(**plain["non_finite"])
        plain["compilation"] = CompilationObservation(**plain.get("compilation", {}))
        if plain.get("ended_by") is not None:
            plain["ended_by"] = Limit(**plain["ended_by"])
        plain["outcome"] = Outcome(plain.get("outcome", Outcome.CRASHED))
        return cls(**plain)


RUN_PARTS: dict[str, Any] = {
    "counted_steps": CountedStep,
    "optimizers": OptimizerObservation,
    "idle_optimizers": OptimizerObservation,
    "schedulers": SchedulerObservation,
    "loaders": LoaderObservation,
    "evaluations": EvaluationObservation,
    "checkpoints": CheckpointObservation,
    "overlaps": OverlapObservation,
    "copies": CopyObservation,
    "probes": ProbeObservation,
    "loads": LoadObservation,
}
