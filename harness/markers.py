"""What the markers `smoke_training` and `gpu` ask for, checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.arguments import check_names, check_number, check_text
from harness.errors import UsageError
from harness.selection import ARGUMENTS as RULE_ARGUMENTS
from harness.selection import RuleSelection

if TYPE_CHECKING:
    from collections.abc import Mapping

DEVICES = ("cpu", "cuda")
TRAINING_ARGUMENTS = (
    "devices",
    "seed",
    "max_steps",
    "max_seconds",
    "metrics",
    "loss",
    "baseline",
    *RULE_ARGUMENTS,
)
GPU_ARGUMENTS = ("count", "memory_gb", "name")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """The arguments of `@pytest.mark.smoke_training`.

    Attributes:
        devices: Devices the test runs on, one after the other; empty runs it once, on the CPU.
        seed: Seed set before a called function; None leaves the generators alone.
        max_steps: Optimizer steps after which the program is ended from outside.
        max_seconds: Seconds of training after which it is.
        metrics: Glob of the metrics file under the run directory.
        loss: Name of the metric that is the training loss.
        has_baseline: Whether its runs are compared with their stored trajectories.
        selection: Which rules its runs are judged by.
    """

    devices: tuple[str, ...] = ()
    seed: int | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    metrics: str | None = None
    loss: str | None = None
    has_baseline: bool = False
    selection: RuleSelection = field(default_factory=RuleSelection)


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """The arguments of `@pytest.mark.gpu`: how many GPUs, with how much memory in GiB, named how."""

    count: int = 1
    memory_gb: float = 0.0
    name: str = ""


def parse_training(arguments: Mapping[str, Any], *, source: str) -> TrainingRequest:
    """The request in a marker's keyword arguments.

    Raises:
        UsageError: A name is unknown or a value can't be used.
    """
    check_names("smoke_training", arguments, TRAINING_ARGUMENTS, source=source)
    devices = arguments.get("devices")
    devices = () if devices is None else devices
    if not isinstance(devices, (list, tuple)) or not all(device in DEVICES for device in devices):
        raise UsageError(
            f'{source}: devices={devices!r} must be a list of "cpu" and "cuda".\n'
            'Next: devices=["cpu", "cuda"] runs the test on both, and skips "cuda" without a GPU.'
        )
    seed = arguments.get("seed")
    if seed is not None:
        check_number("seed", seed, source=source, least=0, most=MAX_SEED, whole=True)
    limits = {
        name: arguments[name] for name in ("max_steps", "max_seconds") if arguments.get(name) is not None
    }
    if "max_steps" in limits:
        check_number("max_steps", limits["max_steps"], source=source, least=1, whole=True)
    if "max_seconds" in limits:
        check_number("max_seconds", limits["max_seconds"], source=source, least=0.001)
    texts = {name: arguments[name] for name in ("metrics", "loss") if arguments.get(name) is not None}
    for name, value in texts.items():
        check_text(name, value, source=source)
    has_baseline = arguments.get("baseline", False)
    if not isinstance(has_baseline, bool):
        raise UsageError(
            f"{source}: baseline={has_baseline!r} must be True or False.\n"
            "Next: baseline=True compares each run with the stored trajectory of this test."
        )
    return TrainingRequest(
        devices=tuple(devices),
        seed=seed,
        has_baseline=has_baseline,
        selection=RuleSelection.parse(arguments, source=source),
        **limits,
        **texts,
    )


def parse_gpu(arguments: Mapping[str, Any], *, source: str) -> GpuRequest:
    """The request in a marker's keyword arguments.

    Raises:
        UsageError: A name is unknown or a value can't be used.
    """
    check_names("gpu", arguments, GPU_ARGUMENTS, source=source)
    return GpuRequest(
        count=int(check_number("count", arguments.get("count", 1), source=source, least=1, whole=True)),
        memory_gb=check_number("memory_gb", arguments.get("memory_gb", 0), source=source, least=0),
        name=check_text("name", arguments["name"], source=source) if "name" in arguments else "",
    )
