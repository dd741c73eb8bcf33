"""What a watched run showed, as plain data: one record per step and one for the whole run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from harness.record.counters import CountedStep
from harness.record.deep import DeepObservation
from harness.record.limit import Limit
from harness.record.saved import SavedModelObservation
from harness.record.structure import CopyObservation, LoadObservation, ProbeObservation
from harness.record.trace import StepTrace

PHASES = ("data", "forward", "backward", "optimizer", "other")


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
class ClippingCall:
    """One call that clipped gradients.

    Attributes:
        kind: "norm" or "value".
        max_norm: The bound, a norm or a value; None where it was not one number.
        norm: The norm before clipping; None for clipping by value.
        norm_type: Order of the norm.
        num_gradients: How many gradients it covered; None where it got a generator, but for deep steps.
        is_before_unscale: Whether gradients still carried the loss scale of a GradScaler.
        num_micro_batches: Backward passes of the step before it.
    """

    kind: str
    max_norm: float | None
    norm: float | None = None
    norm_type: float = 2.0
    num_gradients: int | None = None
    is_before_unscale: bool = False
    num_micro_batches: int | None = None


@dataclass(slots=True)
class StepObservation:
    """One optimizer step.

    Attributes:
        step: Position among the steps seen, from 0.
        loss: Sum of what reached backward in the step, each with the value the program gave it; None where
            nothing did. With a closure that is called more than once: of its first call.
        losses: The values that were summed, in order.
        num_micro_batches: Backward passes of the step; of a closure's first call only.
        num_closure_calls: How often the optimizer called its closure; 0 without one.
        optimizers: Indices of the optimizers that stepped, into `RunObservation.optimizers`.
        learning_rates: Learning rate per group, of each optimizer that stepped, in that order; None where a
            group has none that is a number.
        grad_norm: Norm of the gradients before clipping; None where neither the program clipped nor norms
            were asked for.
        clipped_grad_norm: Norm the optimizer was given.
        update_norm: Norm of the change of the parameters (deep steps).
        update_to_weight: `update_norm` over the norm of the parameters before (deep steps).
        batch_shapes: Shapes of the tensors the model was called with, one list per micro-batch.
        num_samples: Samples of the step; None where no batch was seen.
        num_tokens: Tokens of the step; None where batches are not token ids.
        sequence_length: The longest sequence of the step; None where batches are not token ids.
        time_s: Seconds from the end of the previous step to the end of this one; None for deep steps and
            for a first step whose start was not seen.
        phase_times_s: Seconds by phase: data, forward, backward, optimizer, other.
        has_device_times: Whether these are times of a GPU, between events in its stream; otherwise the host's.
        rss_bytes: Resident set at the end of every eighth step, later of ever fewer; None for the others and outside
            Linux.
        is_deep: Whether it was watched in depth, so that its time says nothing.
        was_skipped: Whether a GradScaler skipped it because of infinite gradients.
        clipping: The clipping calls of the step.
        num_host_syncs: How often the program waited for its GPU; None where not counted, as on most steps.
        first_host_sync: Where it first did, as `file:line`.
        trace: What tells it from the same step of another run; of the first steps, where runs are compared.
    """

    step: int
    loss: float | None = None
    losses: list[float] = field(default_factory=list)
    num_micro_batches: int = 0
    num_closure_calls: int = 0
    optimizers: list[int] = field(default_factory=list)
    learning_rates: list[list[float | None]] = field(default_factory=list)
    grad_norm: float | None = None
    clipped_grad_norm: float | None = None
    update_norm: float | None = None
    update_to_weight: float | None = None
    batch_shapes: list[list[tuple[int, ...]]] = field(default_factory=list)
    num_samples: int | None = None
    num_tokens: int | None = None
    sequence_length: int | None = None
    time_s: float | None = None
    phase_times_s: dict[str, float] = field(default_factory=dict)
    has_device_times: bool = False
    rss_bytes: int | None = None
    is_deep: bool = False
    was_skipped: bool = False
    clipping: list[ClippingCall] = field(default_factory=list)
    num_host_syncs: int | None = None
    first_host_sync: str | None = None
    trace: StepTrace | None = None

    def to_json(self) -> dict[str, Any]:
        """The step as a JSON object; what was not seen is left out."""
        found = {name: value for name in STEP_FIELDS if _was_seen(value := getattr(self, name))}
        if self.clipping:
            found["clipping"] = [asdict(call) for call in self.clipping]
        if self.trace is not None:
            found["trace"] = self.trace.to_json()
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The step that `to_json` wrote."""
        step = cls(**value)
        step.clipping = [ClippingCall(**call) for call in value.get("clipping", [])]
        step.batch_shapes = [[tuple(shape) for shape in shapes] for shapes in step.batch_shapes]
        if value.get("trace") is not None:
            step.trace = StepTrace.from_json(value["trace"])
        return step


