"""The loop: steps, and between them logging, evaluation and checkpoints, until something says stop."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name the field uses
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from reference_model.data import IGNORED, Batch, build_loader
from reference_model.errors import TrainingError
from reference_model.evaluation import Evaluation, evaluate
from reference_model.logs import log_event
from reference_model.precision import autocast

if TYPE_CHECKING:
    from reference_model.config import TrainConfig
    from reference_model.data import Corpus
    from reference_model.distributed import World
    from reference_model.metrics import MetricsFile
    from reference_model.signals import StopRequest
    from reference_model.state import TrainState

SaveCheckpoint = Callable[[float | None, str], None]


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step came to."""

    loss: float
    """Mean cross-entropy of the whole batch over all ranks, in nats per token."""
    grad_norm: float
    """Total norm before clipping."""
    lr: float
    num_tokens: int
    data_s: float
    step_s: float


@dataclass
class Trainer:
    """Trains one state on one corpus.

    Args:
        forward_model: what the forward pass goes through: the state's model, or its wrapper for ranks.
        save_checkpoint: writes a checkpoint, given the validation loss of this step (if any) and the reason.
        stop_request: says whether a signal arrived.
        on_step_end: called after every step, for a profiler.
    """

    config: TrainConfig
    world: World
    corpus: Corpus
    state: TrainState
    forward_model: nn.Module
    metrics: MetricsFile
    save_checkpoint: SaveCheckpoint
    stop_request: StopRequest
    on_step_end: Callable[[], None]
    last_evaluation: Evaluation | None = None
    last_loss: float = math.nan
    _batches: Iterator[Batch] = field(init=False)
    _started: float = field(default_factory=time.perf_counter)
    _unlogged: list[StepReport] = field(default_factory=list)

    def run(self) -> str:
        """Train until the steps or the time are over, patience ends or a signal arrives; returns which."""
        config, progress = self.config, self.state.progress
        self._batches = self._read_batches()
        self.forward_model.train()
        stop = None
        while stop is None:
            epoch = self.state.sampler.position["epoch"]
            if self.state.sampler.position["micro_batch"] == 0:
                log_event("epoch_start", epoch=epoch, step=progress.step)
            try:
                report = self._step()
            except torch.OutOfMemoryError as error:
                log_event("out_of_memory", logging.ERROR, step=progress.step)
                raise TrainingError(
                    f"out of memory at step {progress.step + 1}; lower batch_size ({config.batch_size}) or raise "
                    f"accumulation_steps ({config.accumulation_steps}): {error}"
                ) from error
            self._unlogged.append(report)
            self.on_step_end()
            stop = self._reason_to_stop()
            if stop is not None or progress.step % config.log_every == 0:
                self._log_steps(epoch)
            if self.state.sampler.position["epoch"] > epoch:
                log_event("epoch_end", epoch=epoch, step=progress.step)
            is_signal = stop is not None and stop.startswith("SIG")
            val_loss = None
            # A signal leaves little time: the checkpoint comes first and alone.
            if not is_signal and (stop is not None or progress.step % config.eval_every == 0):
                val_loss = self.evaluate().loss
                if progress.evals_without_gain >= (config.patience or math.inf):
                    stop = stop or "patience"
            if stop is not None or progress.step % config.checkpoint_every == 0:
                self.save_checkpoint(val_loss, f"emergency: {stop}" if is_signal else (stop or "periodic"))
        return stop

    def evaluate(self) -> Evaluation:
        """Evaluate the averaged weights on the held-out sequences and log the result."""
        progress = self.state.progress
        with self.state.averaged.swapped_in(self.state.model):
            evaluation = evaluate(self.state.model, self.corpus.val, self.world, self.config.precision)
        progress.count_val_loss(evaluation.loss)
        self.last_evaluation = evaluation
        values = {**evaluation.as_metrics(), "time/elapsed_s": time.perf_counter() - self._started}
        self.metrics.write(progress.step, "val", values)
        log_event(
            "eval_end", step=progress.step, loss=evaluation.loss, bits_per_token=evaluation.bits_per_token
        )
        return evaluation

    def _step(self) -> StepReport:
        started = time.perf_counter()
        state, progress = self.state, self.state.progress
        batches = [next(self._batches) for _ in range(self.config.accumulation_steps)]
        data_s = time.perf_counter() - started
        num_tokens = int(self.world.sum(sum(int((targets != IGNORED).sum()) for _, targets in batches)))
        lr = float(state.scheduler.get_last_lr()[0])

        state.optimizer.zero_grad(set_to_none=True)
        loss = self._accumulate(batches, num_tokens)
        state.scaler.unscale_(state.optimizer)
        grad_norm = float(clip_grad_norm_(state.model.parameters(), self.config.optim.grad_clip))
        progress.step += 1
        if self.world.any(flag=not (math.isfinite(loss) and math.isfinite(grad_norm))):
            self._skip_step(loss, grad_norm)
        else:
            progress.nonfinite_in_a_row = 0
            progress.count_train_loss(loss)
            state.scaler.step(state.optimizer)
            state.scheduler.step()
            state.averaged.update(state.model)
        state.scaler.update()
        self.last_loss = loss
        return StepReport(loss, grad_norm, lr, num_tokens, data_s, time.perf_counter() - started)

    def _accumulate(self, batches: list[Batch], num_tokens: int) -> float:
        """Add up the gradients of all micro-batches; every token of the step weighs the same."""
        loss_sum = torch.zeros((), device=self.world.device)
        for index, (inputs_BT, targets_BT) in enumerate(batches):
            is_last = index + 1 == len(batches)
            with self._gradient_exchange(is_wanted=is_last):
                with autocast(self.world.device, self.config.precision):
                    logits_BTV = self.forward_model(inputs_BT)
                    loss = F.cross_entropy(
                        logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED
                    )
                # DDP averages gradients over the ranks, so each rank's share is scaled up by their number.
                weight = self.world.size * int((targets_BT != IGNORED).sum()) / num_tokens
                loss = loss * weight
                self.state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
        return self.world.sum(loss_sum.item()) / self.world.size

    def _gradient_exchange(self, *, is_wanted: bool) -> AbstractContextManager[None]:
        """Exchange gradients among the ranks in this backward pass, or leave it to a later one."""
        if isinstance(self.forward_model, DistributedDataParallel) and not is_wanted:
            return self.forward_model.no_sync()
        return nullcontext()

    def _skip_step(self, loss: float, grad_norm: float) -> None:
        """Leave weights and schedule as they are; too many such steps in a row end the run."""
        progress, limit = self.state.progress, self.config.max_nonfinite_steps
        progress.nonfinite_steps += 1
        progress.nonfinite_in_a_row += 1
        log_event("step_skipped", logging.WARNING, step=progress.step, loss=loss, grad_norm=grad_norm)
        if progress.nonfinite_in_a_row > limit:
            raise TrainingError(
                f"loss or gradient was not finite in {progress.nonfinite_in_a_row} steps in a row, up to step "
                f"{progress.step} (loss {loss}, gradient norm {grad_norm}); max_nonfinite_steps allows {limit}. "
                "Lower optim.lr, lengthen optim.warmup_fraction, or look at the batches of these steps"
            )

    def _read_batches(self) -> Iterator[Batch]:
        for batch in build_loader(self.corpus.train, self.state.sampler):
            inputs_BT, targets_BT = batch
            yield inputs_BT.to(self.world.device), targets_BT.to(self.world.device)

    def _reason_to_stop(self) -> str | None:
        """Why the run ends after this step, agreed among the ranks; None if it goes on."""
        if self.state.progress.step >= self.config.max_steps:
            return "max_steps"
        arrived = self.stop_request.signal
        if self.world.any(flag=arrived is not None):
            names = [name for name in self.world.gather(arrived.name if arrived else None) if name]
            log_event("stop_requested", logging.WARNING, signal=names[0], step=self.state.progress.step)
            return names[0]
        limit_s = self.config.max_duration_seconds
        is_over = limit_s is not None and time.perf_counter() - self._started >= limit_s
        return "max_duration" if self.world.any(flag=is_over) else None

    def _log_steps(self, epoch: int) -> None:
        """Write one row: the last step's loss; times are means over the steps since the last row."""
        steps, progress = self._unlogged, self.state.progress
        last = steps[-1]
        total_s = sum(step.step_s for step in steps)
        values = {
            "epoch": epoch,
            "train/loss": last.loss,
            "train/loss_smoothed": math.nan if progress.smoothed_loss is None else progress.smoothed_loss,
            "train/lr": last.lr,
            "train/grad_norm": last.grad_norm,
            "train/nonfinite_steps": progress.nonfinite_steps,
            "time/step_s": total_s / len(steps),
            "time/data_s": sum(step.data_s for step in steps) / len(steps),
            "time/elapsed_s": time.perf_counter() - self._started,
            "throughput/tokens_per_s": sum(step.num_tokens for step in steps) / total_s,
            "throughput/samples_per_s": self.config.batch_size * len(steps) / total_s,
            **_read_memory(self.world.device),
        }
        self.metrics.write(progress.step, "train", values)
        log_event(
            "train_step_end",
            step=progress.step,
            loss=last.loss,
            lr=last.lr,
            grad_norm=last.grad_norm,
            tokens_per_s=values["throughput/tokens_per_s"],
        )
        self._unlogged = []


def _read_memory(device: torch.device) -> dict[str, int]:
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    memory = {"memory/peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        memory["memory/allocated_bytes"] = torch.cuda.max_memory_allocated(device)
    return memory
