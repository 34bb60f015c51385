"""Exact tests, bounds and sample sizes against scipy's distributions, published tables and simulated samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from semtel_batch.quality.certificate import (
    Sampled,
    Step,
    Target,
    certify,
    certify_path,
    hypergeometric_cdf,
    least_bad,
    level,
    p_value,
    percent,
    sample_size,
    upper_bound,
    zero_error_size,
)

FIVE = Target(max_disagreement=0.05, delta=0.05)


@settings(deadline=None)
@given(st.data())
def test_the_hypergeometric_is_scipys(data: st.DataObject) -> None:
    population = data.draw(st.integers(1, 10**8))
    marked, n = data.draw(st.integers(0, population)), data.draw(st.integers(0, min(population, 2000)))
    x = data.draw(st.integers(0, n))
    expected = stats.hypergeom.cdf(x, population, marked, n)
    assert hypergeometric_cdf(x, population, marked, n) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("epsilon", "population", "marked"), [(0.29, 100, 30), (0.05, 20_000, 1001), (1 - 0.9, 10, 2)])
def test_the_least_bad_world_is_counted_exactly(epsilon: float, population: int, marked: int) -> None:
    assert least_bad(epsilon, population) == marked  # 0.29 · 100 and 1 - 0.9 are off by a last digit as floats


@pytest.mark.parametrize(("x", "n"), [(0, 59), (2, 150), (10, 400)])
def test_a_large_population_is_the_binomial_limit(x: int, n: int) -> None:
    assert p_value(x, n, 0.05, 10**8) == pytest.approx(p_value(x, n, 0.05), rel=1e-3)
    assert p_value(x, n, 0.05) == pytest.approx(stats.binom.cdf(x, n, 0.05))
    assert p_value(x, n, 0.05, 1_000) < p_value(x, n, 0.05)  # what was looked at can't be bad any more


@settings(deadline=None)
@given(st.data())
def test_the_bound_is_the_inverted_test(data: st.DataObject) -> None:
    population = data.draw(st.integers(1, 3000))
    n = data.draw(st.integers(0, population))
    x, epsilon = data.draw(st.integers(0, n)), data.draw(st.floats(0.001, 0.999))
    bound = upper_bound(x, n, 0.05, population)
    assert (p_value(x, n, epsilon, population) <= 0.05) == (round(bound * population) < least_bad(epsilon, population))


@pytest.mark.parametrize("marked", [3, 40, 333])
def test_the_bound_covers(marked: int) -> None:
    population, n = 1000, 120
    x = np.arange(n + 1)
    misses = [upper_bound(int(k), n, 0.1, population) < marked / population for k in x]
    assert stats.hypergeom.pmf(x, population, marked, n)[misses].sum() <= 0.1


@pytest.mark.parametrize(
    ("epsilon", "zero", "quarter", "half", "three_quarters"),
    [(0.10, 29, 61, 179, 803), (0.05, 59, 153, 361, 1679), (0.02, 149, 386, 969, 4318)],
)
def test_sample_sizes(epsilon: float, zero: int, quarter: int, half: int, three_quarters: int) -> None:
    target = Target(max_disagreement=epsilon)
    sizes = [sample_size(target, share * epsilon) for share in (0, 0.25, 0.5, 0.75)]
    assert (zero_error_size(target), *sizes) == (zero, zero, quarter, half, three_quarters)


def test_a_sample_size_has_its_power_and_the_next_smaller_ones_not() -> None:
    def power(n: int) -> float:
        passing = int((stats.binom.cdf(np.arange(n + 1), n, 0.05) <= 0.05).sum()) - 1
        return float(stats.binom.cdf(passing, n, 0.0125))

    assert power(153) >= 0.8
    assert max(power(n) for n in range(1, 153)) < 0.8


def test_sample_sizes_of_small_populations_and_hopeless_ones() -> None:
    assert sample_size(FIVE, 0.05) is None
    assert sample_size(FIVE, 0.04, population=10) is None or sample_size(FIVE, 0.04, population=10) <= 10  # type: ignore[operator]
    assert zero_error_size(FIVE, population=100) == 39  # C(94,39)/C(100,39) = 0.0454…: 6 of 100 would be seen
    assert zero_error_size(FIVE, population=1) == 1


def test_certificates_say_what_they_rest_on() -> None:
    good = certify(Sampled(classifier="topic", n=390, n_different=10, population=20_000), FIVE, "reference R")
    assert good.holds
    assert good.wording == (
        "with 95 % confidence at least 95 % of topic labels equal those of reference R (n=390, x=10)"
    )
    bad = certify(Sampled(classifier="topic", n=200, n_different=10, population=20_000), FIVE, "reference R")
    assert not bad.holds
    assert bad.wording == (
        "not certified: that 95 % of topic labels equal those of reference R; "
        "with 95 % confidence at least 91.6 % do (n=200, x=10)"
    )


def test_a_full_count_needs_no_confidence() -> None:
    assert certify(Sampled(classifier="topic", n=100, n_different=5, population=100), FIVE).holds
    assert not certify(Sampled(classifier="topic", n=100, n_different=6, population=100), FIVE).holds


def test_no_sample_certifies_nothing() -> None:
    nothing = certify(Sampled(classifier="topic", n=0, n_different=0), FIVE)
    assert (nothing.holds, nothing.max_disagreement) == (False, 1.0)


def _step(plan: str, *differing: int) -> Step:
    named = zip(("topic", "task"), differing, strict=False)
    return Step(plan=plan, sampled=tuple(Sampled(classifier=c, n=400, n_different=x) for c, x in named))


def test_a_path_stops_at_the_first_that_fails() -> None:
    verdicts = certify_path([_step("a", 0, 3), _step("b", 5, 19), _step("c", 0, 0)], FIVE)
    assert [v.certified for v in verdicts] == [True, False, False]
    assert verdicts[0].p_value == pytest.approx(p_value(3, 400, 0.05))  # the worst classifier's
    assert verdicts[2].p_value is None  # it was not tested


def test_targets_may_differ_by_classifier_but_not_in_delta() -> None:
    loose = {"topic": FIVE, "task": Target(max_disagreement=0.2)}
    assert certify_path([_step("a", 3, 50)], loose)[0].certified
    with pytest.raises(ValueError, match="one delta"):
        certify_path([_step("a", 3, 50)], {"topic": FIVE, "task": Target(max_disagreement=0.2, delta=0.1)})


def test_a_step_without_samples_is_not_certified() -> None:
    assert not certify_path([Step(plan="a", sampled=())], FIVE)[0].certified


def test_the_levels_of_all_looks_sum_to_delta() -> None:
    assert [level(0.05, look) for look in (1, 2, 3)] == [0.025, 0.0125, 0.00625]


def test_shares_are_written_honestly() -> None:
    assert [percent(0.95), percent(0.9744), percent(0.97461, down=True), percent(1 - 0.05)] == [
        "95 %",
        "97.4 %",
        "97.4 %",
        "95 %",
    ]


def test_of_agreement_loses_no_digit() -> None:
    assert Target.of_agreement(0.95).max_disagreement == 0.05


@pytest.mark.parametrize("wrong", [{"max_disagreement": 0.0}, {"delta": 0.5}, {"max_disagreement": 1.0}])
def test_targets_that_mean_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no target"):
        Target(**wrong)


@pytest.mark.parametrize(("n", "x", "population"), [(3, 4, None), (3, 1, 2), (3, -1, None)])
def test_samples_that_can_not_be(n: int, x: int, population: int | None) -> None:
    with pytest.raises(ValueError, match="no sample"):
        Sampled(classifier="topic", n=n, n_different=x, population=population)
