"""The `record(step=..., loss=...)` callback that a program may call, and the step times read off it."""

from __future__ import annotations

from harness import clock
from harness.errors import UsageError
from harness.record.history import as_number
from harness.record.run import Step, find_step_time


class Recorder:
    """Collects steps from a callback; the time between two calls is the time of the steps between them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._last_call_s: float | None = None

    def start(self) -> None:
        """Forgets earlier steps and starts the clock of the first one."""
        self.steps = []
        self._last_call_s = clock.monotonic_s()

    def record(self, step: int | None = None, **metrics: object) -> None:
        """Records one step, called by the user's program.

        Args:
            step: The program's step number, rising from call to call; the call's position when left out.
            metrics: Numbers or one-element tensors by name: `loss` and whatever else is worth keeping.
                `num_samples` and `num_tokens` (per step) turn steps per second into a throughput.

        Raises:
            UsageError: A value is not a number, nothing was given, or the step is not whole or does not rise.
        """
        now_s = clock.monotonic_s()
        values: dict[str, float] = {}
        for name, value in metrics.items():
            number = as_number(value)
            if number is None:
                raise UsageError(
                    f"record({name}=...) got {type(value).__name__}, which is not one number.\n"
                    f"Next: pass a float or a one-element tensor, for example {name}={name}.item()."
                )
            values[name] = number
        if not values:
            raise UsageError("record() got no metric.\nNext: record(step=step, loss=loss.item()).")
        previous = self.steps[-1].step if self.steps else None
        number_of_step = _read_step(step, default=0 if previous is None else previous + 1)
        if previous is not None and number_of_step <= previous:
            raise UsageError(
                f"record(step={number_of_step}) came after step {previous}; step numbers must rise.\n"
                "Next: record each step once, or leave step out to have the calls numbered."
            )
        time_s = find_step_time(values)
        if time_s is None and self._last_call_s is not None:
            passed = 1 if previous is None else number_of_step - previous
            time_s = (now_s - self._last_call_s) / passed
        self.steps.append(Step(step=number_of_step, metrics=values, time_s=time_s))
        self._last_call_s = now_s


def _read_step(step: object, *, default: int) -> int:
    if step is None:
        return default
    number = as_number(step)
    if number is None or not number.is_integer():
        raise UsageError(
            f"record(step={step!r}) is not a whole number.\n"
            "Next: pass the step's number, or leave it out to have the calls numbered."
        )
    return int(number)
