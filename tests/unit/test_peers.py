"""The peers of `benchmarks/peers.py`: each judges as it would, on the same launches."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.gate import ONE, ROOT, TIMES, read_pools
from benchmarks.peers import (
    Rule,
    ask_gate,
    ask_point,
    ask_pytest_benchmark,
    compare_recorded,
    compare_stored,
    list_cases,
    list_gates,
    list_peers,
    list_slowdowns,
    widen,
)

POOL = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0, 1.0, 1.0]


def make_trial(slower: float, base_s: float, **more: Any) -> dict[str, Any]:
    facts = {"verdict": "regressed" if slower else "pass", "tolerance": 0.02, "machine": "cpu-x"}
    return facts | {"slower": slower, "base_s": [base_s] * 3, "logs": [math.log1p(slower)] * 3} | more


def test_each_rule_looks_at_its_own_statistic_of_the_launches() -> None:
    slow_once = ([1.0, 1.0, 1.3], [1.0, 1.0, 1.0])
    slow_always = ([1.12, 1.12, 1.12], [1.0, 1.0, 1.0])
    first_slow = ([1.08, 1.0, 1.0], [1.0, 1.0, 1.0])
    cases = [slow_once, slow_always, first_slow]
    assert ask_pytest_benchmark("mean:5%")(cases) == [True, True, False]
    assert ask_pytest_benchmark("min:5%")(cases) == [False, True, False]
    assert ask_pytest_benchmark("median:10%")(cases) == [False, True, False]
    assert ask_point(0.07)(cases) == [False, True, True]
    assert ask_gate(ONE, 0.05)([([1.3], POOL), ([1.0], POOL)]) == [True, False]


def test_every_rule_gets_launches_that_are_not_its_own_and_the_same_ones_lead() -> None:
    pools = [[float(value) for value in range(1, 21)]]
    few, many = Rule("few", ask_point(0.1)), Rule("many", ask_gate(ONE, 0.1), 8, None)
    for (head, earlier), (heads, pool) in zip(
        few.draw_cases(pools, 5, 0.0), many.draw_cases(pools, 5, 0.0), strict=True
    ):
        assert (len(head), len(earlier), len(heads), len(pool)) == (1, 1, 8, 12)
        assert head[0] == heads[0]
        assert sorted(heads + pool) == pools[0]
    (slower, _), *_ = few.draw_cases(pools, 1, 0.5)
    (equal, _), *_ = few.draw_cases(pools, 1, 0.0)
    assert slower == [value * 1.5 for value in equal]


def test_stored_launches_that_are_slower_by_a_fifth_fail_every_rule_and_equal_ones_do_not_fail_ours() -> None:
    rows = compare_stored(read_pools(ROOT / "baselines", TIMES), [*list_gates(), *list_peers(None)], 20)
    shares = {(name, head): [float(cell.rstrip("%")) for cell in cells] for name, head, _, *cells in rows}
    assert all(cells[-1] > 95 for cells in shares.values())
    assert shares["stored gate, tolerance 5%", "up to 8"][0] == 0
    # Of pairs of single launches that differ by 2 to 3 %, some differ by 5 % and more.
    assert shares["pytest-benchmark, `compare-fail=mean:5%`", "1"][0] > 0


def test_where_launches_differ_twice_as_much_a_fixed_bound_alarms_and_the_stored_gate_does_not() -> None:
    pools = [widen(pool, 2.0) for pool in read_pools(ROOT / "baselines", TIMES)]
    assert math.isclose(max(widen(POOL, 2.0)) / min(widen(POOL, 2.0)), (1.02 / 0.98) ** 2)
    rows = compare_stored(pools, [list_gates()[-1], Rule("point gate, 7%", ask_point(0.07))], 50)
    ours, theirs = (float(row[3].rstrip("%")) for row in rows)
    assert ours < 2
    assert theirs > 10


def test_earlier_launches_are_the_base_in_turns_or_that_of_the_trial_before_on_the_same_machine() -> None:
    trials = [
        make_trial(0.0, 1.0),
        make_trial(0.5, 2.0, machine="cpu-y"),
        make_trial(0.0, 3.0),
        make_trial(0.5, 4.0),
    ]
    assert [earlier[0] for _, earlier in list_cases(trials, 0.0, from_before=False)] == [1.0, 3.0]
    assert [earlier[0] for _, earlier in list_cases(trials, 0.0, from_before=True)] == [1.0]
    ((head, earlier),) = list_cases(trials, 0.5, from_before=True)
    assert (round(head[0], 6), earlier[0]) == (6.0, 3.0)


def test_recorded_comparisons_are_judged_by_the_peers_beside_their_own_verdict() -> None:
    at_once = {"drifts": [0.0] * 3, "is_time_over": True, "logs": [0.01, 0.0102, 0.0098]}
    trials = [make_trial(0.0, 1.0, **at_once), make_trial(0.0, 1.2), make_trial(0.03, 1.2)]
    rows = compare_recorded(trials, [Rule("point gate, 7%", ask_point(0.07))])
    none = "none made"
    assert rows == [
        ["`harness ab`, tolerance 0%", "in turns", "100% of 1", none],
        ["`harness ab`, tolerance 2%", "in turns", "0% of 2", "100% of 1"],
        ["point gate, 7%", "in turns", "0% of 2", "0% of 1"],
        ["point gate, 7%", "of the trial before", "100% of 1", "0% of 1"],
    ]
    assert list_slowdowns(trials) == [0.0, 0.03]