def _was_seen(value: object) -> bool:
    is_empty = isinstance(value, (list, dict)) and not value
    return value is not None and value is not False and not is_empty


STEP_FIELDS = tuple(entry.name for entry in fields(StepObservation))


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
class EpochObservation:
    """One pass of a DataLoader: how many batches and samples it gave, and in which order.

    `num_distinct` and `order` come from the sampler: distinct indices drawn, and a fingerprint of their
    sequence; None for iterable data sets and when watched less than deep. With workers the sampler runs ahead
    of the batches given.
    """

    after_step: int
    num_batches: int = 0
    num_indices: int = 0
    num_distinct: int | None = None
    order: str | None = None
    is_complete: bool = False
    """Whether the program read on until there was nothing left."""


@dataclass(slots=True)
class LoaderObservation:
    """One DataLoader that was iterated.

    Attributes:
        dataset: Class of the data set.
        num_samples: Its length; None where it has none.
        batch_size: As configured; None with a batch sampler of its own.
        num_workers: Worker processes.
        sampler: Class of the sampler, which tells shuffling from reading in order.
        drop_last: Whether an incomplete last batch is left out.
        epochs: Its passes, in order.
        fingerprints: One per batch given, over shapes, types and a sample of the contents; when watched deep.
        is_shuffled: Whether its sampler draws at random; None for samplers that are not of torch.
        num_training_batches: Batches after which a model was called that trains, before the next one was read.
        num_evaluation_batches: Batches after which a model was called in eval mode or without gradients.
        num_checked_batches: Batches of the first pass that were looked at sample by sample.
        non_finite_batches: Positions of the first of those with an input that is not finite, from 0.
        label_range: Smallest and largest of their labels, where a batch ends in one whole number per sample.
        num_label_batches: Those of them with four labels or more.
        num_one_label_batches: Those of these in which all labels are the same.
        num_looked_at: Samples of the first pass whose contents were compared; when watched deep.
        num_different: How many different ones were among them.
        copied_generator: Attribute of the data set that holds a random generator which its `__getitem__` uses,
            and of which every worker gets the same copy; None without workers, with a `worker_init_fn`, and where
            it is seeded for each sample.
    """

    dataset: str
    num_samples: int | None
    batch_size: int | None
    num_workers: int
    sampler: str
    drop_last: bool
    epochs: list[EpochObservation] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    is_shuffled: bool | None = None
    num_training_batches: int = 0
    num_evaluation_batches: int = 0
    num_checked_batches: int = 0
    non_finite_batches: list[int] = field(default_factory=list)
    label_range: tuple[int, int] | None = None
    num_label_batches: int = 0
    num_one_label_batches: int = 0
    copied_generator: str | None = None
    num_looked_at: int = 0
    num_different: int = 0


@dataclass(slots=True)
class OverlapObservation:
    """How much of what a DataLoader gave to evaluation had been given to training as well.

    Attributes:
        evaluation: Position of the loader among `RunObservation.loaders`.
        is_same_dataset: Whether a loader for training reads the very same data set object, or a subset of it.
        num_samples: Samples of the evaluation that were compared, of its first pass.
        share: Of them, how many are in what was kept of the training: by index where the data set is the same,
            else by their contents.
        coverage: Share of the training data that was kept to compare with.
        twin_share: Share of the training samples that equal another one, as small or artificial ones may.
        last_step: Steps done before the loader's last pass.
    """

    evaluation: int
    is_same_dataset: bool
    num_samples: int
    share: float
    coverage: float = 1.0
    twin_share: float = 0.0
    last_step: int = 0


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
