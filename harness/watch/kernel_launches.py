"""Counts the kernels that one step launches on its GPU, by what PyTorch's profiler is told by the driver's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import profiler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.watch.taps import TapSet

LAUNCHES = frozenset(
    {
        *("cudaLaunchKernel", "cudaLaunchKernelExC", "cudaLaunchCooperativeKernel", "cudaGraphLaunch"),
        *("cuLaunchKernel", "cuLaunchKernelEx", "cuLaunchCooperativeKernel", "cuGraphLaunch"),
        *("hipLaunchKernel", "hipExtLaunchKernel", "hipLaunchCooperativeKernel", "hipGraphLaunch"),
        *("hipModuleLaunchKernel", "hipExtModuleLaunchKernel", "hipHccModuleLaunchKernel"),
    }
)
"""Calls of CUDA's and HIP's runtime and driver that launch a kernel, or a graph of kernels, which counts as one."""


def count_launches(names: Iterable[str]) -> int:
    """How many of the calls launch kernels; some versions have a suffix, as in `cudaLaunchKernel_v7000`."""
    return sum(name.partition("_")[0] in LAUNCHES for name in names)


class KernelLaunches:
    """Profiles from `open` to `close`, until the program has a profiler of its own: there can be only one.

    Args:
        taps: Those of the observer, for noticing that profiler.
    """

    def __init__(self, taps: TapSet) -> None:
        self._profile: Any = None
        # Asked for by its private name: a second profiler would end the first.
        self._has_given_way = bool(torch._C._autograd._profiler_enabled())  # noqa: SLF001
        taps.on_method(profiler.profile, "_prepare_trace", self._around_prepare)

    def open(self) -> bool:
        """Starts to count; False where the program has, or had, a profiler of its own."""
        if self._has_given_way:
            return False
        device = "cuda" if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        # Without the operations there are no calls of the runtime either.
        self._profile = profiler.profile(use_cpu=True, use_device=device)
        self._profile.__enter__()
        return True

    def close(self) -> int | None:
        """Stops, and gives the number of launches; None where the program has begun to profile meanwhile."""
        profile = self._end()
        return None if profile is None else count_launches(event.name for event in profile.function_events)

    def _around_prepare(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args[0] is not self._profile:
            self._has_given_way = True
            self._end()
        return call(*args, **kwargs)

    def _end(self) -> Any:
        """The profile, which ends now; None where there is none any more."""
        profile, self._profile = self._profile, None
        if profile is not None:
            profile.__exit__(None, None, None)
        return profile
