"""The tables of `benchmarks/gate.py`: stored launches are spent as the gate spends them, and judged by the others."""

from __future__ import annotations

import pytest

from benchmarks.gate import ONE, ROOT, SEVERAL, TIMES, count_several, judge_all, read_pools, spend
from benchmarks.gate import split_drawn as draw
from benchmarks.gate import split_successive as follow
from harness.budgets.verdicts import Verdict

POOL = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("launches", "tolerance", "verdict", "num"),
    [
        ([1.5] * 8, 0.05, Verdict.REGRESSED, 3),
        ([1.0] * 8, 0.05, Verdict.PASS, 1),
        # One that was unlucky is followed by others.
        ([1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0.1, Verdict.PASS, 8),
        ([1.04, 1.04, 1.05, 1.06, 1.06, 1.06, 1.06, 1.06], 0.0, Verdict.REGRESSED, 5),
        # Noise that the first launches do not tell from a slowdown takes all of them.
        ([1.03, 0.98, 1.03, 0.98, 1.03, 0.98, 1.03, 0.98], 0.0, Verdict.INCONCLUSIVE, 8),
    ],
)
def test_launches_are_spent_until_a_look_decides(
    launches: list[float], tolerance: float, verdict: Verdict, num: int
) -> None:
    assert spend(launches, [POOL], tolerance=tolerance, plan=SEVERAL) == (verdict, num)


def test_launches_are_never_judged_by_themselves() -> None:
    pools = [[float(value) for value in range(1, 11)], [float(value) for value in range(21, 31)]]
    for splits, num in ((follow(pools, 3), 20), (draw(pools, 3, 7), 14)):
        made = list(splits)
        assert len(made) == num
        for launches, pool in made:
            assert len(launches) == 3
            assert sorted(launches + pool) in pools
    assert next(follow(pools, 3))[0] == [1.0, 2.0, 3.0]
    assert list(draw(pools, 3, 7)) == list(draw(pools, 3, 7))


def test_stored_launches_pass_as_they_are_and_regress_when_they_are_slower() -> None:
    splits = list(follow(read_pools(ROOT / "baselines", TIMES), SEVERAL.most))
    for plan in (ONE, SEVERAL):
        equal, _ = judge_all(splits, slowdown=0.0, tolerance=0.1, plan=plan)
        assert equal[Verdict.REGRESSED] == 0
        slower, _ = judge_all(splits, slowdown=0.2, tolerance=0.1, plan=plan)
        assert slower[Verdict.REGRESSED] == len(splits)
    assert count_several(splits, 0.4, 0.1) == "100.0% / 0.0% / 3.0"
