"""Clipping, on records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.optimizer_observation import ScalerObservation
from harness.record.step_observation import ClippingCall
from tests.unit.rules.gradient_records import find, make_observation, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]


def clip(**changes: Any) -> dict[str, Any]:
    call = ClippingCall("norm", 0.5, norm=1.0, num_gradients=4, num_micro_batches=1)
    return {"step": {"clipping": [replace(call, **changes)]}, "deep": {"grad_norm": 0.5}}


def test_clipping_right_before_the_step_is_silent(make_run: MakeRun) -> None:
    assert find(make_run, make_observation(**clip())) == []


def test_clipping_before_unscaling_is_an_error(make_run: MakeRun) -> None:
    observed = make_observation(**clip(is_before_unscale=True, norm=1024.0))
    observed.scaler = ScalerObservation(12, last_scale=1024.0)
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T421", "error")]
    assert "12 of 12 steps" in finding.message
    asks_only = make_observation(**clip(is_before_unscale=True, max_norm=float("inf")))
    assert find(make_run, asks_only) == []


def test_clipping_before_the_last_backward_is_told_but_not_of_several_optimizers(make_run: MakeRun) -> None:
    early = clip(num_micro_batches=0)
    early["deep"] = {}
    assert tell(find(make_run, make_observation(**early))) == [("T422", "warning")]
    assert find(make_run, make_observation(**early, optimizers=2)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_gradients": 0, "norm": 0.0}, [("T423", "warning")]),
        ({"num_gradients": 1, "norm": 0.1}, [("T423", "warning")]),
        ({"num_gradients": 3, "norm": 0.9}, [("T423", "note")]),
        ({"num_gradients": None}, []),
    ],
)
def test_clipping_must_cover_the_gradients(
    make_run: MakeRun, changes: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    assert tell(find(make_run, make_observation(**clip(**changes)))) == told


def test_a_gradient_that_grows_after_clipping_is_told(make_run: MakeRun) -> None:
    observed = make_observation(**{**clip(), "deep": {"grad_norm": 2.0}})
    (finding,) = find(make_run, observed)
    assert tell([finding]) == [("T424", "warning")]
    assert "norm 2 at step 0, though clipping left 0.5" in finding.message


@pytest.mark.parametrize(
    ("norm", "bound", "severity"), [(500.0, 1.0, "note"), (1.0, 1e-3, "warning"), (50.0, 1.0, None)]
)
def test_clipping_to_next_to_nothing_is_told(
    make_run: MakeRun, norm: float, bound: float, severity: str | None
) -> None:
    observed = make_observation(**{**clip(norm=norm, max_norm=bound), "deep": {"grad_norm": bound}})
    assert tell(find(make_run, observed)) == ([] if severity is None else [("T425", severity)])
