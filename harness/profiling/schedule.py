"""When a capture is made and which steps it takes: the marker's arguments and the gate, without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.arguments import check_names, check_number

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class CaptureSchedule:
    """Which optimizer steps a profiler takes, and what may be kept of them.

    Attributes:
        wait: Steps passed over first.
        warmup: Steps traced and thrown away, so that the profiler's own start-up is not in the trace.
        active: Steps kept.
        max_mb: Largest trace that is kept, compressed, in MiB; a larger one is dropped and told.
        keep: How many traces stay in a folder; older ones are removed.
    """

    wait: int = 1
    warmup: int = 1
    active: int = 3
    max_mb: float = 50.0
    keep: int = 5

    @property
    def num_steps(self) -> int:
        """Steps a run must have for the capture to be whole."""
        return self.wait + self.warmup + self.active


def parse_schedule(arguments: Mapping[str, Any], *, source: str) -> CaptureSchedule:
    """A schedule from keyword arguments such as `wait=1, warmup=1, active=3`.

    Raises:
        UsageError: A name is unknown or a value is out of range.
    """
    check_names(
        "profile_capture", arguments, [field.name for field in fields(CaptureSchedule)], source=source
    )
    for name, value in arguments.items():
        least = 0 if name in ("wait", "warmup", "max_mb") else 1
        check_number(name, value, source=source, least=least, whole=name != "max_mb")
    return CaptureSchedule(**arguments)


def explain_no_capture(mode: str, *, has_gpu: bool) -> str | None:
    """Why no capture is made in a mode (`auto`, `always`, `never`); None when one is made."""
    if mode == "never":
        return "captures are off (--harness-profile=never)"
    if mode == "auto" and not has_gpu:
        return "not a GPU runner; --harness-profile=always captures here too"
    return None
