"""Records as pandas frames; the one file of this floor that imports pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from harness.record.run import Step


def build_frame(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per step, indexed by `step`, one float column per metric, and `time_s` where it was seen.

    A metric that a step did not log is NaN in its row. No steps give an empty frame.

    Raises:
        UsageError: pandas is not installed.
    """
    __tracebackhide__ = True
    try:
        import pandas as pd  # noqa: PLC0415  imported late: 200 ms
    except ImportError as error:
        raise UsageError(
            "run.frame() needs pandas, which is not installed.\n"
            "Next: pip install 'pytest-training-harness[frames]'"
        ) from error
    rows = [{**step.metrics, **({} if step.time_s is None else {"time_s": step.time_s})} for step in steps]
    return pd.DataFrame(rows, index=pd.Index([step.step for step in steps], name="step"), dtype=float)
