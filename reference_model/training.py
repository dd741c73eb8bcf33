"""`train`: puts the parts of a run together, runs it, and says how it went."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reference_model.checkpoint import CheckpointStore, read_checkpoint
from reference_model.data import Corpus, read_corpus
from reference_model.distributed import World, join_world
from reference_model.environment import describe_code, describe_environment
from reference_model.errors import ConfigError
from reference_model.logs import log_event, open_logs
from reference_model.metrics import MetricsFile, Row
from reference_model.model import Transformer
from reference_model.optim import AveragedWeights, build_optimizer, build_scheduler
from reference_model.precision import build_scaler
from reference_model.profiling import NUM_PROFILED_EVALUATIONS, profiled
from reference_model.rng import seed_everything
from reference_model.run_context import RunContext, choose_run_id
from reference_model.sampler import MicroBatchSampler
from reference_model.samples import write_samples
from reference_model.settings import dump_config, flatten_config
from reference_model.signals import catch_stop_signals
from reference_model.state import TrainState
from reference_model.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reference_model.config import TrainConfig

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True)
class TrainResult:
    """How a run went."""

    run_id: str
    run_dir: Path
    steps: int
    """Optimizer steps taken in all, those before a resume included."""
    stop_reason: str
    """`max_steps`, `max_duration`, `patience`, `profile_eval`, or the name of a signal."""
    history: list[Row]
    """The rows of the metrics file that this run wrote: `step`, `split` and the metrics by name."""
    train_loss: float
    """Loss of the last step in nats per token; NaN if no step was taken."""
    train_loss_smoothed: float
    """Exponential average of the loss; NaN if no step was taken."""
    val_loss: float
    """Loss of the last evaluation in nats per token; NaN if there was none."""
    val_bits_per_token: float
    """The same in bits: per pixel for digits, per byte for text."""
    num_parameters: int
    wall_s: float
    checkpoint: Path | None
    """The last checkpoint written."""
    samples: Path | None
    """The sample sheet, or the page of generated text."""


def train(config: TrainConfig) -> TrainResult:
    """Run what the configuration says, from data to sample sheet.

    Seeds the global random generators. Under torchrun every rank calls it; rank 0 writes.

    Raises:
        ConfigError: if the configuration does not fit this machine, the data or the checkpoint to resume.
        TrainingError: if training breaks: too many non-finite steps in a row, or out of memory.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        world = stack.enter_context(join_world(config.device))
        stack.enter_context(_cpu_threads(config.num_threads))
        resumed = read_checkpoint(config.resume) if config.resume else None
        corpus = read_corpus(config.data)
        state = _build_state(config, world, corpus)
        if resumed is not None:
            _check_fits(resumed, config, corpus)
        # All that may be refused is behind us: only now does the run leave traces.
        run, config = _open_run(config, world, resumed)
        stack.enter_context(open_logs(run, world))
        code = _record_run(run, config, world, corpus)
        if resumed is not None:
            state.restore(resumed, world)
            log_event("resumed", step=state.progress.step, path=str(config.resume))
        first_step = state.progress.step
        metrics = stack.enter_context(
            closing(MetricsFile(run.metrics if world.is_main else None, first_step))
        )
        store = CheckpointStore(run.checkpoints, config.keep_best)
        saved: list[Path] = []

        def save_checkpoint(val_loss: float | None, reason: str) -> None:
            payload = state.capture(world) | _provenance(run, config, corpus, code)
            if world.is_main:
                saved.append(store.save(payload, state.progress.step, val_loss, reason))
                log_event("checkpoint_saved", step=state.progress.step, path=str(saved[-1]), reason=reason)

        on_step_end = stack.enter_context(profiled(config.mode, run.trace(config.mode, world.rank)))
        trainer = Trainer(
            config=config,
            world=world,
            corpus=corpus,
            state=state,
            forward_model=_wrap(state.model, config, world),
            metrics=metrics,
            save_checkpoint=save_checkpoint,
            stop_request=stack.enter_context(catch_stop_signals()),
            on_step_end=on_step_end,
        )
        stop_reason = _run_mode(config, trainer, on_step_end)
        samples = None
        if world.is_main and config.samples_per_class and not stop_reason.startswith("SIG"):
            with state.averaged.swapped_in(state.model):
                samples = write_samples(state.model, corpus, run, config, state.progress.step)
            log_event("samples_saved", path=str(samples))
        evaluation, smoothed = trainer.last_evaluation, state.progress.smoothed_loss
        result = TrainResult(
            run_id=run.run_id,
            run_dir=run.directory,
            steps=state.progress.step,
            stop_reason=stop_reason,
            history=metrics.history,
            train_loss=trainer.last_loss,
            train_loss_smoothed=math.nan if smoothed is None else smoothed,
            val_loss=evaluation.loss if evaluation else math.nan,
            val_bits_per_token=evaluation.bits_per_token if evaluation else math.nan,
            num_parameters=state.model.num_parameters(),
            wall_s=time.perf_counter() - started,
            checkpoint=saved[-1] if saved else None,
            samples=samples,
        )
        log_event(
            "run_end",
            step=result.steps,
            stop_reason=stop_reason,
            train_loss=result.train_loss_smoothed,
            val_loss=result.val_loss,
            val_bits_per_token=result.val_bits_per_token,
            wall_s=result.wall_s,
        )
    return result


