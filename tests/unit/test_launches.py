"""How many launches a budget takes: until it is decided, or the time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import clock
from harness.budgets.launches import LaunchPlan, spend_launches
from harness.budgets.results import BudgetResult
from harness.budgets.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.record.run import TrainingRun

LAUNCH_S = 10.0


class Program:
    """A program whose launches take ten seconds, with a verdict for each number of launches."""

    def __init__(
        self, run: TrainingRun, verdicts: dict[int, Verdict], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.now_s = 0.0
        self.looks: list[tuple[int, bool]] = []
        self.lines: list[str] = []
        self._run, self._verdicts = run, verdicts
        monkeypatch.setattr(clock, "monotonic_s", lambda: self.now_s)

    def launch(self) -> TrainingRun:
        self.now_s += LAUNCH_S
        return self._run

    def judge(self, runs: Sequence[TrainingRun], is_last: bool) -> list[BudgetResult]:
        self.looks.append((len(runs), is_last))
        verdict = self._verdicts.get(len(runs), Verdict.INCONCLUSIVE)
        return [BudgetResult("step_time_s", verdict, 1.0, 1.0, 0.0, "told")]


@pytest.fixture
def make_program(
    make_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[int, Verdict]], Program]:
    return lambda verdicts: Program(make_run(), verdicts, monkeypatch)


def test_the_first_look_that_decides_is_the_last(make_program: Callable[..., Program]) -> None:
    program = make_program({3: Verdict.REGRESSED})
    judged = spend_launches(program.launch, program.judge, LaunchPlan(8, 1000), program.lines.append)
    assert len(judged.runs) == 3
    assert program.looks == [(1, False), (2, False), (3, False)]
    assert [result.verdict for result in judged.results] == [Verdict.REGRESSED]
    assert not judged.is_cut_short


def test_what_is_never_decided_takes_all_launches(make_program: Callable[..., Program]) -> None:
    program = make_program({})
    judged = spend_launches(program.launch, program.judge, LaunchPlan(6, 1000), program.lines.append)
    assert program.looks == [(1, False), (2, False), (3, False), (5, False), (6, True)]
    assert len(judged.runs) == 6
    assert not judged.is_cut_short
    assert program.lines[0] == "1 launch of 6 at most, 10 s of 1000 s; not decided: step_time_s"


def test_no_launch_is_started_that_would_end_after_the_time(make_program: Callable[..., Program]) -> None:
    program = make_program({})
    judged = spend_launches(program.launch, program.judge, LaunchPlan(8, 45), program.lines.append)
    assert len(judged.runs) == 4
    assert program.looks[-1] == (4, True)
    assert judged.is_cut_short


def test_one_launch_is_run_in_any_case(make_program: Callable[..., Program]) -> None:
    program = make_program({})
    judged = spend_launches(program.launch, program.judge, LaunchPlan(8, 0), program.lines.append)
    assert program.looks == [(1, True)]
    assert judged.is_cut_short


def test_launches_that_are_accepted_are_looked_at_once(make_program: Callable[..., Program]) -> None:
    program = make_program({1: Verdict.PASS, 7: Verdict.ACCEPTED})
    judged = spend_launches(
        program.launch, program.judge, LaunchPlan(7, 1000), program.lines.append, all_at_once=True
    )
    assert program.looks == [(7, True)]
    assert len(judged.runs) == 7
    assert len(program.lines) == 6
