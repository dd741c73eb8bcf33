"""Profiles a few steps, or an evaluation, with torch.profiler and leaves a compressed trace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from reference_model.logs import log_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reference_model.config import Mode

_STEP_SCHEDULE = {"wait": 5, "warmup": 5, "active": 10}
_EVAL_SCHEDULE = {"wait": 0, "warmup": 1, "active": 2}
NUM_PROFILED_EVALUATIONS = sum(_EVAL_SCHEDULE.values())


@contextmanager
def profiled(mode: Mode, trace: Path) -> Iterator[Callable[[], None]]:
    """Give the function to call after each step: the profiler's in the profile modes, else an idle one.

    Args:
        mode: what the run is for.
        trace: where the trace goes; a name ending in .gz is compressed.
    """
    if mode not in {"profile_short", "profile_eval"}:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)

    def write_trace(profiler: profile) -> None:
        profiler.export_chrome_trace(str(trace))
        log_event("trace_saved", path=str(trace))

    steps = _STEP_SCHEDULE if mode == "profile_short" else _EVAL_SCHEDULE
    with profile(
        activities=activities, schedule=schedule(**steps, repeat=1), on_trace_ready=write_trace
    ) as profiler:
        yield profiler.step
