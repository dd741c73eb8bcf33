"""What is told of a run that left its baseline: the first difference, what follows, and where to look."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.comparison import Divergence, Match, TrajectoryComparison
from harness.baselines.trajectory import Phase
from harness.baselines.trajectory_judge import TrajectoryResult, TrajectoryVerdict
from harness.record.limit import MAX_SECONDS, Limit
from harness.record.request import BaselineRequest
from harness.report.document import build_session, describe_test
from harness.report.markdown import render_markdown
from harness.report.moves import list_moves, tell_change
from harness.report.tables import build_accepted, build_notes, build_rows
from harness.report.trajectory import (
    explain_failure,
    find_sources,
    tell_accepted,
    tell_divergence,
    tell_outcome,
)
from harness.report.trajectory_document import describe_trajectory, summarize_trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.baselines.trajectory import Trajectory
    from harness.record.environment import Environment

    MakeTrajectory = Callable[..., Trajectory]
    MakeResult = Callable[..., TrajectoryResult]

REQUEST = BaselineRequest(
    "tests/test_a.py::test_a",
    "baselines",
    Path("/nowhere"),
    Path("/nowhere"),
    'pytest --accept-baselines --reason "{reason}"',
)
DIVERGENCE = Divergence(
    phase=Phase.GRADIENTS,
    step=6,
    item="gradient of `body.linear.weight`",
    change="norm 0.41 -> 0.82, x2.00",
    causes=("the gradient is doubled.", "it is not cleared."),
    identical=("batch", "parameters", "loss"),
    consequence="the losses of 14 of 20 steps differ",
    modules=("body.linear.weight",),
)


@pytest.fixture
def make_result(make_trajectory: MakeTrajectory, environment: Environment) -> MakeResult:
    """Makes the result of a comparison that diverged, or another one."""

    def make(verdict: TrajectoryVerdict = TrajectoryVerdict.DIVERGED, **changes: Any) -> TrajectoryResult:
        comparison = TrajectoryComparison(Match.DIVERGED, is_exact=True, divergence=DIVERGENCE)
        if verdict in (TrajectoryVerdict.MATCHES, TrajectoryVerdict.UNCHANGED):
            comparison = TrajectoryComparison(Match.MATCHES, is_exact=True)
        result = TrajectoryResult(
            verdict=verdict,
            observed=make_trajectory([3.0, 2.5, 2.2, 2.1]),
            baseline=make_trajectory(),
            place="baselines/trajectories/cpu-fast/a.json",
            comparison=comparison,
            environment=environment,
        )
        return replace(result, **changes)

    return make


def test_a_first_run_that_its_time_limit_ended_is_to_be_ended_by_steps_before_it_is_accepted(
    make_result: MakeResult, make_trajectory: MakeTrajectory
) -> None:
    observed = make_trajectory(ended_by=Limit(MAX_SECONDS, 2.5, 4))
    result = make_result(
        TrajectoryVerdict.MISSING_BASELINE, observed=observed, baseline=None, comparison=None
    )
    command = 'harness check --baseline a --max-seconds 2.5 --accept-baselines --reason "{reason}" -- python train.py'
    request = replace(REQUEST, accept_command=command)
    assert explain_failure(result, request).splitlines()[-1] == (
        "Next: end it by max_steps=4 in place of max_seconds=2.5: "
        'harness check --baseline a --max-steps 4 --accept-baselines --reason "initial" -- python train.py'
    )


def test_what_there_is_to_do_first_comes_before_accepting(make_result: MakeResult) -> None:
    divergence = replace(DIVERGENCE, advice="run it with max_steps=5, as the baseline was")
    comparison = TrajectoryComparison(Match.DIVERGED, is_exact=True, divergence=divergence)
    assert explain_failure(make_result(comparison=comparison), REQUEST).splitlines()[-1] == (
        "Next: run it with max_steps=5, as the baseline was; if it is intended: "
        'pytest --accept-baselines --reason "..."'
    )


def test_a_divergence_is_told_from_the_first_difference_to_the_next_command(make_result: MakeResult) -> None:
    told = explain_failure(
        make_result(), REQUEST, ["net.py", "train.py", "config.yaml", "../baselines/trajectories/cpu/x.json"]
    )
    assert told.splitlines() == [
        "tests/test_a.py::test_a leaves its baseline at step 6: the losses of 14 of 20 steps differ.",
        (
            "First difference: gradients at step 6: gradient of `body.linear.weight` (norm 0.41 -> 0.82, x2.00); "
            "batch, parameters and loss are identical."
        ),
        "Likely: the gradient is doubled.",
        "Likely: it is not cleared.",
        (
            "Changed since commit 1a2b3c4, of the files that the program imports: net.py (Body of body), train.py; "
            "beside them config.yaml."
        ),
        'Baseline: baselines/trajectories/cpu-fast/a.json (accepted 2026-11-02, commit 1a2b3c4, "initial").',
        'Next: find the change; if it is intended: pytest --accept-baselines --reason "..."',
    ]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (None, "What changed since is not known: commit 1a2b3c4 is not in this clone, or this is not git."),
        ([], "Since commit 1a2b3c4 no file changed that the program imports, nor any other."),
        (
            ["config.yaml", "examples/train.py", "baselines/budgets/cpu/a.json"],
            (
                "Since commit 1a2b3c4 no file changed that the program imports; changed are config.yaml, "
                "examples/train.py."
            ),
        ),
        (
            [f"data/{index}.txt" for index in range(5)],
            (
                "Since commit 1a2b3c4 no file changed that the program imports; changed are data/0.txt, data/1.txt, "
                "data/2.txt and 2 more."
            ),
        ),
    ],
)
def test_where_nothing_that_it_imports_changed_the_message_says_so(
    make_result: MakeResult, changed: list[str] | None, told: str
) -> None:
    assert told in tell_divergence(make_result(), changed)


def test_where_it_is_not_known_what_it_imports_the_message_says_so(make_result: MakeResult) -> None:
    result = make_result()
    unknown = replace(result, observed=replace(result.observed, sources={}, project_files=()))
    told = "Changed since commit 1a2b3c4: net.py; it is not known which the program imports."
    assert told in tell_divergence(unknown, ["net.py"])
    assert "Since commit 1a2b3c4 no file changed." in tell_divergence(unknown, [])


def test_names_of_files_that_are_no_text_can_be_written(make_result: MakeResult) -> None:
    told = "\n".join(tell_divergence(make_result(), ["caf\udce9.txt"]))
    assert "changed are caf?.txt." in told


def test_how_it_was_compared_is_told_once(make_result: MakeResult) -> None:
    comparison = TrajectoryComparison(Match.DIVERGED, is_exact=False, divergence=DIVERGENCE, reason="why")
    result = make_result(comparison=comparison)
    assert "Compared by tolerance: why" in tell_divergence(result)
    matching = replace(result, verdict=TrajectoryVerdict.MATCHES)
    assert tell_outcome(matching) == "matches its baseline in 4 steps, by tolerance: why"
    accepted = replace(matching, comparison=replace(comparison, divergence=None))
    assert tell_accepted(replace(accepted, verdict=TrajectoryVerdict.ACCEPTED)).endswith(
        ", compared by tolerance: why"
    )


def test_without_a_commit_no_file_is_spoken_of(make_result: MakeResult) -> None:
    result = make_result()
    assert result.baseline is not None
    origin = replace(result.baseline.provenance, commit=None)
    lines = tell_divergence(replace(result, baseline=replace(result.baseline, provenance=origin)), ["net.py"])
    assert not [line for line in lines if "hanged since" in line]


def test_the_file_of_a_module_is_that_of_the_nearest_class_of_the_project(
    make_trajectory: MakeTrajectory,
) -> None:
    trajectory = make_trajectory(
        sources={"Body": "net.py", "Net": "model.py", "Head": "net.py"},
        settings={"forward": {"body": "Body(width=8)", "body.linear": "Linear(8)", "precision: x": "y"}},
    )
    assert find_sources(trajectory, ["body.linear.weight", "body.linear.bias"]) == {"net.py": "Body of body"}
    assert find_sources(trajectory, ["Net"]) == {"model.py": "Net"}
    # Who holds `head` is not known: it may be any class of the model.
    assert find_sources(trajectory, ["head.weight"]) == {"net.py": "Body, Head", "model.py": "Net"}
    assert find_sources(trajectory, ["optimizer 0 group 0 weight_decay", "precision: x"]) == {}


def test_a_comparison_is_summed_up_in_a_line(
    make_result: MakeResult, make_trajectory: MakeTrajectory
) -> None:
    matches = make_result(TrajectoryVerdict.MATCHES)
    assert tell_outcome(matches) == "matches its baseline in 4 steps, to the last digit"
    other = make_trajectory(numerics_class="cpu-slow")
    by_tolerance = TrajectoryComparison(Match.MATCHES, is_exact=False, reason="another machine.")
    assert tell_outcome(replace(matches, baseline=other, comparison=by_tolerance)) == (
        "matches its baseline of class cpu-slow in 4 steps, by tolerance: another machine"
    )
    unlike = TrajectoryComparison(Match.NOT_COMPARABLE, is_exact=False, reason="cpu and cuda")
    assert tell_outcome(make_result(TrajectoryVerdict.NOT_COMPARABLE, baseline=other, comparison=unlike)) == (
        "not comparable with its baseline of class cpu-slow: cpu and cuda"
    )


def test_accepting_tells_what_moves_and_by_how_much(
    make_result: MakeResult, make_trajectory: MakeTrajectory
) -> None:
    head = "accepted: tests/test_a.py::test_a: "
    assert tell_accepted(make_result(TrajectoryVerdict.ACCEPTED)) == (
        f"{head}final loss 2.1 -> 2.267 (+7.9 %), first difference: gradients at step 6: gradient of "
        "`body.linear.weight` (norm 0.41 -> 0.82, x2.00)"
    )
    first = make_result(TrajectoryVerdict.ACCEPTED, baseline=None, comparison=None)
    assert tell_accepted(first) == f"{head}4 steps, final loss 2.267; the first baseline, cpu-fast"
    beside = make_result(
        TrajectoryVerdict.ACCEPTED,
        baseline=make_trajectory(numerics_class="cpu-slow"),
        comparison=TrajectoryComparison(Match.MATCHES, is_exact=False),
    )
    assert (
        tell_accepted(beside)
        == f"{head}final loss 2.1 -> 2.267 (+7.9 %), new in class cpu-fast beside cpu-slow"
    )
    renamed = TrajectoryComparison(Match.MATCHES, is_exact=True)
    assert tell_accepted(make_result(TrajectoryVerdict.ACCEPTED, comparison=renamed)).endswith(
        ", the same training, of which other names, settings or steps are kept now"
    )
    assert tell_accepted(make_result(TrajectoryVerdict.UNCHANGED)) == (
        "unchanged: tests/test_a.py::test_a: 4 steps, final loss 2.267; "
        "baselines/trajectories/cpu-fast/a.json stays as it is"
    )


def test_moves_count_the_steps_that_differ(make_trajectory: MakeTrajectory) -> None:
    moves = {
        move.metric: move for move in list_moves(make_trajectory([4, 2, 2]), make_trajectory([4, 1, 2, 2]))
    }
    loss = moves["loss"]
    assert (loss.first_step, loss.num_different, loss.num_steps, loss.largest) == (1, 2, 4, 0.5)
    assert moves["learning rate"].first_step == 3
    assert moves["gradient norm"].baseline == 3.0
    same = list_moves(make_trajectory(), make_trajectory())
    assert {(move.first_step, move.num_different, move.largest) for move in same} == {(None, 0, 0.0)}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (1.585, 1.602, "1.585 -> 1.602 (+1.1 %)"),
        (1.0, 1.0000001, "1 -> 1.0000001 (+1.0e-07)"),
        (2.0, 2.0, "2, unchanged"),
        (0.0, 1.0, "0 -> 1"),
        (-2.0, -1.0, "-2 -> -1 (+50.0 %)"),
        (1.0, math.nan, "1 -> nan"),
        (None, 1.0, "none -> 1"),
    ],
)
def test_a_change_is_told_with_as_many_digits_as_it_needs(
    before: float | None, now: float | None, told: str
) -> None:
    assert tell_change(before, now) == told


def build(described: dict[str, Any], outcome: str = "failed") -> dict[str, Any]:
    test = describe_test(
        "tests/test_a.py::test_a",
        runner_class=None,
        runs=[],
        budget=[],
        outcome=outcome,
        message="the message",
        trajectories=[described],
    )
    return build_session([test], version="1", created_at="now")


def test_the_document_holds_the_comparison_and_both_curves(make_result: MakeResult) -> None:
    document = build(describe_trajectory(make_result()))
    (described,) = json.loads(json.dumps(document, allow_nan=False))["tests"][0]["trajectories"]
    assert described["verdict"] == "diverged"
    assert described["divergence"]["phase"] == "gradients"
    assert described["baseline"]["commit"] == "1a2b3c4d5e6f"
    assert described["curves"]["loss"]["observed"] == [[0, 3.0], [1, 2.5], [2, 2.2], [3, 2.1]]
    assert described["curves"]["loss"]["baseline"][3] == [3, 1.8]
    assert described["moves"][0]["metric"] == "loss"
    assert described["band"] == {}
    assert summarize_trajectory(described) == "diverged: gradients at step 6"
    ((*_, verdict),) = build_rows(document)
    assert verdict == "FAILED: diverged"
    assert build_notes(document) == []


def test_a_comparison_by_tolerance_has_a_band_that_ends_where_rounding_has_grown(
    make_result: MakeResult, make_trajectory: MakeTrajectory
) -> None:
    by_tolerance = TrajectoryComparison(Match.MATCHES, is_exact=False)
    long = make_trajectory([2.0] * 200)
    result = make_result(TrajectoryVerdict.MATCHES, comparison=by_tolerance, baseline=long, observed=long)
    band = describe_trajectory(result)["band"]
    step, low, high = band["loss"][0]
    assert step == 0
    assert 1.9 < low < 2.0 < high < 2.1
    assert 1 < len(band["loss"]) < 200
    assert len(band["gradient norm"]) == len(band["loss"])


def test_numbers_that_are_not_finite_are_text_in_the_document(
    make_result: MakeResult, make_trajectory: MakeTrajectory
) -> None:
    document = build(describe_trajectory(make_result(observed=make_trajectory([3.0, math.nan]))))
    (described,) = json.loads(json.dumps(document, allow_nan=False))["tests"][0]["trajectories"]
    assert described["curves"]["loss"]["observed"][1] == [1, "nan"]


def test_notes_tell_of_other_classes_and_accepted_lines_of_what_moved(
    make_result: MakeResult, make_trajectory: MakeTrajectory
) -> None:
    elsewhere = make_result(
        TrajectoryVerdict.MATCHES,
        baseline=make_trajectory(numerics_class="cpu-slow"),
        comparison=TrajectoryComparison(
            Match.MATCHES, is_exact=False, reason="other machine", notes=("a note",)
        ),
    )
    document = build(describe_trajectory(elsewhere), "passed")
    assert build_notes(document) == [
        "test_a.py::test_a: matches its baseline of class cpu-slow in 4 steps, by tolerance: other machine",
        "test_a.py::test_a: a note",
    ]
    accepted = build(describe_trajectory(make_result(TrajectoryVerdict.ACCEPTED)), "passed")
    (line,) = build_accepted(accepted)
    assert line.startswith("accepted: tests/test_a.py::test_a: final loss ")
    assert build_notes(accepted) == []
    assert f"- {line}" in render_markdown(accepted)
    assert build_rows(accepted)[0][-1] == "passed, accepted"


def test_the_summary_links_pictures(make_result: MakeResult) -> None:
    described = describe_trajectory(make_result()) | {"picture": "trajectories/a.svg"}
    assert "Against the baseline: [tests/test_a.py::test_a](trajectories/a.svg)" in render_markdown(
        build(described)
    )
