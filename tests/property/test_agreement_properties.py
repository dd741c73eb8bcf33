"""Logged losses: whatever honest way a program logs its loss, nobody says that it is wrong."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from harness.record.agreement import Kind, compare_logged
from harness.record.observation import Outcome, RunObservation
from harness.record.run import Step
from harness.record.step_observation import StepObservation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.agreement import Agreement
    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

SEEDS = st.integers(0, 2**32 - 1)
OFFSETS = st.sampled_from([0, 1])


@st.composite
def curves(draw: st.DrawFn, min_size: int = 30, max_size: int = 120) -> list[float]:
    """Losses of a noisy training, in full precision."""
    gauss = random.Random(draw(SEEDS)).gauss
    num_steps = draw(st.integers(min_size, max_size))
    start, rate = draw(st.floats(0.5, 12.0)), draw(st.floats(0.0, 0.02))
    return [start * (0.3 + 0.7 * (1 - rate) ** step) * (1 + 0.05 * gauss(0, 1)) for step in range(num_steps)]


def compare(
    make_run: MakeRun, losses: Sequence[float], rows: Sequence[tuple[int, float]], **changes: object
) -> Agreement:
    steps = [StepObservation(step, loss, [loss], num_micro_batches=1) for step, loss in enumerate(losses)]
    for step in steps:
        for name, value in changes.items():
            setattr(step, name, value)
    observed = RunObservation(steps=steps, outcome=Outcome.COMPLETED)
    logged = [Step(number, {"loss": value}) for number, value in rows]
    return compare_logged(make_run(losses, observed=observed, logged=logged, logged_source="return value"))


@given(losses=curves(), first=OFFSETS, digits=st.integers(3, 9), every=st.integers(1, 4))
def test_the_same_losses_are_found_whatever_is_counted_and_rounded(
    make_run: MakeRun, losses: list[float], first: int, digits: int, every: int
) -> None:
    rows = [(step + first, round(loss, digits)) for step, loss in enumerate(losses)][::every]
    found = compare(make_run, losses, rows)
    assert (found.kind, found.window, found.scale) == (Kind.SAME, 1, 1.0)
    assert found.num_compared == len(rows)
    assert found.max_deviation <= 0.51 * 10**-digits
    assert not found.is_disagreement


@given(losses=curves(), shift=st.integers(2, 100_000))
def test_a_resumed_run_may_count_on(make_run: MakeRun, losses: list[float], shift: int) -> None:
    found = compare(make_run, losses, [(step + shift, loss) for step, loss in enumerate(losses)])
    assert (found.kind, found.shift) == (Kind.SHIFTED, shift)


@given(losses=curves(100), first=OFFSETS, every=st.integers(2, 8), digits=st.integers(5, 9))
def test_means_since_the_last_log_are_found(
    make_run: MakeRun, losses: list[float], first: int, every: int, digits: int
) -> None:
    ends = range(every, len(losses) + 1, every)
    rows = [(end - 1 + first, round(statistics.fmean(losses[end - every : end]), digits)) for end in ends]
    found = compare(make_run, losses, rows)
    assert (found.kind, found.window) == (Kind.MEAN, every)
    assert found.num_compared == len(rows)


@given(
    losses=curves(), factor=st.sampled_from([0.125, 0.25, 0.5, 2.0, 3.0, 4.0, 16.0, 1.4426950408889634, -1.0])
)
def test_a_constant_factor_is_found(make_run: MakeRun, losses: list[float], factor: float) -> None:
    found = compare(make_run, losses, [(step, factor * loss) for step, loss in enumerate(losses)])
    assert found.kind is Kind.SCALED
    assert abs(found.scale / factor - 1) < 1e-6
    assert not found.is_disagreement


@given(losses=curves(), decay=st.sampled_from([0.9, 0.98]), is_corrected=st.booleans())
def test_smoothing_is_found(make_run: MakeRun, losses: list[float], decay: float, is_corrected: bool) -> None:
    rows, mean = [], 0.0
    for step, loss in enumerate(losses):
        mean = decay * mean + (1 - decay) * loss
        rows.append((step, mean / (1 - decay ** (step + 1)) if is_corrected else mean))
    assert compare(make_run, losses, rows).kind is Kind.SMOOTHED


@given(losses=curves(100), num_epochs=st.integers(10, 16))
def test_means_of_epochs_are_found(make_run: MakeRun, losses: list[float], num_epochs: int) -> None:
    size = len(losses) // num_epochs
    losses = losses[: size * num_epochs]
    parts = [losses[start : start + size] for start in range(0, len(losses), size)]
    rows = [(epoch, statistics.fmean(part)) for epoch, part in enumerate(parts)]
    found = compare(make_run, losses, rows)
    assert found.kind is Kind.MEAN
    assert found.window == size


@given(losses=curves(), seed=SEEDS, digits=st.integers(0, 9), every=st.integers(1, 9))
def test_any_other_series_is_never_called_wrong(
    make_run: MakeRun, losses: list[float], seed: int, digits: int, every: int
) -> None:
    """A validation loss, a part of the loss, a loss of other batches: unrelated is not wrong, and not explained."""
    gauss = random.Random(seed).gauss
    rows = [(step, round(loss * (1 + 0.1 * gauss(0, 1)), digits)) for step, loss in enumerate(losses)][
        ::every
    ]
    found = compare(make_run, losses, rows)
    assert not found.is_disagreement
    assert found.kind in (Kind.UNRELATED, Kind.TOO_FEW) or digits < 2


@given(losses=curves(), data=st.data())
def test_nothing_breaks_it_and_no_odd_log_is_called_wrong(
    make_run: MakeRun, losses: list[float], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(), st.floats()), max_size=30))
    assert not compare(make_run, losses, rows).is_disagreement


@given(losses=curves(), at=st.integers(0, 29))
def test_a_log_that_repeats_the_loss_of_one_step_is_stale(
    make_run: MakeRun, losses: list[float], at: int
) -> None:
    repeated = losses[at]
    found = compare(make_run, losses, [(step, repeated) for step in range(len(losses))])
    is_mean = abs(statistics.fmean(losses) / repeated - 1) < 3e-4
    is_met_twice = sum(abs(loss / repeated - 1) < 3e-4 for loss in losses) > 1 or at == len(losses) - 1
    assert found.is_disagreement or is_mean or is_met_twice
    assert found.kind in (Kind.REPEATED, Kind.UNRELATED)


@given(losses=curves(), at=st.integers(1, 20))
def test_a_log_that_tells_a_number_where_the_loss_is_nan_hides_it(
    make_run: MakeRun, losses: list[float], at: int
) -> None:
    rows = list(enumerate(losses))
    losses[at] = float("nan")
    found = compare(make_run, losses, rows)
    assert (found.kind, found.num_hidden, found.is_disagreement) == (Kind.SAME, 1, True)
    found = compare(make_run, losses, [row for row in rows if row[0] != at])
    assert (found.kind, found.num_hidden, found.is_disagreement) == (Kind.SAME, 0, False)
