"""Which phase is blamed where a change comes before the first step: its consequences show in all phases at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.baselines.comparison import Match, compare_trajectories
from harness.baselines.trajectory import DeepPoint, Phase, TensorPoint
from tests.unit.baselines.made import (
    NAMES,
    SHAPES,
    alter,
    alter_deep,
    alter_tensors,
    make_trajectory,
    move_on,
    set_up,
)
from tests.unit.baselines.test_first_divergence import OTHER_STATE, diverge, draw_anew

if TYPE_CHECKING:
    from harness.baselines.trajectory import TracePoint, Trajectory

BASELINE = make_trajectory()


def vary(trajectory: Trajectory, *lengths: int) -> Trajectory:
    """The trajectory with batches of texts that are as long as the longest of them."""

    def cut(point: TracePoint) -> TracePoint:
        return replace(point, shapes=f"4x{lengths[point.step % len(lengths)]}")

    return replace(trajectory, points=tuple(map(cut, trajectory.points)))


def reorder(observed: Trajectory) -> Trajectory:
    """Other draws: generators in another state, other batches, another order."""
    moved = alter(observed, generators=OTHER_STATE, batch="other other")
    return set_up(moved, Phase.DATA, **{"loader 0 order of pass 1": "bbbb/24"})


def test_what_a_data_set_draws_from_another_generator_follows_from_that_one() -> None:
    drawn = alter(BASELINE, generators=lambda states: states | {"python": f"{states['torch']}p"})
    moved = alter(
        move_on(drawn), generators=lambda states: states | {"python": f"{states['torch']}q"}, batch="xx xx"
    )
    found = diverge(moved, drawn)
    assert (found.phase, found.step, found.item) == (Phase.RNG, 0, "generator of python")
    assert found.causes[0].startswith("the generator of python is not seeded")
    assert diverge(alter(move_on(drawn), batch="xx xx"), drawn).phase is Phase.DATA


def test_batches_of_other_lengths_are_a_consequence_of_draws_that_moved() -> None:
    baseline = vary(BASELINE, 7, 8, 6)
    found = diverge(reorder(vary(move_on(BASELINE), 8, 6, 7)), baseline)
    assert (found.phase, found.step, found.item) == (Phase.RNG, 0, "generator of torch")


def test_batches_of_other_lengths_are_a_consequence_of_another_initialisation() -> None:
    baseline = vary(BASELINE, 7, 8, 6)
    observed = reorder(draw_anew(vary(move_on(BASELINE), 8, 6, 7)))
    assert diverge(observed, baseline).phase is Phase.RNG
    assert (
        diverge(alter_tensors(observed, "0.weight", weight_norm=4.8), baseline).phase is Phase.INITIALISATION
    )
    wider = set_up(observed, Phase.INITIALISATION, **{"0.weight": "6x8 float32"})
    assert diverge(wider, baseline).phase is Phase.INITIALISATION


@pytest.mark.parametrize("lengths", [(16,), (12, 14, 13)])
def test_batches_of_lengths_that_no_batch_had_are_data_though_draws_moved(lengths: tuple[int, ...]) -> None:
    baseline = vary(BASELINE, 7, 8, 6)
    found = diverge(reorder(vary(move_on(BASELINE), *lengths)), baseline)
    assert (found.phase, found.item) == (Phase.DATA, "shape of the batch")


def test_an_evaluation_before_the_training_is_RNG_though_its_loader_is_read_first() -> None:  # noqa: N802
    own, other = {"dataset": "Texts", "batch_size": 4}, {"dataset": "Others", "batch_size": 9}
    baseline, observed = (
        replace(
            BASELINE,
            settings={
                **BASELINE.settings,
                "data": {
                    f"loader {place} {key}": value
                    for place, loader in enumerate(loaders)
                    for key, value in loader.items()
                },
            },
        )
        for loaders in ((own, other), (other, own))
    )
    observed = alter(move_on(observed), generators=OTHER_STATE, batch="other other")
    assert diverge(observed, baseline).phase is Phase.RNG


@pytest.mark.parametrize("norm", [0.0, 4.0])
def test_matrices_filled_with_one_number_are_initialisation_and_no_other_draws(norm: float) -> None:
    observed = reorder(draw_anew(move_on(BASELINE)))
    baseline = set_up(BASELINE, Phase.INITIALISATION, **{"matrices of equal rows": "none"})
    if norm:
        # About as large as what was drawn.
        observed = set_up(observed, Phase.INITIALISATION, **{"matrices of equal rows": "0.weight"})
    else:
        observed = alter_tensors(observed, "0.weight", "1.weight", weight_norm=0.0)
    assert diverge(observed, baseline).phase is Phase.INITIALISATION


def test_first_values_of_an_optimizer_that_steps_later_are_initialisation() -> None:
    other = DeepPoint(1, tensors=(TensorPoint("2.weight", "ww", 1.5, 0.5, 0.05),))

    def share(trajectory: Trajectory) -> Trajectory:
        points = [replace(point, optimizers=(point.step % 2,)) for point in trajectory.points]
        deep = (replace(trajectory.deep[0]), other)
        return replace(trajectory, points=tuple(points), deep=deep, parameters=(NAMES, ("2.weight",)))

    baseline = share(BASELINE)
    assert diverge(share(move_on(BASELINE)), baseline).phase is Phase.FORWARD
    observed = alter_tensors(share(move_on(BASELINE)), "2.weight", step=1, contents="xx", weight_norm=1.8)
    found = diverge(observed, baseline)
    assert (found.phase, found.step, found.item) == (Phase.INITIALISATION, 0, "values of `2.weight`")
    assert found.causes == ("`2.weight` is initialised differently: the norm is x1.2.",)


def test_shared_weights_are_initialisation_though_no_draw_moved() -> None:
    found = diverge(set_up(move_on(BASELINE), Phase.INITIALISATION, **{"1.weight": None}))
    assert found.phase is Phase.INITIALISATION
    assert found.causes[0] == "1.weight is gone (was 2x4 float32)."


def test_parameters_that_are_only_called_otherwise_are_the_same_model() -> None:
    observed = set_up(
        move_on(BASELINE), Phase.INITIALISATION, **{"1.weight": None, "2.weight": "2x4 float32"}
    )
    observed = set_up(observed, Phase.FORWARD, **{"1": "Dropout(p=0.1)", "2": "Linear(4, 2)"})
    assert diverge(observed).phase is Phase.FORWARD


def hold(trajectory: Trajectory, *names: str, **unheld: str) -> Trajectory:
    """The trajectory with an optimizer that holds these alone; what has no name is no parameter of the model."""

    def pick(marks: tuple[str, ...]) -> tuple[str, ...]:
        known = dict(zip(NAMES, marks, strict=True))
        return tuple(known.get(name, "--") for name in names)

    left_out = {
        name: f"{SHAPES[name].partition(' ')[0]} in no optimizer" for name in NAMES if name not in names
    }
    found = alter(replace(trajectory, parameters=(names,)), gradients=pick, updates=pick)
    return set_up(found, Phase.INITIALISATION, **{**left_out, **unheld})


def test_an_optimizer_that_leaves_parameters_out_is_optimizer_and_neither_gradients_nor_clipping() -> None:
    observed = hold(alter(move_on(BASELINE, 1), clipped_norm=0.8, grad_norm=1.9), "0.weight", "1.weight")
    found = diverge(observed)
    assert (found.phase, found.step, found.item) == (Phase.OPTIMIZER, 0, "parameters held by optimizer 0")
    assert found.change == "3 -> 2"
    assert found.modules == ("0.bias",)
    assert "`0.bias` moved into it, or out of it" in found.causes[-1]


def test_an_optimizer_that_leaves_parameters_out_is_told_where_clipping_of_its_share_differs() -> None:
    observed = alter(move_on(hold(BASELINE, "0.weight", "1.weight"), 1), 0, 1, gradients=("xx", "yy"))
    assert diverge(alter(observed, grad_norm=40.0)).phase is Phase.OPTIMIZER


def test_an_optimizer_over_a_copy_of_the_model_is_optimizer() -> None:
    copied = move_on(BASELINE, 1)
    unheld = {name: f"{shape.partition(' ')[0]} in no optimizer" for name, shape in SHAPES.items()}
    copied = set_up(copied, Phase.INITIALISATION, **unheld, **{"?0": "4x8 float32"})
    observed = alter(replace(copied, parameters=(("?0", "?1", "?2"),)), 0, 1, updates=("--", "--", "--"))
    assert diverge(observed).phase is Phase.OPTIMIZER


def test_a_module_put_in_after_the_optimizer_was_built_is_optimizer_though_it_draws() -> None:
    observed = hold(reorder(BASELINE), "0.weight", "0.bias", "?2")
    observed = alter(alter(observed, loss=lambda loss: loss * 1.2), gradients=("xx", "yy", "zz"))
    observed = alter_deep(observed, outputs={"0": "x0", "1": "x1"})
    assert diverge(observed).phase is Phase.OPTIMIZER


def test_an_optimizer_that_leaves_out_what_is_frozen_is_gradients() -> None:
    observed = hold(move_on(BASELINE, 1), "0.weight", "1.weight", **{"0.bias": "4 frozen in no optimizer"})
    found = diverge(alter(observed, 0, 1, gradients=("xx", "yy")))
    assert found.phase is Phase.GRADIENTS


def test_an_optimizer_that_never_steps_is_optimizer_though_steps_are_of_another_kind() -> None:
    def share(point: TracePoint) -> TracePoint:
        index = point.step % 2
        return replace(point, optimizers=(index,), gradients=("aa",), updates=("bb",))

    points = tuple(map(share, BASELINE.points))
    baseline = replace(BASELINE, parameters=(("0.weight",), ("1.weight",)), points=points)
    alone = alter(baseline, 1, optimizers=(0,), shapes="4x8, 4x2", num_micro_batches=2, loss=9.0)
    found = diverge(replace(alone, parameters=(("0.weight",),)), baseline)
    assert (found.phase, found.step) == (Phase.OPTIMIZER, 0)
    assert found.item == "parameters held by optimizer 1"


def test_names_alone_make_no_difference() -> None:
    renamed = replace(BASELINE, parameters=(tuple(f"net.{name}" for name in NAMES),))
    settings = {f"net.{name}": shape for name, shape in SHAPES.items()}
    renamed = replace(renamed, settings={**BASELINE.settings, "initialisation": settings})
    assert compare_trajectories(BASELINE, renamed).match is Match.MATCHES


def test_a_run_in_which_no_optimizer_steps_is_optimizer() -> None:
    idle = make_trajectory(
        points=tuple(
            replace(point, learning_rates=(), generators={}, shapes="", batch="") for point in BASELINE.points
        ),
        parameters=(),
        deep=(),
    )
    found = compare_trajectories(BASELINE, idle).divergence
    assert found is not None
    assert (found.phase, found.step, found.change) == (Phase.OPTIMIZER, 0, "8 -> none")
