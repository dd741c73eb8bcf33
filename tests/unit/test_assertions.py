from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness import assert_artifacts, assert_finite, assert_healthy, assert_loss_decreases
from harness.errors import ObservationError, UsageError
from harness.record.observation import RunObservation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

FALLING = [3 * 0.9**step for step in range(20)]


def test_a_healthy_run_passes_every_assertion(make_run: MakeRun) -> None:
    run = make_run(FALLING)
    assert_loss_decreases(run, min_drop=0.5)
    assert_finite(run)
    assert_healthy(run)


def test_a_flat_loss_fails_with_its_value_and_a_curve(make_run: MakeRun) -> None:
    with pytest.raises(AssertionError, match=r"T101 .*every one of the 8 losses is 2") as caught:
        assert_loss_decreases(make_run([2.0] * 8))
    assert "|********" in str(caught.value)


def test_a_loss_too_noisy_to_tell_fails_the_assertion_on_its_own(make_run: MakeRun) -> None:
    noisy = make_run([2.0, 1.5, 2.2, 1.7, 1.9, 1.8])
    with pytest.raises(AssertionError, match="not shown to fall"):
        assert_loss_decreases(noisy)
    assert_healthy(noisy)


def test_a_smaller_drop_than_asked_for_fails_with_both(make_run: MakeRun) -> None:
    with pytest.raises(AssertionError, match=r"falls by 1\d\.\d%, .* at least 50\.0% is asked for"):
        assert_loss_decreases(make_run([2.0 - 0.02 * step for step in range(20)]), min_drop=0.5)


@pytest.mark.parametrize("min_drop", [-0.1, 1.0, 20, math.nan])
def test_a_min_drop_that_is_no_share_is_misuse(make_run: MakeRun, min_drop: float) -> None:
    with pytest.raises(UsageError, match=r"min_drop=0\.2 asks for 20 %"):
        assert_loss_decreases(make_run(FALLING), min_drop=min_drop)


def test_too_few_losses_are_no_judgement(make_run: MakeRun) -> None:
    with pytest.raises(ObservationError, match=r"can't be judged for train\(\): it needs 6 losses"):
        assert_loss_decreases(make_run(FALLING[:5]))


def test_nan_fails_finite_and_healthy_and_names_the_step(make_run: MakeRun) -> None:
    run = make_run([*FALLING[:7], math.nan])
    with pytest.raises(AssertionError, match="T201 non-finite-metric: loss is nan at step 7"):
        assert_loss_decreases(run)
    for assertion in (assert_finite, assert_healthy):
        with pytest.raises(AssertionError, match=r"(?s)T201 non-finite-metric.*loss is nan at step 7"):
            assertion(run)


def test_healthy_lists_the_rules_it_could_not_apply(make_run: MakeRun) -> None:
    with pytest.raises(AssertionError, match=r"not applied: .*T101: the loss is not finite throughout"):
        assert_healthy(make_run([math.nan] * 8))


def test_a_run_without_steps_is_no_judgement(make_run: MakeRun) -> None:
    for assertion in (assert_finite, assert_healthy):
        with pytest.raises(ObservationError, match="the run has no step"):
            assertion(make_run(steps=[]))


def test_promised_files_pass_and_the_defects_of_others_are_all_listed(
    make_run: MakeRun, tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1\n")
    (tmp_path / "config.json").write_text("{")
    run = make_run(run_dir=tmp_path)
    assert_artifacts(run, "metrics.csv", "*.csv")
    assert_artifacts(run, "config.json", parse=False)
    with pytest.raises(AssertionError) as caught:
        assert_artifacts(run, "config.json", "checkpoints/*.pt", "metrics.csv", min_size_bytes=10)
    message = str(caught.value)
    assert "2 artifact problems under" in message
    assert "config.json: 1 bytes, at least 10 asked for" in message
    assert "checkpoints/*.pt: 0 files, at least 1 asked for" in message
    assert "Files there: config.json, metrics.csv." in message
    assert message.splitlines()[-1].startswith("Next: check that the program writes them in this mode")


def test_files_of_known_kinds_must_parse_and_be_as_many_as_asked_for(
    make_run: MakeRun, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(
        AssertionError,
        match=r"1 artifact problem under .*\n  config\.json: Expecting(.*\n)*Next: look at the file",
    ):
        assert_artifacts(make_run(run_dir=tmp_path), "config.json")
    with pytest.raises(AssertionError, match=r"\*\.json: 1 files, at least 2 asked for"):
        assert_artifacts(make_run(run_dir=tmp_path), "*.json", min_count=2, parse=False)


def test_no_pattern_is_misuse(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="names no file"):
        assert_artifacts(make_run())


def test_files_that_an_ended_program_did_not_write_are_laid_to_its_end(
    make_run: MakeRun, tmp_path: Path
) -> None:
    observed = RunObservation(notes=["ended from outside after 3 steps (max_steps=3)"])
    with pytest.raises(
        AssertionError, match=r"Next: the program was ended from outside after 3 .*raise the limit"
    ):
        assert_artifacts(make_run(run_dir=tmp_path, observed=observed), "*.pt")


def test_too_small_a_drop_says_what_to_do(make_run: MakeRun) -> None:
    losses = [3.0 * 0.98**step for step in range(12)]
    with pytest.raises(AssertionError, match=r"Next: train more steps; if .*, min_drop=0\.") as caught:
        assert_loss_decreases(make_run(losses), min_drop=0.9)
    advised = float(str(caught.value).rpartition("min_drop=")[2].rstrip("."))
    assert_loss_decreases(make_run(losses), min_drop=advised)
