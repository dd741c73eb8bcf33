"""What to watch, how deep, and when to end the program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from harness.errors import UsageError


class Depth(StrEnum):
    """How much is looked at."""

    LIGHT = "light"
    """Every step: loss, learning rate, times, batch; the gradient norm where the program clips."""
    NORMS = "norms"
    """Light, and the gradient norm of every step."""
    DEEP = "deep"
    """Light, the order and a fingerprint of every batch, and in depth on the sampled steps."""


DEEP_STEPS = (0, 1, 10, 50, 200, 500, 1000)
MAX_KEPT_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class ObserverOptions:
    """How a program is watched."""

    depth: Depth = Depth.DEEP
    """How much is looked at; deep, because most faults do not show in the loss."""
    deep_steps: tuple[int, ...] = DEEP_STEPS
    """Steps watched in depth, from 0: dense at the start, where most faults show, then ever rarer."""
    max_steps: int | None = None
    """Optimizer steps after which the program is ended; None lets it run to its own end."""
    max_seconds: float | None = None
    """Seconds from the first step's end on, after which the program is ended; None sets no limit."""
    counted_steps: tuple[int, ...] = ()
    """Steps, from 1, of which the operations are counted; they are not timed, and none of them is deep."""
    counts_kernels: bool = False
    """Whether their kernel launches are counted too, where a GPU is used: PyTorch's profiler runs for them."""
    max_kept_steps: int = MAX_KEPT_STEPS
    """Steps kept in memory; beyond, the middle of the run is dropped."""
    traced_steps: int = 0
    """First steps of which a trace is taken, to compare two runs by; none unless they are compared."""

    def __post_init__(self) -> None:
        if self.max_steps is not None and self.max_steps < 1:
            raise UsageError(
                f"max_steps is {self.max_steps}; it must be at least 1.\nNext: give a number of steps."
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise UsageError(f"max_seconds is {self.max_seconds}; it must be positive.\nNext: give seconds.")

    def to_json(self) -> dict[str, Any]:
        """The options as a JSON object."""
        lists = {"deep_steps": list(self.deep_steps), "counted_steps": list(self.counted_steps)}
        return asdict(self) | {"depth": str(self.depth)} | lists

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The options that `to_json` wrote."""
        lists = {
            name: tuple(int(step) for step in value.get(name, ())) for name in ("deep_steps", "counted_steps")
        }
        return cls(**{**value, "depth": Depth(value["depth"]), **lists})


OFF = "off"
LIMITS_NEED_WATCHING = (
    "max_steps and max_seconds count what is watched, and watching is off.\nNext: --harness-watch=light."
)


def build_observer_options(
    depth: str, *, max_steps: int | None = None, max_seconds: float | None = None, traced_steps: int = 0
) -> ObserverOptions | None:
    """The options for a depth by name; None for `off`.

    Raises:
        UsageError: A limit is not above 0, or is set although nothing is watched.
    """
    if depth == OFF and (max_steps is not None or max_seconds is not None):
        raise UsageError(LIMITS_NEED_WATCHING)
    if depth == OFF:
        return None
    return ObserverOptions(
        depth=Depth(depth), max_steps=max_steps, max_seconds=max_seconds, traced_steps=traced_steps
    )


def lighten(options: ObserverOptions | None) -> ObserverOptions | None:
    """The same limits at the least depth, for a run whose trace should show the program alone."""
    return None if options is None else replace(options, depth=Depth.LIGHT)
