"""Audits across waves and label changes net of noise: the bets are fair, the tests keep their size and have power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from semtel_batch.quality.certificate import Target
from semtel_batch.quality.excess import (
    Excess,
    NoiseFloor,
    beyond_reach,
    excess,
    excess_interval,
    excess_p_value,
    net_cdf,
)
from semtel_batch.quality.waves import Standing, Wave, log_wealth_above, log_wealth_below, standing, watch


@pytest.mark.parametrize("limit", [0.03, 0.2])
@pytest.mark.parametrize("n", [1, 7, 60])
def test_bets_are_fair_at_the_limit(n: int, limit: float) -> None:
    x = np.arange(n + 1)
    chance = stats.binom.pmf(x, n, limit)
    for wealth in (log_wealth_below, log_wealth_above):
        assert np.sum(chance * np.exp([wealth(int(k), n, limit) for k in x])) == pytest.approx(1.0)


def test_bets_lose_where_the_hypothesis_holds() -> None:
    x = np.arange(61)
    worse = stats.binom.pmf(x, 60, 0.08)
    assert np.sum(worse * np.exp([log_wealth_below(int(k), 60, 0.05) for k in x])) < 1


def test_seventy_four_right_ones_are_enough() -> None:
    assert log_wealth_below(0, 74, 0.05) >= math.log(20) > log_wealth_below(0, 73, 0.05)


def test_waves_are_certified_or_alarm() -> None:
    good = watch([Wave(n=50, n_different=1), Wave(n=500, n_different=8)], 0.05)
    assert (good.n, good.n_different, standing(good, 0.05)) == (550, 9, Standing.CERTIFIED)
    assert standing(watch([Wave(n=50, n_different=2)], 0.05), 0.05) is Standing.OPEN
    assert standing(watch([Wave(n=100, n_different=20)], 0.05), 0.05) is Standing.ALARM
    assert standing(watch([], 0.05), 0.05) is Standing.OPEN


def test_what_goes_wrong_late_is_seen() -> None:
    waves = [Wave(n=1000, n_different=5), Wave(n=200, n_different=30)]  # 2.9 % in all: below the limit
    assert standing(watch(waves, 0.05), 0.05) is Standing.ALARM


def test_a_certificate_once_earned_stays() -> None:
    waves = [Wave(n=400, n_different=4), Wave(n=100, n_different=8)]
    assert watch(waves, 0.05).certain == watch(waves[:1], 0.05).certain


def test_false_alarms_are_as_rare_as_promised() -> None:
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        waves = [Wave(n=100, n_different=int(x)) for x in random.binomial(100, 0.05, 6)]
        alarms += standing(watch(waves, 0.05), 0.05) is Standing.ALARM
    assert stats.binomtest(alarms, 300, 0.05, alternative="greater").pvalue > 0.01


def test_pairs_of_flags_are_counted() -> None:
    seen = excess([True, True, False, False], [True, False, True, False])
    assert (seen, seen.mean) == (Excess(n_worse=1, n_same=2, n_better=1), 0.0)


def _chance_of(net: int, n: int, worse: float, better: float) -> float:
    """P(n_worse - n_better ≤ net) by counting: the multinomial, term by term."""
    total = 0.0
    for w in range(n + 1):
        for b in range(max(0, w - net), n - w + 1):
            total += stats.multinomial.pmf([w, b, n - w - b], n, [worse, better, 1 - worse - better])
    return total


@pytest.mark.parametrize("net", [1, -2])
def test_the_net_has_its_exact_law(net: int) -> None:
    assert net_cdf(net, 12, 0.3, 0.1) == pytest.approx(_chance_of(net, 12, 0.2, 0.1))


@pytest.mark.parametrize(("both", "n"), [(0.0, 300), (0.03, 500), (0.10, 800)])
def test_excess_keeps_its_size(both: float, n: int) -> None:
    random = np.random.default_rng(11)
    worse, better = 0.03 + both, both  # the excess is 3 %, just too much
    wrong = 0
    for w, s, b in random.multinomial(n, [worse, 1 - worse - better, better], 120):
        wrong += excess_p_value(Excess(n_worse=int(w), n_same=int(s), n_better=int(b)), 0.03) <= 0.05
    assert stats.binomtest(wrong, 120, 0.05, alternative="greater").pvalue > 0.01


def test_excess_has_power() -> None:
    random = np.random.default_rng(12)
    counts = random.multinomial(500, [0.015, 0.97, 0.015], 100)
    found = [excess_p_value(Excess(n_worse=w, n_same=s, n_better=b), 0.03) <= 0.05 for w, s, b in counts.tolist()]
    assert np.mean(found) >= 0.8


def test_excess_of_nothing_and_of_no_change() -> None:
    assert excess_p_value(Excess(n_worse=0, n_same=0, n_better=0), 0.03) == 1.0
    assert excess_p_value(Excess(n_worse=0, n_same=1000, n_better=0), 0.03) <= 0.002
    assert excess_interval(Excess(n_worse=0, n_same=0, n_better=0)) == (-1.0, 1.0)


def test_the_interval_of_an_excess_holds_it() -> None:
    low, high = excess_interval(Excess(n_worse=25, n_same=465, n_better=10))
    assert -0.01 < low < 0.03 < high < 0.07
    mirrored = excess_interval(Excess(n_worse=10, n_same=465, n_better=25))
    assert mirrored == pytest.approx((-high, -low))


def test_the_noise_floor_says_what_it_is() -> None:
    floor = NoiseFloor(classifier="topic", n=200, n_flipped=12)
    assert floor.wording == "topic: asked twice in the same way, 6 % of labels change (3.1 % – 10.2 %, n=200)"
    assert beyond_reach(floor, Target(max_disagreement=0.05)) is not None
    assert beyond_reach(floor, Target(max_disagreement=0.10)) is None
    unmeasured = NoiseFloor(classifier="topic", n=0, n_flipped=0)
    assert (unmeasured.self_flip, unmeasured.wording) == (None, "topic: noise floor unmeasured")
    assert beyond_reach(unmeasured, Target()) is None
