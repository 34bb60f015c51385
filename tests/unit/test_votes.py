"""The closed form of votes and graders against simulated votes and published figures."""

from __future__ import annotations

import numpy as np
import pytest

from semtel_batch.quality.votes import (
    Instability,
    all_right,
    all_wrong,
    estimate,
    flag_rate,
    grader_residual,
    majority_residual,
    router_residual,
    router_sensitivity,
    split_rate,
)

GPT4 = Instability(mu=0.049, rho=0.52)  # BatchPrompt's recorded answers, RTE, 16 at once
GPT35 = Instability(mu=0.281, rho=0.31)  # 32 at once


@pytest.mark.parametrize(("of", "two", "three"), [(GPT4, 0.027, 0.019), (GPT35, 0.142, 0.088)])
def test_residuals_as_published(of: Instability, two: float, three: float) -> None:
    assert [all_wrong(of, 2), all_wrong(of, 3)] == pytest.approx([two, three], abs=5e-4)


@pytest.mark.parametrize("of", [GPT4, GPT35, Instability(mu=0.2, rho=0.4)])
def test_the_closed_form_is_what_votes_do(of: Instability) -> None:
    a, b = of.mu * (1 - of.rho) / of.rho, (1 - of.mu) * (1 - of.rho) / of.rho
    random = np.random.default_rng(5)
    wrong = random.binomial(3, random.beta(a, b, 400_000))
    two = random.binomial(2, random.beta(a, b, 400_000))
    assert np.mean(two == 2) == pytest.approx(all_wrong(of, 2), abs=2e-3)
    assert np.mean(two == 1) == pytest.approx(split_rate(of), abs=2e-3)
    assert np.mean(wrong == 0) == pytest.approx(all_right(of, 3), abs=2e-3)
    assert np.mean(wrong >= 2) == pytest.approx(majority_residual(of, 3), abs=2e-3)
    found = estimate(wrong, 3)
    assert (found.mu, found.rho) == pytest.approx((of.mu, of.rho), abs=0.01)
    assert (found.n_items, found.n_runs) == (400_000, 3)


def test_the_ends_of_correlation() -> None:
    same, apart = Instability(mu=0.1, rho=1.0), Instability(mu=0.1, rho=0.0)
    assert [all_wrong(same, 2), split_rate(same), majority_residual(same, 3)] == pytest.approx([0.1, 0.0, 0.1])
    assert [all_wrong(apart, 2), split_rate(apart)] == pytest.approx([0.01, 0.18])
    assert majority_residual(apart, 3) == pytest.approx(0.028)  # 3 · 0.01 · 0.9 + 0.001
    never = Instability(mu=0.0, rho=0.3)
    assert [all_wrong(never, 2), split_rate(never), majority_residual(never, 3), router_sensitivity(never)] == [0.0] * 4


def test_split_items_flip_as_the_reference_does() -> None:
    assert router_residual(GPT4, self_flip=0.05) == pytest.approx(all_wrong(GPT4, 2) + split_rate(GPT4) * 0.05)


def test_a_second_run_is_a_grader() -> None:
    assert router_sensitivity(GPT4) == pytest.approx(0.456, abs=1e-3)
    assert grader_residual(GPT4.mu, router_sensitivity(GPT4)) == pytest.approx(all_wrong(GPT4, 2))
    assert flag_rate(0.1, 0.5, 0.02) == pytest.approx(0.068)
    assert grader_residual(0.1, 0.5, repaired=0.8, false_alarm=0.02, self_flip=0.1) == pytest.approx(0.0618)


def test_items_of_one_run_inform_the_mean_only() -> None:
    found = estimate([1, 0, 2, 0], [1, 1, 2, 2])
    assert (found.mu, found.rho) == (0.5, 1.0)


@pytest.mark.parametrize(("wrong", "runs"), [([], []), ([1], [1]), ([3], [2])])
def test_what_instability_can_not_be_estimated_from(wrong: list[int], runs: list[int]) -> None:
    with pytest.raises(ValueError, match="at least two runs"):
        estimate(wrong, runs)


def test_a_majority_of_two_is_none() -> None:
    with pytest.raises(ValueError, match="odd"):
        majority_residual(GPT4, 2)
