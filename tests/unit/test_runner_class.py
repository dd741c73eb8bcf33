from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.environment import derive_runner_class, slug

if TYPE_CHECKING:
    from harness.record.environment import Environment

CUDA: dict[str, Any] = {"gpus": ("NVIDIA H200", "NVIDIA H200"), "cuda": "12.8"}


def test_the_class_of_a_cpu_runner_names_what_its_clock_depends_on(environment: Environment) -> None:
    assert (
        derive_runner_class(environment, device="cpu", threads=1)
        == "cpu-fast-cpu-f6m85-2c-torch2.13-py3.11-1t"
    )


def test_the_class_of_a_gpu_runner_names_gpu_count_and_cuda(environment: Environment) -> None:
    derived = derive_runner_class(replace(environment, **CUDA), device="cuda", threads=None)
    assert derived == "cuda-nvidia-h200-2x-cu12.8-torch2.13-py3.11"


@pytest.mark.parametrize(
    "change", [{"cpu": "Slow"}, {"num_cpus": 4}, {"torch": "2.14.0"}, {"python": "3.12.1"}], ids=str
)
def test_a_change_that_moves_the_clock_changes_the_class(
    environment: Environment, change: dict[str, Any]
) -> None:
    before = derive_runner_class(environment, device="cpu", threads=1)
    assert derive_runner_class(replace(environment, **change), device="cpu", threads=1) != before
    assert derive_runner_class(environment, device="cpu", threads=2) != before


@pytest.mark.parametrize(
    "change",
    [{"host": "b"}, {"commit": None}, {"torch": "2.13.1"}, {"python": "3.11.4"}, {"packages": {"a": "1"}}],
)
def test_a_change_that_leaves_the_clock_alone_keeps_the_class(
    environment: Environment, change: dict[str, Any]
) -> None:
    before = derive_runner_class(environment, device="cpu", threads=1)
    assert derive_runner_class(replace(environment, **change), device="cpu", threads=1) == before


def test_a_slug_keeps_letters_digits_dots_and_underscores() -> None:
    assert slug("AMD EPYC(tm) 7B13/64_v1.5-") == "amd-epyc-tm-7b13-64_v1.5"