def _open_run(
    config: TrainConfig, world: World, resumed: dict[str, Any] | None
) -> tuple[RunContext, TrainConfig]:
    """The run's directory and the configuration with its id; rank 0 decides and makes the folders."""
    # A profile of a checkpoint is a run of its own: it must not write over the record of the one it looks at.
    continued = resumed["run_id"] if resumed and not config.mode.startswith("profile") else None
    run_id = world.share(choose_run_id(config.run_id, continued, config.mode))
    config = replace(config, run_id=run_id)
    run = RunContext(run_id, config.out / run_id)
    problem = None
    if world.is_main:
        try:
            if resumed is None:
                run.refuse_if_used()
            run.create_directories()
        except (ConfigError, OSError) as error:
            problem = str(error)
    if problem := world.share(problem):
        raise ConfigError(problem)
    return run, config


def _record_run(run: RunContext, config: TrainConfig, world: World, corpus: Corpus) -> dict[str, Any]:
    """Write down and log configuration, environment, data and code; returns the facts about the code."""
    environment = describe_environment(world) | {"data": corpus.description}
    log_event("config", values=flatten_config(config))
    log_event(
        "environment", device=str(world.device), num_threads=torch.get_num_threads(), values=environment
    )
    log_event("data", **corpus.description)
    code = describe_code() if world.is_main else None
    if world.is_main:
        run.config.write_text(dump_config(config), encoding="utf-8")
        run.environment.write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
    if code is None:
        return {}
    facts, diff = code
    run.git.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    run.diff.write_text(diff, encoding="utf-8")
    return facts


def _build_state(config: TrainConfig, world: World, corpus: Corpus) -> TrainState:
    seed_everything(config.seed)
    model = Transformer(
        config.model,
        vocab_size=corpus.codec.vocab_size,
        context=corpus.context,
        row_length=corpus.codec.row_length,
    ).to(world.device)
    optimizer = build_optimizer(model, config.optim)
    sampler = MicroBatchSampler(
        num_sequences=len(corpus.train) // corpus.num_variants,
        batch_size=config.batch_size,
        accumulation_steps=config.accumulation_steps,
        seed=config.seed,
        world=world,
        num_variants=corpus.num_variants,
        variant_fraction=config.data.shift_fraction,
    )
    # The same weights everywhere, then each rank its own dropout.
    seed_everything(config.seed + world.rank)
    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config.optim, config.max_steps),
        scaler=build_scaler(world.device, config.precision),
        averaged=AveragedWeights(model, config.optim.ema_decay),
        sampler=sampler,
    )


def _wrap(model: Transformer, config: TrainConfig, world: World) -> nn.Module:
    """The model as the forward pass calls it; its parameters stay those of `model`."""
    forward_model: nn.Module = model
    if config.compile:
        model.compile()
    if world.size > 1:
        device_ids = [world.device] if world.device.type == "cuda" else None
        forward_model = DistributedDataParallel(forward_model, device_ids=device_ids)
    return forward_model


def _run_mode(config: TrainConfig, trainer: Trainer, on_step_end: Callable[[], None]) -> str:
    if config.mode == "profile_eval":
        for _ in range(NUM_PROFILED_EVALUATIONS):
            trainer.evaluate()
            on_step_end()
        return "profile_eval"
    return trainer.run()


def _provenance(run: RunContext, config: TrainConfig, corpus: Corpus, code: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": CHECKPOINT_FORMAT,
        "run_id": run.run_id,
        "config": flatten_config(config),
        "data": dict(corpus.description),
        "torch": str(torch.__version__),
        "commit": code.get("commit"),
        "time": datetime.now(UTC).isoformat(),
    }


def _check_fits(resumed: dict[str, Any], config: TrainConfig, corpus: Corpus) -> None:
    """Raise ConfigError if the checkpoint is of another model or other data, or has nothing left to train."""
    now = flatten_config(config)
    differing = [
        f"{key} is {now[key]} and was {before}"
        for key, before in resumed["config"].items()
        if key.startswith("model.") and before != now.get(key)
    ]
    if resumed["data"]["sha256"] != corpus.description["sha256"]:
        differing.append(f"data is {corpus.description['source']} and was {resumed['data']['source']}")
    if differing:
        raise ConfigError(
            f"cannot resume from {config.resume}: {'; '.join(differing)}. "
            "Pass the run's own settings with --config RUN_DIR/config.yaml"
        )
    if resumed["step"] >= config.max_steps and config.mode != "profile_eval":
        raise ConfigError(
            f"the checkpoint is at step {resumed['step']} and max_steps is {config.max_steps}: "
            "nothing is left to train; raise --max_steps"
        )


@contextmanager
def _cpu_threads(num_threads: int) -> Iterator[None]:
    """Let torch use this many threads for the length of a run."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
