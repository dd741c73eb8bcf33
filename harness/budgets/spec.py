"""The budget a user sets: absolute limits and tolerances against a baseline, checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.arguments import MOST, check_names, check_number
from harness.baselines.pools import MAX_LAUNCHES
from harness.budgets.launches import LaunchPlan
from harness.budgets.metrics import (
    METRICS,
    NUM_KERNELS,
    OF_OPERATIONS,
    WALL_CLOCK,
    Metric,
    build_logged_metric,
)
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOLERANCE = 10.0
LOGGED = "logged"
PEAK = "peak_tflops"
LEAST_PEAK = 1e-6
LOGGED_SWITCHES = {"is_higher_better": False, "is_time": False}
LOGGED_ARGUMENTS = ("tolerance", "limit", *LOGGED_SWITCHES)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a test may cost.

    Attributes:
        limits: Absolute bounds by metric, in the metric's own unit; they hold on every machine.
        tolerances: Allowed change against the stored baseline by metric: 0.05 is 5 %.
        peak_tflops: The peak of the device in TFLOPS, for the utilization; None where its name tells.
        source: Where the values were set, for messages.
        place: Where they can be changed, for advice.
    """

    limits: dict[Metric, float]
    tolerances: dict[Metric, float]
    source: str
    place: str = "on the marker"
    peak_tflops: float | None = None

    @property
    def metrics(self) -> list[Metric]:
        """What has to be measured, each once."""
        return list(dict.fromkeys((*self.limits, *self.tolerances)))

    @property
    def compares_times(self) -> bool:
        """Whether any of it compares a time with those of other hours."""
        return any(metric.is_time for metric in self.tolerances)

    @property
    def counts_operations(self) -> bool:
        """Whether any of it is about what a step does, which has to be counted."""
        return any(metric in OF_OPERATIONS for metric in self.metrics)

    @property
    def counts_kernels(self) -> bool:
        """Whether any of it is about the kernels that a step launches, which takes a profiler."""
        return NUM_KERNELS in self.metrics

    @property
    def wall_clock_limit_s(self) -> float | None:
        """The absolute wall-clock limit in seconds; None when there is none."""
        return self.limits.get(WALL_CLOCK)


def parse_launches(arguments: Mapping[str, Any], *, source: str) -> tuple[dict[str, Any], LaunchPlan | None]:
    """Takes `launches` and `allowance_s` out of the arguments; None where a single launch is judged.

    Raises:
        UsageError: A value is not a number in its range.
    """
    bounds = dict(arguments)
    most = bounds.pop("launches", 1)
    allowance_s = bounds.pop("allowance_s", None)
    check_number("launches", most, source=source, least=1, most=MAX_LAUNCHES, whole=True)
    if allowance_s is not None:
        check_number("allowance_s", allowance_s, source=source, least=0)
        if most == 1:
            raise UsageError(
                f"{source}: allowance_s is the time for further launches, and there is one.\n"
                "Next: launches=5, allowance_s=120."
            )
    plan = LaunchPlan(most) if allowance_s is None else LaunchPlan(most, allowance_s)
    return bounds, plan if most > 1 else None


def _parse_logged(given: object, source: str) -> tuple[dict[Metric, float], dict[Metric, float]]:
    """Limits and tolerances on metrics of the program's own: `{"val_loss": 0.02}`, or a table of `LOGGED_ARGUMENTS`."""
    if not isinstance(given, dict) or not all(isinstance(name, str) and name for name in given):
        raise UsageError(
            f'{source}: {LOGGED}={given!r} must be a table.\nNext: {LOGGED}={{"val_loss": 0.02}} allows 2 %.'
        )
    limits: dict[Metric, float] = {}
    tolerances: dict[Metric, float] = {}
    for name, value in given.items():
        own = f"{source}: {LOGGED}[{name!r}]"
        table = value if isinstance(value, dict) else {"tolerance": value}
        check_names(f"{LOGGED}[{name!r}]", table, LOGGED_ARGUMENTS, source=source)
        switches = {key: table.get(key, default) for key, default in LOGGED_SWITCHES.items()}
        for key, is_set in switches.items():
            if not isinstance(is_set, bool):
                raise UsageError(f"{own}: {key}={is_set!r} must be True or False.\nNext: correct it.")
        metric = build_logged_metric(
            name, is_lower_better=not switches["is_higher_better"], is_time=switches["is_time"]
        )
        if "limit" in table:
            limits[metric] = check_number("limit", table["limit"], source=own, least=-MOST)
        if "tolerance" in table:
            tolerances[metric] = check_number(
                "tolerance", table["tolerance"], source=own, least=0, most=MAX_TOLERANCE
            )
        if not {"limit", "tolerance"} & {*table}:
            raise UsageError(f"{own} sets neither limit nor tolerance.\nNext: {{'tolerance': 0.02}}.")
    return limits, tolerances


def parse_budget(arguments: Mapping[str, Any], *, source: str) -> Budget:
    """A budget from keyword arguments such as `wall_clock_s=60, throughput=0.05`.

    Raises:
        UsageError: A name is unknown (the nearest is suggested), a value is not a number in its range, or
            there is nothing to judge.
    """
    by_limit = {metric.limit_name: metric for metric in METRICS}
    by_tolerance = {metric.tolerance_name: metric for metric in METRICS}
    check_names("budget", arguments, [*by_limit, *by_tolerance, LOGGED, PEAK], source=source)
    limits, tolerances = _parse_logged(arguments.get(LOGGED, {}), source)
    peak_tflops = arguments.get(PEAK)
    if peak_tflops is not None:
        check_number(PEAK, peak_tflops, source=source, least=LEAST_PEAK)
    for name, value in arguments.items():
        if name in (LOGGED, PEAK):
            continue
        number = check_number(name, value, source=source, least=0)
        if name in by_limit:
            limits[by_limit[name]] = number * by_limit[name].limit_scale
        elif number <= MAX_TOLERANCE:
            tolerances[by_tolerance[name]] = number
        else:
            raise UsageError(
                f"{source}: {name}={value!r} is a tolerance of {number:.0%}; at most {MAX_TOLERANCE:.0%} is "
                f"taken.\nNext: {name}=0.05 allows 5 %."
            )
    if not limits and not tolerances:
        raise UsageError(
            f"{source}: budget() sets nothing.\nNext: budget(wall_clock_s=60) or budget(throughput=0.05)."
        )
    return Budget(limits=limits, tolerances=tolerances, source=source, peak_tflops=peak_tflops)
