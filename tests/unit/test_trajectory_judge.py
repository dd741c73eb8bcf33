"""A run beside its stored trajectory: three cases that are never blurred, and what may be accepted."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import assert_matches_baseline
from harness.baselines.trajectory_judge import (
    TrajectoryVerdict,
    judge_trajectory,
    list_missing,
    open_store,
    store_accepted,
)
from harness.errors import BaselineError, ObservationError, UsageError
from harness.record.deep import DeepObservation, ModuleObservation
from harness.record.limit import MAX_SECONDS, MAX_STEPS, Limit
from harness.record.observation import RunObservation
from harness.record.request import BaselineRequest
from harness.record.run import Step
from harness.record.step_observation import StepObservation
from harness.record.trace import StepTrace
from harness.report.trajectory import tell_outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.trajectory import Trajectory
    from harness.record.environment import Environment
    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

LOSSES = [3.0, 2.5, 2.0, 1.8, 1.6, 1.5, 1.4, 1.3]
OTHERS = [3.1, 2.6, 2.1, 1.9, 1.7, 1.6, 1.5, 1.4]
LOWER = [2.9, 2.4, 1.9, 1.7, 1.5, 1.4, 1.3, 1.2]


@pytest.fixture
def request_(tmp_path: Path) -> BaselineRequest:
    return BaselineRequest(
        test="tests/test_a.py::test_a",
        baselines="baselines",
        root=tmp_path,
        folder=tmp_path,
        accept_command='pytest "tests/test_a.py::test_a" --accept-baselines --reason "{reason}"',
    )


def accept(run: TrainingRun, request: BaselineRequest, reason: str = "initial") -> TrajectoryVerdict:
    """Accepts a run as a test that passes does."""
    accepting = replace(request, reason=reason, judged=[])
    assert_matches_baseline(replace(run, baseline=accepting))
    store_accepted(accepting)
    verdict: TrajectoryVerdict = accepting.judged[-1].verdict
    return verdict


def elsewhere(environment: Environment, **changes: Any) -> Environment:
    return replace(environment, **{"cpu": "Other CPU", **changes})


def test_a_run_without_a_name_is_misuse(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="none of the smoke_training fixture.\nNext: run = smoke_training"):
        assert_matches_baseline(make_run())


def test_without_a_baseline_it_fails_and_names_the_accept_command(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_matches_baseline(make_run(LOSSES, baseline=request_))
    first, place, advice = str(caught.value).splitlines()
    assert first == (
        "tests/test_a.py::test_a has no baseline in any numerics class; observed 8 steps, final loss 1.4."
    )
    assert "baselines/trajectories/cpu-fast-cpu-f6m85-torch2.13.0-" in place
    assert advice == 'Next: pytest "tests/test_a.py::test_a" --accept-baselines --reason "initial"'
    assert request_.judged[-1].verdict is TrajectoryVerdict.MISSING_BASELINE


def test_an_accepted_run_matches_itself(make_run: MakeRun, request_: BaselineRequest) -> None:
    assert accept(make_run(LOSSES), request_) is TrajectoryVerdict.ACCEPTED
    assert_matches_baseline(make_run(LOSSES, baseline=request_))
    result = request_.judged[-1]
    assert result.verdict is TrajectoryVerdict.MATCHES
    assert result.is_of_own_class
    assert result.comparison.is_exact


def test_a_run_that_leaves_its_baseline_fails_with_the_first_difference(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    accept(make_run(LOSSES), request_)
    with pytest.raises(AssertionError) as caught:
        assert_matches_baseline(make_run([*LOSSES[:5], 1.51, 1.42, 1.33], baseline=request_))
    text = str(caught.value)
    assert text.startswith("tests/test_a.py::test_a leaves its baseline at step 5: ")
    assert "\nFirst difference: " in text
    assert "(accepted " in text
    assert text.endswith(
        'if it is intended: pytest "tests/test_a.py::test_a" --accept-baselines --reason "..."'
    )


@pytest.mark.parametrize("losses", [LOSSES[:-1], [*LOSSES, 1.2]])
def test_another_number_of_steps_fails(
    make_run: MakeRun, request_: BaselineRequest, losses: list[float]
) -> None:
    accept(make_run(LOSSES), request_)
    with pytest.raises(AssertionError, match=rf"number of steps \(8 -> {len(losses)}\)"):
        assert_matches_baseline(make_run(losses, baseline=request_))


def test_a_loss_that_is_no_number_matches_nothing_and_is_never_accepted(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    broken = [*LOSSES[:6], math.nan, 1.3]
    with pytest.raises(AssertionError, match="is nan at step 6; such a run is not accepted"):
        accept(make_run(broken), request_)
    accept(make_run(LOSSES), request_)
    with pytest.raises(AssertionError, match="leaves its baseline at step 6"):
        assert_matches_baseline(make_run(broken, baseline=request_))


def test_in_another_class_it_is_compared_by_tolerance_and_says_so(
    make_run: MakeRun, request_: BaselineRequest, environment: Environment
) -> None:
    accept(make_run(LOSSES), request_)
    near = [loss * (1 + 1e-7) for loss in LOSSES]
    assert_matches_baseline(make_run(near, baseline=request_, environment=elsewhere(environment)))
    result = request_.judged[-1]
    assert result.verdict is TrajectoryVerdict.MATCHES
    assert not result.is_of_own_class
    assert "another kind of machine" in result.comparison.reason
    far = [loss * 1.01 for loss in LOSSES]
    with pytest.raises(AssertionError, match="leaves its baseline at step 0"):
        assert_matches_baseline(make_run(far, baseline=request_, environment=elsewhere(environment)))


def test_exact_and_tolerance_can_be_asked_for(
    make_run: MakeRun, request_: BaselineRequest, environment: Environment
) -> None:
    accept(make_run(LOSSES), request_)
    near = [loss * (1 + 1e-7) for loss in LOSSES]
    with pytest.raises(AssertionError, match="leaves its baseline"):
        assert_matches_baseline(make_run(near, baseline=request_))
    assert_matches_baseline(make_run(near, baseline=request_), exact=False)
    with pytest.raises(AssertionError, match="leaves its baseline"):
        assert_matches_baseline(
            make_run(near, baseline=request_, environment=elsewhere(environment)), exact=True
        )


def test_what_can_not_be_compared_passes_and_fails_where_a_baseline_is_required(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    accept(make_run(LOSSES), request_)
    on_gpu = make_run(LOSSES, device="cuda", baseline=request_)
    assert_matches_baseline(on_gpu)
    assert request_.judged[-1].verdict is TrajectoryVerdict.NOT_COMPARABLE
    request_.requires_class = True
    with pytest.raises(
        AssertionError, match='(?s)not comparable .*trained on cpu.*--reason "new numerics class"'
    ):
        assert_matches_baseline(on_gpu)


def test_a_baseline_of_its_own_class_goes_before_a_newer_one_of_another(
    make_run: MakeRun, request_: BaselineRequest, environment: Environment
) -> None:
    accept(make_run(LOSSES), request_)
    assert (
        accept(make_run(OTHERS, environment=elsewhere(environment)), request_) is TrajectoryVerdict.ACCEPTED
    )
    assert len(open_store(request_).find_classes(request_.test)) == 2
    assert_matches_baseline(make_run(LOSSES, baseline=request_))


def test_a_run_that_lacks_what_its_baseline_holds_is_not_compared(
    make_run: MakeRun, request_: BaselineRequest, make_trajectory: Callable[..., Trajectory]
) -> None:
    observed = judge_trajectory(make_run(LOSSES), request_).observed
    rich = make_trajectory(LOSSES, numerics_class=observed.numerics_class)
    open_store(request_).write(rich, rich.provenance)
    with pytest.raises(ObservationError) as caught:
        assert_matches_baseline(make_run(LOSSES, baseline=request_))
    assert (
        "lacks what its baseline holds: gradient norms, learning rates, traces of steps, steps watched in depth; "
        "nothing was compared.\nNext: watch the program (--harness-watch=deep), or accept a new one: pytest"
    ) in str(caught.value)
    # What is left out on purpose is accepted on purpose.
    assert accept(make_run(LOSSES), request_) is TrajectoryVerdict.ACCEPTED


def watch(losses: list[float | None]) -> dict[str, Any]:
    """What makes a run one of watched and traced steps, of which some have no loss."""
    steps = [
        StepObservation(step=step, loss=loss, optimizers=[0], trace=StepTrace(called_with=["batch"]))
        for step, loss in enumerate(losses)
    ]
    metrics = [{} if loss is None else {"loss": loss} for loss in losses]
    return {
        "steps": [Step(step, known) for step, known in enumerate(metrics)],
        "observed": RunObservation(steps=steps),
        "source": "watched optimizer steps",
    }


def test_a_run_that_a_time_limit_ended_matches_and_is_not_accepted(
    make_run: MakeRun, request_: BaselineRequest, tmp_path: Path
) -> None:
    accept(make_run(**watch([*LOSSES])), request_)
    (path,) = tmp_path.glob("baselines/trajectories/*/*.json")
    before = path.read_bytes()
    late = watch([*LOSSES[:5]])
    late["observed"].ended_by = Limit(MAX_SECONDS, 3.0, 5)
    assert_matches_baseline(make_run(**late, baseline=request_))
    (note,) = request_.judged[-1].comparison.notes
    assert "5 of 8 steps were compared" in note
    assert tell_outcome(request_.judged[-1]) == "matches its baseline in 5 steps, to the last digit"
    with pytest.raises(UsageError, match=r"(?s)ended by its time limit.*\nNext: end it by max_steps=5"):
        accept(make_run(**late), request_)
    assert path.read_bytes() == before

    late["observed"].ended_by = Limit(MAX_STEPS, 5, 5)
    assert accept(make_run(**late), request_) is TrajectoryVerdict.ACCEPTED


def test_a_run_that_a_time_limit_ended_early_is_not_comparable(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    accept(make_run(**watch([*LOSSES])), request_)
    late = watch([*LOSSES[:1]])
    late["observed"].ended_by = Limit(MAX_SECONDS, 3.0, 1)
    assert_matches_baseline(make_run(**late, baseline=request_))
    assert request_.judged[-1].verdict is TrajectoryVerdict.NOT_COMPARABLE
    request_.requires_class = True
    with pytest.raises(
        AssertionError, match=r"(?s)1 of 8 steps.*\nNext: raise max_seconds, or end both runs by"
    ):
        assert_matches_baseline(make_run(**late, baseline=request_))


def test_a_step_that_lost_its_loss_is_an_error_and_may_be_accepted(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    accept(make_run(**watch([3.0, 2.5, 2.0])), request_)
    with pytest.raises(ObservationError, match="has a loss in step 1 .*, and this run has none there"):
        assert_matches_baseline(make_run(**watch([3.0, None, 2.0]), baseline=request_))
    assert accept(make_run(**watch([3.0, None, 2.0])), request_) is TrajectoryVerdict.ACCEPTED


def test_missing_numbers_are_named(make_trajectory: Callable[..., Trajectory]) -> None:
    baseline = make_trajectory()
    assert list_missing(baseline, baseline) == []
    points = tuple(replace(point, loss=None, batch="") for point in baseline.points)
    assert list_missing(baseline, replace(baseline, points=points)) == ["losses", "traces of steps"]
    assert list_missing(replace(baseline, points=points), baseline) == []
    # A trace that ends early would match unseen in the steps behind it.
    points = (*baseline.points[:2], *(replace(point, batch="") for point in baseline.points[2:]))
    assert list_missing(baseline, replace(baseline, points=points)) == ["traces of steps"]
    assert list_missing(baseline, replace(baseline, points=baseline.points[:2])) == []


def test_steps_that_were_watched_and_not_traced_are_misuse(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    observed = RunObservation(steps=[StepObservation(step=0, optimizers=[0])])
    with pytest.raises(UsageError, match=r"(?s)were not traced.*smoke_training\(baseline=True\)"):
        assert_matches_baseline(make_run([1.0], observed=observed, baseline=request_))
    with pytest.raises(UsageError, match="was profiled"):
        assert_matches_baseline(make_run(LOSSES, is_profiled=True, baseline=request_))


def test_what_is_unchanged_stays_as_it_is(
    make_run: MakeRun, request_: BaselineRequest, tmp_path: Path
) -> None:
    accept(make_run(LOSSES), request_)
    (path,) = tmp_path.glob("baselines/trajectories/*/*.json")
    before = path.read_bytes()
    assert accept(make_run(LOSSES), request_, "nightly") is TrajectoryVerdict.UNCHANGED
    assert path.read_bytes() == before
    assert accept(make_run(OTHERS), request_, "nightly") is TrajectoryVerdict.ACCEPTED
    assert '"reason": "nightly"' in path.read_text(encoding="utf-8")


def name_modules(*names: str, python: str = "") -> dict[str, Any]:
    """What makes a run one of watched steps, the first with modules of such names."""
    made = watch([*LOSSES])
    modules = [ModuleObservation(name, "Linear", output=f"{place}") for place, name in enumerate(names)]
    made["observed"].deep_steps = [DeepObservation(step=0, modules=modules)]
    for step in made["observed"].steps:
        step.trace.generators = {"torch": "aa", "python": python}
    return made


def test_the_same_training_is_accepted_anew_where_its_modules_have_other_names(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    accept(make_run(**name_modules("0", "0 (2)")), request_)
    renamed = make_run(**name_modules("Sequential.0", "Sequential2.0"))
    assert_matches_baseline(replace(renamed, baseline=request_))
    assert accept(renamed, request_) is TrajectoryVerdict.ACCEPTED
    (stored,) = open_store(request_).list_all()
    assert stored.trajectory is not None
    assert list(stored.trajectory.deep[0].outputs) == ["Sequential.0", "Sequential2.0"]
    assert accept(renamed, request_) is TrajectoryVerdict.UNCHANGED


def test_generators_that_nobody_seeds_do_not_write_a_baseline_anew(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    accept(make_run(**name_modules("0", python="one")), request_)
    assert accept(make_run(**name_modules("0", python="two")), request_) is TrajectoryVerdict.UNCHANGED


def test_nothing_is_written_before_the_test_has_passed(
    make_run: MakeRun, request_: BaselineRequest, tmp_path: Path
) -> None:
    request_.reason = "initial"
    assert_matches_baseline(make_run(LOSSES, baseline=request_))
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_errors_is_accepted_only_where_that_is_said(
    make_run: MakeRun, request_: BaselineRequest
) -> None:
    rising = [1.0 + 0.1 * step for step in range(20)]
    with pytest.raises(
        AssertionError, match=r"(?s)has 1 finding with severity error.*T101 .*--accept-with-findings"
    ):
        accept(make_run(rising), request_)
    request_.accepts_findings = True
    assert accept(make_run(rising), request_) is TrajectoryVerdict.ACCEPTED


def test_where_it_comes_from_is_kept(make_run: MakeRun, request_: BaselineRequest, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "train.py").write_text("1\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for words in (["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    accept(make_run(LOSSES), request_)
    (path,) = tmp_path.glob("baselines/trajectories/*/*.json")
    origin = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    assert origin["reason"] == "initial"
    assert len(origin["commit"]) == 40
    assert "uncommitted" not in origin
    assert origin["environment"]["torch"] == "2.13.0+cpu"
    assert "host" not in origin["environment"]
    (tmp_path / "train.py").write_text("2\n")
    accept(make_run(OTHERS), request_)
    assert len(json.loads(path.read_text(encoding="utf-8"))["provenance"]["uncommitted"]) == 12


def test_files_changed_since_the_baseline_are_named(
    make_run: MakeRun, request_: BaselineRequest, tmp_path: Path
) -> None:
    test_where_it_comes_from_is_kept(make_run, request_, tmp_path)
    with pytest.raises(
        AssertionError, match=r"Changed since commit [0-9a-f]{7}: train.py; it is not known which"
    ):
        assert_matches_baseline(make_run(LOWER, baseline=request_))


def test_a_damaged_baseline_is_no_pass(make_run: MakeRun, request_: BaselineRequest, tmp_path: Path) -> None:
    accept(make_run(LOSSES), request_)
    (path,) = tmp_path.glob("baselines/trajectories/*/*.json")
    path.write_text("")
    with pytest.raises(BaselineError, match="is empty"):
        assert_matches_baseline(make_run(LOSSES, baseline=request_))
    # Accepting does not hide it either: it may be the one that others rely on.
    with pytest.raises(BaselineError, match="is empty"):
        accept(make_run(LOSSES), request_)
    assert path.read_text() == ""


def test_a_commits_baselines_are_compared_with_and_not_written(
    make_run: MakeRun, request_: BaselineRequest, tmp_path: Path
) -> None:
    test_where_it_comes_from_is_kept(make_run, request_, tmp_path)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for words in (["add", "."], ["commit", "--quiet", "--message", "baselines"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    for path in Path(tmp_path).glob("baselines/trajectories/*/*.json"):
        path.unlink()
    request_.baselines = "HEAD:baselines"
    assert_matches_baseline(make_run(OTHERS, baseline=request_))
    with pytest.raises(UsageError, match="can't be written into a commit"):
        accept(make_run(LOWER), request_)
