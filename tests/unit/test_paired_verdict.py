"""Head against base: what a number of pairs comes to, and how often that is wrong."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from harness.budgets.ab import ALPHA, LOOKS, PairedVerdict, correct_holm, find_level, judge_pairs
from harness.budgets.launch_pair import LaunchPair
from harness.budgets.verdicts import Verdict

BASE_S = {"data": 0.001, "forward": 0.010, "backward": 0.015, "optimizer": 0.003, "other": 0.001}
STEP_S = sum(BASE_S.values())


def make_pair(
    change: float,
    *,
    phase: str = "forward",
    drift: float = 0.0,
    noise: float = 0.0,
    chance: random.Random | None = None,
) -> LaunchPair:
    """A pair whose head is slower by `change`, all of it in one phase, give or take the noise of a launch."""
    luck = chance.gauss(0, noise) if chance is not None else 0.0
    head_s = {name: time_s * math.exp(luck) for name, time_s in BASE_S.items()}
    head_s[phase] += change * STEP_S
    log_ratio = math.log(sum(head_s.values()) / STEP_S)
    return LaunchPair(
        log_ratio=log_ratio,
        drift=drift + (chance.gauss(0, noise) if chance is not None else 0.0),
        base_step_s=STEP_S,
        head_step_s=sum(head_s.values()),
        phases_s={name: (BASE_S[name], head_s[name]) for name in BASE_S},
        growth={name: (head_s[name] - BASE_S[name]) / STEP_S for name in BASE_S},
        num_steps=50,
        num_warm_up=0,
    )


MAX_PAIRS = 6
"""What fits into the default allowance on an idle machine."""


def decide(
    change: float, *, tolerance: float, noise: float, chance: random.Random, phase: str = "forward"
) -> PairedVerdict:
    """A whole comparison: pairs until a look is final, or the time is over."""
    pairs: list[LaunchPair] = []
    while True:
        pairs.append(make_pair(change, phase=phase, noise=noise, chance=chance))
        if len(pairs) < LOOKS[0]:
            continue
        verdict = judge_pairs(pairs, tolerance=tolerance, is_last=len(pairs) == MAX_PAIRS)
        if verdict.is_final:
            return verdict


@pytest.mark.parametrize("last", range(LOOKS[0], LOOKS[-1] + 1))
def test_the_looks_spend_no_more_than_the_whole_error_rate_whenever_the_time_is_over(last: int) -> None:
    looks = [look for look in LOOKS if look < last]
    parts = [
        *(find_level(ALPHA, look, is_last=False) for look in looks),
        find_level(ALPHA, last, is_last=True),
    ]
    assert sum(parts) == pytest.approx(ALPHA)
    assert all(part > 0 for part in parts)


@pytest.mark.parametrize(
    ("tolerance", "largest"), [(0.0, 0.02), (0.02, 0.0)], ids=["no tolerance", "two per cent"]
)
def test_equal_programs_are_seldom_called_regressed(tolerance: float, largest: float) -> None:
    chance = random.Random(1)
    verdicts = Counter(
        decide(0.0, tolerance=tolerance, noise=0.004, chance=chance).verdict for _ in range(500)
    )
    assert verdicts[Verdict.REGRESSED] / 500 <= largest, verdicts


def test_a_change_of_just_the_tolerance_is_seldom_called_regressed() -> None:
    chance = random.Random(2)
    verdicts = Counter(decide(0.02, tolerance=0.02, noise=0.01, chance=chance).verdict for _ in range(500))
    assert verdicts[Verdict.REGRESSED] / 500 <= 0.02, verdicts


@pytest.mark.parametrize(("change", "tolerance", "least"), [(0.02, 0.0, 0.9), (0.05, 0.02, 0.95)])
def test_slowdowns_are_found_at_the_noise_of_an_idle_machine(
    change: float, tolerance: float, least: float
) -> None:
    chance = random.Random(3)
    found = [
        decide(change, tolerance=tolerance, noise=0.006, chance=chance, phase="backward") for _ in range(300)
    ]
    assert sum(verdict.verdict is Verdict.REGRESSED for verdict in found) / 300 >= least
    named = [[phase.phase for phase in verdict.phases if phase.is_named] for verdict in found]
    assert sum(names == ["backward"] for names in named) / 300 >= least


def test_a_noisy_machine_gives_inconclusive_and_not_pass() -> None:
    chance = random.Random(4)
    verdicts = Counter(decide(0.0, tolerance=0.02, noise=0.08, chance=chance).verdict for _ in range(200))
    assert verdicts[Verdict.INCONCLUSIVE] > 150
    assert verdicts[Verdict.REGRESSED] / 200 <= ALPHA


def test_equal_programs_pass_at_the_first_look_on_a_quiet_machine() -> None:
    chance = random.Random(5)
    verdict = judge_pairs([make_pair(0.0, noise=0.002, chance=chance) for _ in range(3)], tolerance=0.02)
    assert verdict.verdict is Verdict.PASS
    assert verdict.is_final


def test_a_faster_head_is_improved() -> None:
    pairs = [make_pair(-0.1 - 0.001 * number) for number in range(5)]
    verdict = judge_pairs(pairs, tolerance=0.02)
    assert verdict.verdict is Verdict.IMPROVED
    assert verdict.step_time.change == pytest.approx(-0.1, abs=0.01)


def test_between_the_looks_nothing_is_decided() -> None:
    pairs = [make_pair(0.5 + 0.001 * number) for number in range(4)]
    verdict = judge_pairs(pairs, tolerance=0.02)
    assert not verdict.is_final


def test_when_time_is_over_between_two_looks_a_known_ratio_passes_and_an_unknown_one_does_not() -> None:
    quiet = [make_pair(0.001 * (number % 2)) for number in range(6)]
    assert judge_pairs(quiet, tolerance=0.02, is_last=True).verdict is Verdict.PASS
    noisy = [make_pair(0.1 * (number % 2)) for number in range(6)]
    assert judge_pairs(noisy, tolerance=0.02, is_last=True).verdict is Verdict.INCONCLUSIVE


def test_a_ratio_that_moves_along_the_run_is_not_steady() -> None:
    pairs = [make_pair(0.3 + 0.001 * number, drift=0.2 + 0.001 * number) for number in range(5)]
    verdict = judge_pairs(pairs, tolerance=0.02)
    assert verdict.verdict is Verdict.NOT_STEADY
    assert verdict.drift == pytest.approx(math.expm1(0.202))


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than the 3"):
        judge_pairs([make_pair(0.0)] * 2, tolerance=0.02)


def test_equal_numbers_pass() -> None:
    assert judge_pairs([make_pair(0.0)] * 4, tolerance=0.0, is_last=True).verdict is Verdict.PASS
    assert judge_pairs([make_pair(0.5)] * 3, tolerance=0.02).verdict is Verdict.REGRESSED


def test_holm_multiplies_by_what_is_left_and_keeps_the_order() -> None:
    assert correct_holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
