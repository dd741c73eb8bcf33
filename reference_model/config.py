"""The typed configuration: every setting, its unit, its default and the range it must lie in.

Nothing here reads files or arguments (`settings.py` does) and nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reference_model.errors import ConfigError

Mode = Literal["normal", "ci", "profile_short", "profile_eval"]
Preset = Literal["tiny", "small", "medium"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


def _require(condition: object, key: str, rule: str, value: object) -> None:
    """Raise ConfigError naming the key, the rule and the value unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key} must be {rule}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the transformer."""

    width: int = 64
    """Size of the residual stream; a multiple of `heads`."""
    layers: int = 3
    """Number of transformer blocks."""
    heads: int = 4
    """Attention heads per block."""
    mlp_ratio: int = 4
    """Width of the hidden layer of each MLP over `width`."""
    dropout: float = 0.1
    """Probability of dropping an element of the embeddings and of each part; 1,500 images overfit without."""

    def __post_init__(self) -> None:
        for key in ("width", "layers", "heads", "mlp_ratio"):
            _require(getattr(self, key) >= 1, f"model.{key}", "at least 1", getattr(self, key))
        _require(
            self.width % self.heads == 0,
            "model.width",
            f"a multiple of model.heads ({self.heads})",
            self.width,
        )
        _require(0.0 <= self.dropout < 1.0, "model.dropout", "in [0, 1)", self.dropout)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned and what is held out."""

    path: Path | None = None
    """A text file, read as bytes; none means the handwritten digits bundled with scikit-learn."""
    context: int = 64
    """Bytes predicted per sequence of a text file; digits always have 64 pixels."""
    val_fraction: float = 0.1653
    """Share of the sequences held out; the default is 297 of the 1,797 digits."""
    shift_fraction: float = 0.25
    """Share of the training images served moved by one pixel, which 1,500 images need; text is never moved."""
    split_seed: int = 0
    """Seed of the split, apart from `seed`, so that runs of different seeds share their held-out set."""

    def __post_init__(self) -> None:
        _require(self.context >= 1, "data.context", "at least 1", self.context)
        _require(0.0 <= self.shift_fraction <= 1.0, "data.shift_fraction", "in [0, 1]", self.shift_fraction)
        _require(0.0 < self.val_fraction < 1.0, "data.val_fraction", "in (0, 1)", self.val_fraction)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its schedule and the average of its weights."""

    lr: float = 8e-3
    """Highest learning rate, reached after the warm-up."""
    min_lr_ratio: float = 0.02
    """Learning rate of the last step over `lr`."""
    warmup_fraction: float = 0.1
    """Share of `max_steps` spent in linear warm-up; a share, so that short runs keep the same shape."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices; norms and embeddings have none."""
    beta1: float = 0.9
    """Decay of AdamW's average of the gradient."""
    beta2: float = 0.95
    """Decay of AdamW's average of the squared gradient; short runs want a short memory."""
    grad_clip: float = 1.0
    """Largest total gradient norm; larger gradients are scaled down to it."""
    ema_decay: float = 0.99
    """Decay of the average of the weights that evaluation and sampling use; 0 turns the average off."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.lr <= 1.0, "optim.lr", "in [0, 1]", self.lr)
        _require(self.weight_decay >= 0.0, "optim.weight_decay", "at least 0", self.weight_decay)
        _require(self.grad_clip > 0.0, "optim.grad_clip", "above 0", self.grad_clip)
        for key in ("min_lr_ratio", "warmup_fraction"):
            _require(0.0 <= getattr(self, key) <= 1.0, f"optim.{key}", "in [0, 1]", getattr(self, key))
        for key in ("beta1", "beta2", "ema_decay"):
            _require(0.0 <= getattr(self, key) < 1.0, f"optim.{key}", "in [0, 1)", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run: the loop's own settings, with the model's, the data's and the optimizer's beside them.

    The constructor takes values as they stand. The values that a mode or a preset stands for are filled in
    by `reference_model.build_config`, which the command line uses.
    """

    mode: Mode = "normal"
    """What the run is for: training, a short slice of it for CI, or a profile of steps or of evaluation."""
    preset: Preset = "small"
    """Size of model and run; `small` is the defaults of this page."""
    out: Path = Path("runs")
    """Directory that holds one directory per run."""
    run_id: str | None = None
    """Name of the run and its directory; none takes RUN_ID from the environment, else time and mode."""
    seed: int = 0
    """Seed of initialisation, batch order, dropout and samples."""
    device: Device = "auto"
    """`auto` takes CUDA where there is one."""
    precision: Precision = "fp32"
    """Autocast type of forward and loss; `fp16` also scales the loss."""
    compile: bool = False
    """Run the model through torch.compile."""
    num_threads: int = 1
    """Threads of torch on CPU; 1 keeps times comparable and runs repeatable."""
    max_steps: int = 1200
    """Optimizer steps of the run; the schedule ends here."""
    max_duration_seconds: float | None = None
    """Seconds after which training ends, with validation and checkpoint as usual; none means no limit."""
    batch_size: int = 32
    """Sequences per optimizer step, over all ranks and micro-batches."""
    accumulation_steps: int = 1
    """Micro-batches whose gradients add up to one optimizer step."""
    log_every: int = 10
    """Steps between rows of training metrics."""
    eval_every: int = 200
    """Steps between evaluations; the last step is always evaluated."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the last step always leaves one."""
    keep_best: int = 2
    """Checkpoints kept for their validation loss, beside the last one."""
    patience: int | None = None
    """Evaluations without a better validation loss before the run ends early; none means never."""
    max_nonfinite_steps: int = 5
    """Steps in a row that may be skipped for a loss or gradient that is not finite before the run fails."""
    samples_per_class: int = 8
    """Generated samples per class on the sample sheet; 0 writes none."""
    sample_temperature: float = 0.8
    """Divides the logits when sampling; below 1 samples are cleaner and less varied than the data."""
    resume: Path | None = None
    """Checkpoint file, or run directory, to continue from."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the transformer."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is learned and what is held out."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """AdamW, its schedule and the average of its weights."""

    def __post_init__(self) -> None:
        for key in (
            "num_threads",
            "max_steps",
            "batch_size",
            "accumulation_steps",
            "log_every",
            "eval_every",
        ):
            _require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        for key in ("checkpoint_every", "keep_best"):
            _require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        for key in ("seed", "max_nonfinite_steps", "samples_per_class"):
            _require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        _require(self.sample_temperature > 0, "sample_temperature", "above 0", self.sample_temperature)
        for key in ("max_duration_seconds", "patience"):
            value = getattr(self, key)
            _require(value is None or value > 0, key, "above 0", value)
        _require(
            self.batch_size % self.accumulation_steps == 0,
            "batch_size",
            f"a multiple of accumulation_steps ({self.accumulation_steps})",
            self.batch_size,
        )
        _require(
            self.run_id is None or (Path(self.run_id).name == self.run_id and self.run_id not in {"", ".."}),
            "run_id",
            "one plain directory name",
            self.run_id,
        )
