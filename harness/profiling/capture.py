"""Captures a few optimizer steps of a training with torch.profiler."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import clock
from harness.errors import ObservationError
from harness.profiling.retention import keep_newest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.profiling.schedule import CaptureSchedule

TRACE_PATTERN = "harness-*.json.gz"
MIB = 2**20


@dataclass(slots=True)
class Capture:
    """What a capture came to: the trace, or why there is none."""

    trace: Path | None = None
    note: str = ""


@contextlib.contextmanager
def capture_steps(schedule: CaptureSchedule, folder: Path) -> Iterator[Capture]:
    """Profiles the scheduled optimizer steps of the block and writes a compressed Chrome trace.

    A step ends when the first optimizer that stepped in the block steps again, so that a program with two
    optimizers is counted once an iteration. The trace is written when the block ends without an exception.

    Args:
        schedule: Which steps, and the limits on size and number.
        folder: Where the trace goes; made when there is one.

    Yields:
        A `Capture`, filled in when the block ends.

    Raises:
        ObservationError: The program made fewer optimizer steps than the schedule takes.
    """
    import torch  # noqa: PLC0415  imported late
    from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: PLC0415
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415
    from torch.profiler import schedule as make_schedule  # noqa: PLC0415

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    capture = Capture()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Profiler won't be using warmup")  # warmup=0 was asked for
        steps = make_schedule(wait=schedule.wait, warmup=schedule.warmup, active=schedule.active, repeat=1)
    profiler = profile(
        activities=activities,
        schedule=steps,
        on_trace_ready=lambda ready: _export(ready, schedule, folder, capture),
        acc_events=True,
    )
    leader: list[object] = []

    def end_step(optimizer: object, _args: Any, _kwargs: Any) -> None:
        if not leader:
            leader.append(optimizer)
        if optimizer is leader[0]:
            counted.append(None)
            profiler.step()

    counted: list[None] = []
    hook = register_optimizer_step_post_hook(end_step)
    try:
        with profiler:
            yield capture
    finally:
        hook.remove()
    if len(counted) < schedule.num_steps:
        raise ObservationError(
            f"the capture takes {schedule.num_steps} optimizer steps (wait {schedule.wait}, warm-up "
            f"{schedule.warmup}, active {schedule.active}), the program made {len(counted)}.\n"
            "Next: train more steps, or shorten it: @pytest.mark.profile_capture(wait=0, warmup=1, active=1)."
        )


def _export(profiler: Any, schedule: CaptureSchedule, folder: Path, capture: Capture) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = clock.now_utc().replace(":", "").replace("+0000", "Z")
    number = len(list(folder.glob(TRACE_PATTERN)))
    plain = folder / f"harness-{stamp}-{number}.json"
    profiler.export_chrome_trace(str(plain))
    packed = plain.with_suffix(".json.gz")
    with plain.open("rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    plain.unlink()
    size_mb = packed.stat().st_size / MIB
    if size_mb > schedule.max_mb:
        packed.unlink()
        capture.note = (
            f"trace dropped: {size_mb:.1f} MiB compressed, at most {schedule.max_mb:g} are kept; "
            "take fewer active steps or raise max_mb"
        )
        return
    capture.trace = packed
    keep_newest(folder, TRACE_PATTERN, schedule.keep)
