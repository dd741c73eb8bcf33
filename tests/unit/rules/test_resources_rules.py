"""Graphs that are kept, memory that grows, recompilations, and units that are dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.record.deep import DeepObservation, ModuleObservation
from harness.record.observation import CompilationObservation, RunObservation
from harness.record.step_observation import StepObservation
from harness.rules import activations, resources
from harness.rules.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

RULES = (*resources.RULES, *activations.RULES)
MIB = 2**20


def find(make_run: MakeRun, observed: RunObservation) -> list[Finding]:
    run = make_run(observed=observed)
    return [finding for rule in RULES if rule.find_obstacle(run) is None for finding in rule.apply(run)]


def make_graphs(held: Sequence[int]) -> RunObservation:
    deep_steps = [
        DeepObservation(step=step, num_held_graphs=number, num_marked_graphs=step)
        for step, number in zip((0, 1, 10, 50), held, strict=False)
    ]
    return RunObservation(deep_steps=deep_steps)


@pytest.mark.parametrize("held", [(0, 1, 10), (0, 1, 10, 50), (0, 0, 9, 49)])
def test_graphs_of_all_earlier_steps_are_kept(make_run: MakeRun, held: tuple[int, ...]) -> None:
    (finding,) = find(make_run, make_graphs(held))
    assert (finding.code, finding.severity) == ("R101", Severity.WARNING)


@pytest.mark.parametrize("held", [(0, 0, 0), (0, 1, 3), (0, 1, 10, 7), (0, 1)])
def test_graphs_of_a_few_steps_or_of_one_epoch_are_not(make_run: MakeRun, held: tuple[int, ...]) -> None:
    assert find(make_run, make_graphs(held)) == []


def make_resident(sizes: Sequence[float]) -> RunObservation:
    """Sizes that are read when a step has ended, here every eighth."""
    return RunObservation(
        steps=[
            StepObservation(step=step, rss_bytes=None if step % 8 else int(sizes[step // 8] * MIB))
            for step in range(8 * len(sizes))
        ]
    )


def test_memory_that_grows_all_the_time_is_a_note(make_run: MakeRun) -> None:
    (finding,) = find(make_run, make_resident([300 + 50 * place for place in range(20)]))
    assert (finding.code, finding.severity) == ("R102", Severity.NOTE)
    assert "6.2 MiB per step" in finding.message


@pytest.mark.parametrize("last", [300.0, 310.0])
def test_memory_that_levels_off_is_not(make_run: MakeRun, last: float) -> None:
    assert find(make_run, make_resident([100.0, 200.0, 290.0, *[300.0] * 16, last])) == []


def test_memory_that_grows_in_the_first_half_only_is_not(make_run: MakeRun) -> None:
    first = [300.0 + 50 * place for place in range(18)]
    assert find(make_run, make_resident([*first, *[first[-1]] * 18])) == []


def make_compiled(graphs: Sequence[int]) -> RunObservation:
    deep_steps = [
        DeepObservation(step=step, num_compiled_graphs=number)
        for step, number in zip((0, 1, 10, 50, 100), graphs, strict=True)
    ]
    return RunObservation(deep_steps=deep_steps, compilation=CompilationObservation(is_used=True))


def test_recompilations_that_go_on_are_told(make_run: MakeRun) -> None:
    (finding,) = find(make_run, make_compiled([1, 2, 4, 5, 7]))
    assert (finding.code, finding.severity) == ("R103", Severity.WARNING)


def test_a_compiler_that_gave_up_early_is_told_too(make_run: MakeRun) -> None:
    (finding,) = find(make_run, make_compiled([1, 2, 8, 8, 8]))
    assert "1 graphs after step 0, 8 after step 100" in finding.message


def test_recompilations_of_the_warm_up_are_not(make_run: MakeRun) -> None:
    assert find(make_run, make_compiled([1, 2, 6, 6, 6])) == []
    assert find(make_run, make_compiled([4, 8, 16, 20, 20])) == []
    assert find(make_run, make_compiled([0, 0, 9, 9, 9])) == []


def make_units(num_dead: Sequence[int]) -> RunObservation:
    deep_steps = [
        DeepObservation(
            step=step, modules=[ModuleObservation("head", "Linear", num_units=100, num_dead_units=number)]
        )
        for step, number in zip((0, 1, 10), num_dead, strict=True)
    ]
    return RunObservation(steps=[StepObservation(step=step) for step in range(11)], deep_steps=deep_steps)


@pytest.mark.parametrize(("num_dead", "severity"), [([100, 100, 100], "warning"), ([96, 97, 99], "note")])
def test_a_layer_that_gets_zeros_only_is_told(make_run: MakeRun, num_dead: list[int], severity: str) -> None:
    (finding,) = find(make_run, make_units(num_dead))
    assert (finding.code, str(finding.severity), finding.subject) == ("T408", severity, "head")


def test_a_layer_shut_in_its_first_step_only_is_clean(make_run: MakeRun) -> None:
    assert find(make_run, make_units([100, 40, 30])) == []
