"""The trajectory of a run, from its record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.building import (
    MAX_TENSOR_FINGERPRINTS,
    STEPS_BY_TENSOR,
    build_trajectory,
)
from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.deep_building import MAX_STILL, number_again
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_store import parse_trajectory, render_trajectory
from harness.errors import ObservationError
from harness.record.deep import (
    DeepObservation,
    ModuleObservation,
    ParameterObservation,
    StillParameter,
)
from harness.record.limit import MAX_SECONDS, Limit
from harness.record.loader_observation import LoaderObservation
from harness.record.numerics import derive_numerics_class, describe_machine
from harness.record.observation import RunObservation
from harness.record.optimizer_observation import OptimizerGroup, OptimizerObservation
from harness.record.run import Step
from harness.record.step_observation import ClippingCall, StepObservation
from harness.record.trace import StepTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.trajectory import TensorPoint
    from harness.record.run import TrainingRun


def observe(num_steps: int = 3, num_tensors: int = 2, **changes: Any) -> RunObservation:
    names = [f"layer.{index}" for index in range(num_tensors)]
    steps = [
        StepObservation(
            step,
            loss=3.0 - step,
            optimizers=[0],
            learning_rates=[[0.1]],
            batch_shapes=[[(8, 4)], [(8, 4)]],
            num_micro_batches=2,
            trace=StepTrace(
                generators={"torch": "aa"},
                given="bb",
                called_with=["cc", "dd"],
                gradients=[[3.0, None, *[0.0] * (num_tensors - 2)]],
                updates=[[4.0, 3.0, *[0.0] * (num_tensors - 2)]],
            ),
        )
        for step in range(num_steps)
    ]
    made = RunObservation(
        steps=steps, optimizers=[OptimizerObservation("SGD", [OptimizerGroup({"lr": 0.1}, names, 10)])]
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def build(make_run: Callable[..., TrainingRun], observed: RunObservation, **changes: Any) -> Any:
    steps = [Step(step.step, {} if step.loss is None else {"loss": step.loss}) for step in observed.steps]
    return build_trajectory(make_run(steps=steps, observed=observed, **changes), test="it")


def test_how_a_run_was_ended_is_kept(make_run: Callable[..., TrainingRun]) -> None:
    limit = Limit(MAX_SECONDS, 3.0, 5)
    made = build(make_run, observe(ended_by=limit))
    assert made.ended_by == limit
    assert parse_trajectory(render_trajectory(made), "").ended_by == limit


def test_threads_at_the_start_are_kept_also_where_the_steps_have_as_many(
    make_run: Callable[..., TrainingRun],
) -> None:
    for before in ("2", "1"):
        seen = observe(numerics={"machine": {"threads": "1"}, "start": {"threads": before}})
        assert build(make_run, seen).threads_at_start == before
    assert build(make_run, observe()).threads_at_start == ""


def test_a_point_holds_the_numbers_of_its_step(make_run: Callable[..., TrainingRun]) -> None:
    (point, *_) = build(make_run, observe()).points
    assert (point.loss, point.learning_rates, point.shapes) == (3.0, (0.1,), "2 of 8x4")
    assert (point.grad_norm, point.clipped_norm, point.update_norm) == (3.0, 3.0, 5.0)
    assert point.gradients[1] == "--"
    assert point.batch.startswith("bb ")
    assert len(point.updates) == 2


def test_the_norm_of_the_parameters_is_the_same_in_whatever_order_and_tells_small_changes(
    make_run: Callable[..., TrainingRun],
) -> None:
    observed = observe()
    for step, row in zip(observed.steps, ([3.0, 4.0], [4.0, 3.0], [4.00001, 3.0]), strict=True):
        assert step.trace is not None
        step.trace.weights, step.trace.num_eval_calls = [list(row)], step.step
    points = build(make_run, observed).points
    assert [point.weight_norm for point in points] == [5.0, 5.0, 5.000008]
    assert [point.num_eval_calls for point in points] == [0, 1, 2]
    assert build(make_run, observe()).points[0].weight_norm is None


def test_a_watched_run_in_which_no_optimizer_steps_diverges_in_that(
    make_run: Callable[..., TrainingRun],
) -> None:
    steps = [Step(step, {"loss": 3.0 - step}) for step in range(3)]
    loaders = [LoaderObservation("Texts", 48, 8, 0, "RandomSampler", drop_last=True)]
    idle = observe(steps=[], optimizers=[], loaders=loaders)
    observed = build_trajectory(make_run(steps=steps, observed=idle), test="it")
    found = compare_trajectories(build(make_run, observe()), observed).divergence
    assert found is not None
    assert (found.phase, found.item, found.change) == (Phase.OPTIMIZER, "steps of an optimizer", "3 -> none")


def test_what_the_program_was_told_by_clipping_is_the_norm_before_it(
    make_run: Callable[..., TrainingRun],
) -> None:
    observed = observe()
    observed.steps[0].clipping, observed.steps[0].grad_norm = [ClippingCall("norm", 3.0)], 9.0
    observed.steps[1].clipping = [ClippingCall("value", 3.0)]
    points = build(make_run, observed).points
    assert [(point.grad_norm, point.clipped_norm) for point in points] == [
        (9.0, 3.0),
        (None, 3.0),
        (3.0, 3.0),
    ]


def test_tensors_are_told_apart_in_the_first_steps_alone(make_run: Callable[..., TrainingRun]) -> None:
    points = build(make_run, observe(STEPS_BY_TENSOR + 1)).points
    assert [len(point.gradients) for point in points] == [2] * STEPS_BY_TENSOR + [1]
    assert points[-1].gradients[0].startswith("=")
    num_tensors = MAX_TENSOR_FINGERPRINTS // 2
    points = build(make_run, observe(3, num_tensors)).points
    assert [len(point.gradients) for point in points] == [num_tensors] * 2 + [1]


def test_parameters_in_another_order_are_no_divergence(make_run: Callable[..., TrainingRun]) -> None:
    trajectories = []
    for order in (1, -1):
        observed = observe(STEPS_BY_TENSOR + 2)
        names = observed.optimizers[0].groups[0].parameters
        names[:] = names[::order]
        for step in observed.steps:
            assert step.trace is not None
            step.trace.gradients = [step.trace.gradients[0][::order]]
            step.trace.updates = [step.trace.updates[0][::order]]
        trajectories.append(build(make_run, observed))
    assert compare_trajectories(*trajectories, is_exact=True).match is Match.MATCHES


def test_norms_that_differ_in_the_last_bit_have_other_fingerprints(
    make_run: Callable[..., TrainingRun],
) -> None:
    one, other = observe(), observe()
    assert other.steps[0].trace is not None
    other.steps[0].trace.gradients = [[math.nextafter(3.0, 4.0), None]]
    before, after = (build(make_run, observed).points[0].gradients for observed in (one, other))
    assert before[0] != after[0]
    assert before[1] == after[1]
    other.steps[0].trace.gradients = [[math.nan, None]]
    assert build(make_run, other).points[0].gradients[0] == "!!"


def test_tensors_that_no_model_owns_are_told_apart(make_run: Callable[..., TrainingRun]) -> None:
    optimizers = [OptimizerObservation("SGD", [OptimizerGroup({}, ["?0.0"], 1)]) for _ in range(2)]
    assert build(make_run, observe(optimizers=optimizers)).parameters == (("?0",), ("?1",))


def test_modules_of_several_models_that_are_called_alike_are_told_apart(
    make_run: Callable[..., TrainingRun],
) -> None:
    modules = [ModuleObservation("Linear", "Linear", output=mark) for mark in ("aa", "bb")]
    (deep,) = build(make_run, observe(deep_steps=[DeepObservation(0, modules=modules)])).deep
    assert deep.outputs == {"Linear": "aa", "Linear (2)": "bb"}
    assert number_again(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


def test_tensors_that_are_called_alike_are_all_kept(make_run: Callable[..., TrainingRun]) -> None:
    parameters = [ParameterObservation("weight", 4, "float32", None, weight_norm=norm) for norm in (1.0, 2.0)]
    (deep,) = build(make_run, observe(deep_steps=[DeepObservation(0, parameters=parameters)])).deep
    assert [(tensor.name, tensor.weight_norm) for tensor in deep.tensors] == [
        ("weight", 1.0),
        ("weight (2)", 2.0),
    ]


def test_of_many_parameters_that_no_optimizer_holds_those_of_a_model_are_told_together(
    make_run: Callable[..., TrainingRun],
) -> None:
    def list_tensors(num: int, last: str = "zz") -> list[TensorPoint]:
        rows = [StillParameter(f"teacher.{place}.weight", 2.0, f"{place:08x}") for place in range(num)]
        rows[-1].fingerprint = last
        (deep,) = build(make_run, observe(deep_steps=[DeepObservation(0, still=rows)])).deep
        return list(deep.still)

    few = list_tensors(MAX_STILL)
    assert [tensor.name for tensor in few[:2]] == ["teacher.0.weight", "teacher.1.weight"]
    assert len(few) == MAX_STILL
    (together,) = list_tensors(MAX_STILL + 1)
    assert together.name == "teacher.*"
    assert together.weight_norm == pytest.approx(2.0 * math.sqrt(MAX_STILL + 1), abs=1e-5)
    # One of them that differs is seen all the same.
    assert list_tensors(MAX_STILL + 1, "yy")[0].contents != together.contents


def test_a_run_that_was_not_watched_has_the_losses_that_it_logged(
    make_run: Callable[..., TrainingRun],
) -> None:
    found = build_trajectory(make_run([3.0, 2.0]), test="it")
    assert found.losses == [(0, 3.0), (1, 2.0)]
    assert (found.settings, found.deep, found.num_ranks) == ({}, (), 1)


def test_files_of_other_tests_are_none_of_the_program(make_run: Callable[..., TrainingRun]) -> None:
    observed = observe()
    observed.project_files = [
        "conftest.py",
        "net.py",
        "tests/test_it.py",
        "tests/test_other.py",
        "net_test.py",
    ]
    found = build_trajectory(make_run(observed=observed), test="tests/test_it.py::test_training")
    assert found.project_files == ("net.py", "tests/test_it.py")
    # What a command imports is its own, whatever it is called.
    assert len(build_trajectory(make_run(observed=observed), test="smoke").project_files) == 5


def test_steps_that_a_program_logged_with_gaps_and_in_no_order_can_be_stored(
    make_run: Callable[..., TrainingRun],
) -> None:
    steps = [Step(step, {"loss": float(10 - step)}) for step in (0, 20, 10, 20)]
    found = build_trajectory(make_run(steps=steps), test="it")
    assert found.losses == [(0, 10.0), (10, 0.0), (20, -10.0)]
    assert parse_trajectory(render_trajectory(found), "it.json") == found


def test_a_run_without_a_loss_is_an_error(make_run: Callable[..., TrainingRun]) -> None:
    observed = observe()
    for step in observed.steps:
        step.loss = None
    with pytest.raises(ObservationError, match="has no step with a loss.*\nNext: "):
        build(make_run, observed, loss_name=None)


def test_runs_repeat_on_a_cpu_and_on_a_gpu_where_that_was_asked_for(
    make_run: Callable[..., TrainingRun],
) -> None:
    assert build(make_run, observe()).is_deterministic
    assert not build(make_run, observe(), device="cuda").is_deterministic
    strict = observe(numerics={"precision": {"deterministic algorithms": "true"}})
    assert build(make_run, strict, device="cuda").is_deterministic


def test_a_numerics_class_is_told_by_all_that_the_last_digits_depend_on() -> None:
    numerics = {"torch": "2.13.0+cpu", "capability": "AVX512", "threads": "1", "build": "0a", "gpu": "H100"}
    machine = describe_machine(numerics, cpu="Fast CPU", device="cpu")
    assert "gpu" not in machine
    name = derive_numerics_class(machine)
    assert name.startswith("cpu-fast-cpu-avx512-torch2.13.0-1t-")
    assert derive_numerics_class(dict(reversed(machine.items()))) == name
    for changed in ({"build": "0b"}, {"threads": "2"}, {"MKL_CBWR": "AVX2"}, {"cpu": "Other"}):
        assert derive_numerics_class({**machine, **changed}) != name
    assert describe_machine(numerics, cpu="Fast CPU", device="cuda")["gpu"] == "H100"
