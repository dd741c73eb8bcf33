"""The trajectory of a little program, watched and built as that of a run that is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.baselines.building import TRACED_STEPS, build_trajectory
from harness.watch.launch import Cost, Logged, RunOptions, build_run
from harness.watch.observer import observe_call
from harness.watch.options import ObserverOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    from harness.baselines.trajectory import Trajectory

    Config = TypeVar("Config")


def record(folder: Path, config: Config, program: Callable[[Config], None]) -> Trajectory:
    _, observed = observe_call(program, [config], options=ObserverOptions(traced_steps=TRACED_STEPS))
    run = build_run(RunOptions("train()", folder), Logged([], ""), [observed], Cost(1.0, None, None))
    return build_trajectory(run, test="test_train")
