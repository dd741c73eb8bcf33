"""Causes come before what follows from them, and a selection is obeyed or refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from harness import assert_healthy
from harness.errors import ObservationError, UsageError
from harness.report.diagnosis import tell_diagnosis, tell_ignored, tell_not_applied
from harness.rules import catalogue
from harness.rules.diagnosis import Diagnosis, diagnose
from harness.rules.finding import Bound, Evidence, Finding, Rule, Severity
from harness.selection import RuleSelection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.record.run import TrainingRun

    MakeRun = Callable[..., TrainingRun]

FLAT = [2.3] * 12
FALLING = [3 * 0.9**step for step in range(20)]


def make_rule(code: str, *, severity: Severity = Severity.ERROR, explains: tuple[str, ...] = ()) -> Rule:
    def check(_run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
        yield Evidence(f"seen by {bounds['least']:g}", "cause", "advice", subject=code.lower(), step=3)

    return Rule(
        code=code,
        name=f"name-{code}",
        severity=severity,
        summary="It holds.",
        explanation="So.",
        cases=("a bug",),
        find_obstacle=lambda _: None,
        check=check,
        bounds=(Bound("least", 1.0, "a number"),),
        explains=explains,
    )


@pytest.fixture
def causal_rules(monkeypatch: pytest.MonkeyPatch) -> list[Rule]:
    """A cause that is only a warning, an error that follows from it, and an error of its own."""
    rules = [
        make_rule("T801", severity=Severity.WARNING),
        make_rule("T401", severity=Severity.WARNING, explains=("T1",)),
        make_rule("T101"),
    ]
    monkeypatch.setattr("harness.rules.diagnosis.BY_CODE", {rule.code: rule for rule in rules})
    return rules


def test_the_cause_leads_and_what_follows_from_it_is_folded_under_it(
    make_run: MakeRun, causal_rules: list[Rule]
) -> None:
    diagnosis = diagnose(make_run(FALLING), causal_rules)
    # T401 leads: it explains an error, which is graver than the warning of T801 alone.
    assert [(finding.code, finding.explained_by) for finding in diagnosis.findings] == [
        ("T401", None),
        ("T101", "T401"),
        ("T801", None),
    ]
    assert [finding.code for finding in diagnosis.errors] == ["T101"]
    (lead, *_) = diagnosis.causes
    assert [finding.code for finding in diagnosis.consequences(lead)] == ["T101"]
    assert tell_diagnosis(diagnosis)[:5] == [
        "warning: T401 name-T401 [t401, step 3]",
        "  seen by 1",
        "  Likely: cause",
        "  Next: advice",
        "  follows from it: T101 name-T101 (error): seen by 1",
    ]


def test_a_note_explains_no_error(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [make_rule("T401", severity=Severity.NOTE, explains=("T1",)), make_rule("T101")]
    monkeypatch.setattr("harness.rules.diagnosis.BY_CODE", {rule.code: rule for rule in rules})
    diagnosis = diagnose(make_run(FALLING), rules)
    assert [(finding.code, finding.explained_by) for finding in diagnosis.findings] == [
        ("T101", None),
        ("T401", None),
    ]


def test_only_what_is_selected_applies(make_run: MakeRun) -> None:
    run = make_run(FLAT, selection=RuleSelection(select=("T2",)))
    diagnosis = diagnose(run)
    assert diagnosis.findings == ()
    assert diagnosis.not_applied["T101"] == "not selected"
    assert all(code.startswith("T2") for code in diagnosis.applied)


def test_what_is_ignored_fails_nothing_and_is_told_with_its_reason(make_run: MakeRun) -> None:
    run = make_run(FLAT, selection=RuleSelection(ignore={"T1": "flat on purpose"}))
    diagnosis = diagnose(run)
    assert diagnosis.errors == []
    (line,) = tell_ignored(diagnosis)
    assert line.startswith("ignored: T101 loss-not-decreasing (flat on purpose): every one of the 12 losses")
    assert_healthy(run)


def test_a_severity_is_what_the_user_says(make_run: MakeRun) -> None:
    milder = make_run(FLAT, selection=RuleSelection(severity={"T101": "warning"}))
    assert [finding.severity for finding in diagnose(milder).findings] == [Severity.WARNING]
    unsure = make_run([2.0, 1.5, 2.2, 1.7, 1.9, 1.8], selection=RuleSelection(severity={"T101": "error"}))
    assert [finding.severity for finding in diagnose(unsure).findings] == [Severity.ERROR]


def test_a_bound_is_changed(make_run: MakeRun, causal_rules: list[Rule]) -> None:
    rising = [1 + 0.002 * step for step in range(40)]
    assert diagnose(make_run(rising)).errors
    patient = make_run(rising, selection=RuleSelection(bounds={"T101": {"min_change": 0.5}}))
    assert not diagnose(patient).errors
    (finding,) = causal_rules[0].apply(make_run(), bounds={"least": 7})
    assert finding.message == "seen by 7"


def test_the_nearer_selection_goes_over_the_farther_one() -> None:
    project = RuleSelection(
        select=("T",), ignore={"T1": "project"}, bounds={"T101": {"min_change": 0.1, "other": 1.0}}
    )
    nearer = RuleSelection(ignore={"T101": "test"}, bounds={"T101": {"min_change": 0.2}})
    merged = project.merge(nearer)
    assert merged.select == ("T",)
    assert merged.find_reason_to_ignore("T101") == "test"
    assert merged.find_reason_to_ignore("T102") == "project"
    assert merged.bounds == {"T101": {"min_change": 0.2, "other": 1.0}}
    assert project.merge(RuleSelection(select=("A",))).select == ("A",)


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        (RuleSelection(select=("T1011",)), "there is no rule 'T1011'.*did you mean 'T101'"),
        (RuleSelection(ignore={"X9": "why"}), "there is no rule 'X9'"),
        (RuleSelection(ignore={"": "why"}), "there is no rule ''"),
        (RuleSelection(severity={"Q": "error"}), "there is no rule 'Q'"),
        (RuleSelection(bounds={"T1": {"min_change": 1.0}}), "there is no rule 'T1'"),
        (
            RuleSelection(bounds={"T101": {"min_chnge": 1.0}}),
            "T101 has no bound 'min_chnge' .did you mean 'min_change'.*harness rules T101",
        ),
    ],
)
def test_a_rule_or_bound_that_there_is_not_is_refused(
    make_run: MakeRun, selection: RuleSelection, told: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){told}"):
        diagnose(make_run(selection=selection))


def test_assert_healthy_takes_a_selection_of_its_own(make_run: MakeRun) -> None:
    with pytest.raises(AssertionError, match="T101"):
        assert_healthy(make_run(FLAT))
    assert_healthy(make_run(FLAT), ignore={"T101": "flat on purpose"})
    assert_healthy(make_run(FLAT), select=["T2"])
    assert_healthy(make_run(FLAT), severity={"T101": "warning"})
    with pytest.raises(UsageError, match="must give a reason for every code"):
        assert_healthy(make_run(FLAT), ignore=["T101"])  # type: ignore[arg-type]


def test_a_selection_that_leaves_nothing_to_judge_is_an_error(make_run: MakeRun) -> None:
    with pytest.raises(ObservationError, match="no rule applies"):
        assert_healthy(make_run([math.nan] * 12), select=["T101"])


def test_reasons_why_rules_were_not_applied_are_told_once() -> None:
    diagnosis = Diagnosis(
        (), (), {"T101": "too short", "T401": "not watched", "T102": "too short", "A101": "not selected"}
    )
    assert tell_not_applied(diagnosis) == [
        "not applied: T101, T102: too short",
        "not applied: T401: not watched",
        "not selected: 1 rules",
    ]


def test_the_catalogue_is_in_order() -> None:
    codes = [rule.code for rule in catalogue.RULES]
    names = [rule.name for rule in catalogue.RULES]
    assert len(set(codes)) == len(codes)
    assert len(set(names)) == len(names)
    for index, rule in enumerate(catalogue.RULES):
        assert any(rule.code.startswith(family) for family in catalogue.FAMILIES), rule.code
        assert rule.cases, rule.code
        assert rule.summary.endswith("."), rule.code
        for later in rule.explains:
            assert any(other.startswith(later) for other in codes), (
                f"{rule.code} explains {later}, which is no rule"
            )
            before = [
                other for other in codes[:index] if other.startswith(later) and len(later) == len(other)
            ]
            assert not before, f"{rule.code} explains {before}, which come before it"


def test_a_finding_is_plain_json() -> None:
    finding = Finding("T101", "n", Severity.NOTE, "m", "c", "a", "s", step=3, explained_by="T401")
    assert finding.to_json() == {
        "code": "T101",
        "name": "n",
        "severity": "note",
        "message": "m",
        "cause": "c",
        "advice": "a",
        "subject": "s",
        "step": 3,
        "explained_by": "T401",
    }
