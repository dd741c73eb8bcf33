from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.markers import GpuRequest, TrainingRequest, parse_gpu, parse_training

SOURCE = "@pytest.mark.x on test_a"


@pytest.mark.parametrize("arguments", [{}, {"devices": None, "seed": None, "metrics": None, "loss": None}])
def test_a_bare_marker_asks_for_nothing_special(arguments: dict[str, object]) -> None:
    assert parse_training(arguments, source=SOURCE) == TrainingRequest()


def test_a_full_marker_is_taken_over() -> None:
    arguments = {"devices": ["cpu", "cuda"], "seed": 3, "metrics": "*.csv", "loss": "ce"} | {
        "max_steps": 30,
        "max_seconds": 9.5,
    }
    assert parse_training(arguments, source=SOURCE) == TrainingRequest(
        ("cpu", "cuda"), 3, 30, 9.5, "*.csv", "ce"
    )


@pytest.mark.parametrize("devices", ["cpu", ["gpu"], ["cuda:0"], [["cpu"]], 5, {"cpu": 1}])
def test_devices_other_than_a_list_of_cpu_and_cuda_are_misuse(devices: object) -> None:
    with pytest.raises(UsageError, match=f"(?s)^{SOURCE}: devices=.* must be a list of .*Next:"):
        parse_training({"devices": devices}, source=SOURCE)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True, 2**63, 10**400])
def test_a_seed_that_torch_can_not_take_is_misuse(seed: object) -> None:
    with pytest.raises(UsageError, match="must be a whole number of at least 0 and at most"):
        parse_training({"seed": seed}, source=SOURCE)


@pytest.mark.parametrize("name", ["metrics", "loss"])
@pytest.mark.parametrize("value", ["", 3, ["*.csv"]])
def test_a_name_that_is_no_text_is_misuse(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}=.* must be text"):
        parse_training({name: value}, source=SOURCE)


def test_an_unknown_argument_is_misuse_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError,
        match=r"(?s)no argument 'zzz'\.\nNext: use devices, seed, max_steps, max_seconds, metrics, loss",
    ):
        parse_training({"zzz": 1}, source=SOURCE)


def test_a_gpu_marker_is_taken_over() -> None:
    assert parse_gpu({}, source=SOURCE) == GpuRequest(1, 0.0, "")
    assert parse_gpu({"count": 2, "memory_gb": 40.5, "name": "H200"}, source=SOURCE) == GpuRequest(
        2, 40.5, "H200"
    )


@pytest.mark.parametrize(
    "arguments", [{"count": 0}, {"count": 1.5}, {"memory_gb": -1}, {"name": 3}, {"names": "a"}]
)
def test_a_gpu_marker_out_of_range_is_misuse(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=SOURCE):
        parse_gpu(arguments, source=SOURCE)
