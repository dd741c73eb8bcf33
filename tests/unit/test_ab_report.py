"""Head against base in words: the table, the verdict, what to do next."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.budgets.ab import PairedVerdict, PhaseChange, Ratio, judge_pairs
from harness.budgets.launch_pair import LaunchPair
from harness.budgets.verdicts import Verdict
from harness.commands.ab import find_exit_code
from harness.record.counters import CountedStep
from harness.report.ab import Side, Told, describe_comparison, tell_comparison

PAIR = LaunchPair(
    log_ratio=0.0953,
    drift=0.0,
    base_step_s=0.0291,
    head_step_s=0.0320,
    phases_s={"forward": (0.0116, 0.0145), "backward": (0.0175, 0.0175)},
    growth={"forward": 0.0997, "backward": 0.0},
    num_steps=50,
    num_warm_up=1,
)
COUNTED = CountedStep(3, {"forward": {"aten::mm": 4}}, {"forward": 2000}, 4096)
BASE = Side("origin/main (4f6ce1e)", 60, 3.1, 400 * 2**20, 16, 1024, COUNTED)


def make_told(verdict: PairedVerdict, **changes: object) -> Told:
    told = Told(
        verdict=verdict,
        base=BASE,
        head=dataclasses.replace(BASE, name="the work tree at 0c15428"),
        ratios={"throughput": Ratio(-0.09, -0.1, -0.08), "peak_memory_bytes": Ratio(0.0, -0.001, 0.001)},
        pairs=[PAIR] * 4,
        wall_clock_s=31.2,
        has_equal_losses=True,
        loaded_changes=["my model/a.py"],
        base_commit="4f6ce1e",
        head_commit=None,
        notes=["a note"],
    )
    return dataclasses.replace(told, **changes)  # type: ignore[arg-type]


def make_verdict(kind: Verdict) -> PairedVerdict:
    phases = (
        PhaseChange("forward", 0.0116, 0.0145, 0.0997, 0.08, 0.12, 0.0001, is_named=True),
        PhaseChange("backward", 0.0175, 0.0175, 0.0, -0.01, 0.01, 1.0, is_named=False),
    )
    return PairedVerdict(kind, Ratio(0.1, 0.09, 0.11), 0.02, 4, phases, 0.3, is_final=True)


def test_a_regression_tells_how_much_where_and_the_diff_to_look_at() -> None:
    text = tell_comparison(make_told(make_verdict(Verdict.REGRESSED)))
    rows = [line.split() for line in text.splitlines()]
    assert ["step", "time", "29.1", "ms", "32", "ms", "+10.0%", "95", "%:", "+9.0%", "to", "+11.0%"] in rows
    assert "+10.0% of a step  95 %: +8.0% to +12.0%; got slower\n" in text
    assert "+0.0% of a step  95 %: -1.0% to +1.0%\n" in text
    joined = [" ".join(row) for row in rows]
    assert "throughput 35,189 tokens/s 32,000 tokens/s -9.0% 95 %: -10.0% to -8.0%" in joined
    assert "peak memory 400.0 MiB 400.0 MiB +0.0% 95 %: -0.1% to +0.1%" in joined
    assert (
        "regressed: a step of head takes 10.0% longer than one of base (95 %: +9.0% to +11.0%; 2.0% allowed); "
        "slower: forward 11.6 ms -> 14.5 ms\n"
        "Next: git diff 4f6ce1e -- 'my model/a.py'"
    ) in text
    assert "losses: the same to the last bit" in text
    assert "note: a note" in text


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        (Verdict.PASS, "pass: the step time changed by +10.0%"),
        (Verdict.IMPROVED, "improved: a step of head takes 10.0% less"),
        (Verdict.INCONCLUSIVE, "inconclusive: the step time changed by +10.0%"),
        (Verdict.NOT_STEADY, "not steady: how much head differs from base depends on the step."),
    ],
)
def test_every_verdict_has_words_of_its_own(kind: Verdict, begin: str) -> None:
    lines = tell_comparison(make_told(make_verdict(kind))).splitlines()
    (line,) = [line for line in lines if line.startswith(begin)]
    assert "got slower" not in "\n".join(lines)
    assert (lines[-1] == line) == (kind in (Verdict.PASS, Verdict.IMPROVED))


def test_the_document_holds_what_json_can_hold() -> None:
    verdict = judge_pairs([PAIR] * 3, tolerance=0.02)
    facts = json.loads(json.dumps(describe_comparison(make_told(verdict, head_commit="abc"))))
    assert facts["outcome"] == "regressed"
    assert facts["head"]["commit"] == "abc"
    assert facts["pairs"][0]["log_ratio"] == PAIR.log_ratio


@pytest.mark.parametrize(
    ("kind", "inconclusive", "code"),
    [
        (Verdict.PASS, "fail", 0),
        (Verdict.IMPROVED, "fail", 0),
        (Verdict.REGRESSED, "warn", 1),
        (Verdict.INCONCLUSIVE, "warn", 0),
        (Verdict.INCONCLUSIVE, "fail", 1),
        (Verdict.NOT_STEADY, "warn", 2),
    ],
)
def test_exit_codes(kind: Verdict, inconclusive: str, code: int) -> None:
    assert find_exit_code(kind, inconclusive) == code


def test_changed_operations_explain_a_changed_time() -> None:
    equal = tell_comparison(make_told(make_verdict(Verdict.PASS)))
    assert "operations: equal, 4 and 2,000 FLOPs a step\n" in equal
    more = dataclasses.replace(COUNTED, ops={**COUNTED.ops, "backward": {"aten::copy_": 17}})
    head = dataclasses.replace(BASE, counted=more)
    text = tell_comparison(make_told(make_verdict(Verdict.REGRESSED), head=head))
    assert "operations: 4 -> 21 a step\n  17 more aten::copy_ a step, in backward, none before\n" in text
    unseen = dataclasses.replace(BASE, counted=None)
    assert "could not be counted" in tell_comparison(make_told(make_verdict(Verdict.PASS), head=unseen))


def test_what_was_not_seen_is_left_out_of_the_table() -> None:
    nothing = dataclasses.replace(BASE, num_samples=None, num_tokens=None, peak_memory_bytes=None)
    text = tell_comparison(make_told(make_verdict(Verdict.PASS), base=nothing))
    assert "samples" not in text
    assert "peak memory" not in text
