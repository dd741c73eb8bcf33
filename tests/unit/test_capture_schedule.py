from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.profiling.schedule import CaptureSchedule, explain_no_capture, parse_schedule

SOURCE = "the marker"


def test_a_schedule_counts_the_steps_it_takes() -> None:
    schedule = parse_schedule({"wait": 0, "active": 2}, source=SOURCE)
    assert schedule == CaptureSchedule(wait=0, warmup=1, active=2)
    assert schedule.num_steps == 3


@pytest.mark.parametrize(
    "arguments",
    [{"active": 0}, {"keep": 0}, {"wait": -1}, {"warmup": 1.5}, {"active": True}, {"max_mb": "5"}],
)
def test_a_value_out_of_range_is_misuse(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"{SOURCE}: {next(iter(arguments))}=.* must be a "):
        parse_schedule(arguments, source=SOURCE)


def test_an_unknown_argument_is_misuse_with_the_nearest_name() -> None:
    with pytest.raises(
        UsageError, match=r"profile_capture has no argument 'warm_up' \(did you mean 'warmup'\?\)"
    ):
        parse_schedule({"warm_up": 1}, source=SOURCE)


@pytest.mark.parametrize(
    ("mode", "has_gpu", "told"),
    [
        ("auto", True, None),
        ("auto", False, "not a GPU runner; --harness-profile=always captures here too"),
        ("always", False, None),
        ("never", True, "captures are off (--harness-profile=never)"),
    ],
)
def test_a_capture_is_made_on_gpu_runners_unless_the_mode_says_otherwise(
    mode: str, has_gpu: bool, told: str | None
) -> None:
    assert explain_no_capture(mode, has_gpu=has_gpu) == told
