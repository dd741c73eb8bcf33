"""Made trajectories: a little training of three tensors, and what becomes of it where something is changed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from harness.baselines.trajectory import (
    DeepPoint,
    InputPoint,
    LossPoint,
    Phase,
    TensorPoint,
    TracePoint,
    Trajectory,
)

NAMES = ("0.weight", "0.bias", "1.weight")
SHAPES = {"0.weight": "4x8 float32", "0.bias": "4 float32", "1.weight": "2x4 float32"}
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"loader 0 dataset": "Texts", "loader 0 batch_size": 4, "loader 0 order of pass 1": "aaaa/24"},
    "RNG": {"seed": 0},
    "initialisation": dict(SHAPES),
    "forward": {"0": "Linear(8, 4)", "1": "Linear(4, 2)", "precision: autocast": "off"},
    "loss": {"cross_entropy 0": "reduction=mean", "micro-batches": 1},
    "clipping": {"clipping": "norm to 1"},
    "optimizer": {"optimizer 0": "AdamW", "optimizer 0 group 0 betas": [0.9, 0.999]},
    "schedule": {"optimizer 0 group 0 learning rate": 0.1, "scheduler 0": "LambdaLR"},
}


def make_trajectory(num_steps: int = 8, **changes: Any) -> Trajectory:
    """A training whose loss falls by a tenth in every step, watched in depth in steps 0 and 1."""
    made = Trajectory(
        test="test_training",
        numerics_class="one",
        points=tuple(make_point(step) for step in range(num_steps)),
        deep=(make_deep(0), make_deep(1)),
        settings={phase: dict(found) for phase, found in SETTINGS.items()},
        parameters=(NAMES,),
        machine={"torch": "2.13.0", "cpu": "Fast CPU"},
    )
    return replace(made, **changes)


def make_point(step: int) -> TracePoint:
    return TracePoint(
        step=step,
        loss=3.0 * 0.9**step,
        learning_rates=(0.1 * (1 - step / 20),),
        grad_norm=2.0,
        clipped_norm=1.0,
        update_norm=0.1,
        shapes="4x8",
        batch=f"{step:08x} {step:08x}",
        generators={"python": "0p", "numpy": "0n", "torch": f"{step}t"},
        gradients=("aa", "bb", f"{step % 10}c"),
        updates=("dd", "ee", f"{step % 10}f"),
    )


def make_deep(step: int) -> DeepPoint:
    return DeepPoint(
        step=step,
        inputs=(InputPoint("4x8", "float32", -1.0, 1.0, 0.0, 0.5),),
        outputs={"0": f"{step}0", "1": f"{step}1", "Net": f"{step}2"},
        losses=(LossPoint("cross_entropy", 3.0 * 0.9**step, 1.0, f"{step}i", f"{step}t"),),
        tensors=(
            TensorPoint("0.weight", f"{step}w", 1.6, 0.5, 0.05),
            TensorPoint("0.bias", f"{step}b", 0.4, 0.5, 0.05),
            TensorPoint("1.weight", f"{step}v", 0.8, math.sqrt(0.5), 0.07),
        ),
    )


def alter(trajectory: Trajectory, start: int = 0, end: int | None = None, **values: Any) -> Trajectory:
    """The trajectory with other values in its steps from `start` up to `end`; callables get the value before."""
    points = [
        replace(point, **{name: _apply(value, getattr(point, name)) for name, value in values.items()})
        if start <= index and (end is None or index < end)
        else point
        for index, point in enumerate(trajectory.points)
    ]
    return replace(trajectory, points=tuple(points))


def alter_deep(trajectory: Trajectory, step: int = 0, **values: Any) -> Trajectory:
    """The trajectory with other values in a step watched in depth."""
    deep = [
        replace(found, **{name: _apply(value, getattr(found, name)) for name, value in values.items()})
        if found.step == step
        else found
        for found in trajectory.deep
    ]
    return replace(trajectory, deep=tuple(deep))


def alter_tensors(trajectory: Trajectory, *names: str, step: int = 0, **values: Any) -> Trajectory:
    """The trajectory with other values for some tensors of a step watched in depth."""

    def change(tensors: tuple[TensorPoint, ...]) -> tuple[TensorPoint, ...]:
        return tuple(
            replace(tensor, **{name: _apply(value, getattr(tensor, name)) for name, value in values.items()})
            if tensor.name in names
            else tensor
            for tensor in tensors
        )

    return alter_deep(trajectory, step, tensors=change)


def set_up(trajectory: Trajectory, phase: Phase, **values: Any) -> Trajectory:
    """The trajectory with other settings; None takes the setting away."""
    found = {**trajectory.settings.get(phase, {}), **values}
    kept = {name: value for name, value in found.items() if value is not None}
    return replace(trajectory, settings={**trajectory.settings, str(phase): kept})


def move_on(trajectory: Trajectory, start: int = 0) -> Trajectory:
    """The trajectory with another loss, gradients and updates from a step on, as any change leads to."""
    moved = alter(
        trajectory,
        start,
        loss=lambda loss: loss * 1.01,
        grad_norm=lambda norm: norm and norm * 1.1,
        gradients=("xx", "yy", "zz"),
        updates=("uu", "vv", "ww"),
        update_norm=lambda norm: norm * 1.1,
    )
    for deep in moved.deep:
        if deep.step >= start:
            moved = alter_deep(
                moved,
                deep.step,
                outputs=lambda outputs: {name: f"{output}x" for name, output in outputs.items()},
                losses=lambda losses: tuple(
                    replace(call, inputs=f"{call.inputs}x", value=call.value * 1.01) for call in losses
                ),
            )
            if deep.step > start:
                moved = alter_tensors(moved, *NAMES, step=deep.step, contents=lambda mark: f"{mark}x")
    return moved


def _apply(value: Any, before: Any) -> Any:
    return value(before) if callable(value) else value
