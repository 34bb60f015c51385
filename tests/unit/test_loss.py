"""The loss model: few samples, many arms; and which ways are worth trying."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from semtel_batch.planner.loss import RHO, Levers, Observed, fit, twice
from semtel_batch.planner.mix import Columns, Problem
from semtel_batch.planner.path import lay
from semtel_batch.planner.pilot import audit_size, explore_items, explore_share, explore_size, first_arms, used_arms
from semtel_batch.quality.votes import Instability, all_wrong

REFERENCE = Levers(exact=True)
ARMS = [
    REFERENCE,
    *(
        Levers(model=m, pack=k, combined=c, votes=v)
        for m in (0, 1)
        for k in (1, 5, 10)
        for c in (False, True)
        for v in (1, 2)
        if not (v == 2 and k == 1) and (m, k, c) != (0, 1, False)
    ),
    Levers(model=1, keep_tokens=500),
    Levers(apart=1),
]
USD = np.array([10.0 if a.exact else (0.1 if a.apart else (5.0, 0.3)[a.model] / a.pack**0.3 * a.votes) for a in ARMS])


def observed(levers: Levers, n: int, rng: np.random.Generator, effect: float) -> Observed:
    hard = rng.normal(size=(n, 2))
    log_length = rng.normal(6, 1, n)
    q = special.expit(-3.5 + hard + effect)
    return Observed(levers=levers, hard=hard, log_length=log_length, differs=rng.random((n, 2)) < q)


def test_without_samples_the_priors_speak() -> None:
    model = fit([], ARMS, 2)
    hard, log_length = np.zeros((1, 2)), np.full(1, 6.0)
    assert not model.share(REFERENCE, hard, log_length).any()
    packs = [model.share(Levers(pack=k), hard, log_length)[0, 0] for k in (1, 5, 10)]
    assert packs == sorted(packs) and packs[0] < packs[-1]


def test_effects_are_found_and_carry_over_to_arms_not_tried() -> None:
    rng = np.random.default_rng(3)
    tried = [
        observed(Levers(model=1), 1_500, rng, 1.0),
        observed(Levers(model=1, pack=10), 1_500, rng, 2.0),
        observed(Levers(model=1, combined=True), 1_500, rng, 1.5),
    ]
    model = fit(tried, ARMS, 2)
    hard, log_length = rng.normal(size=(4_000, 2)), rng.normal(6, 1, 4_000)
    found = model.share(Levers(model=1, pack=10, combined=True), hard, log_length).mean()
    assert found == pytest.approx(special.expit(-3.5 + hard + 2.5).mean(), rel=0.2)


def test_two_runs_err_alike_as_the_vote_algebra_says() -> None:
    assert twice(np.array([0.05]), RHO)[0] == pytest.approx(all_wrong(Instability(mu=0.05, rho=RHO), 2))
    model = fit([], [Levers(pack=5)], 1)
    one, two = (model.share(Levers(pack=5, votes=v), np.zeros((1, 1)), np.full(1, 6.0))[0, 0] for v in (1, 2))
    assert two == pytest.approx(twice(np.array([one]), RHO)[0])


def test_every_lever_is_tried_where_it_is_cheap() -> None:
    first = [ARMS[i] for i in first_arms(ARMS, USD)]
    assert REFERENCE not in first and all(arm.votes == 1 for arm in first)
    assert {arm.pack for arm in first} == {1, 5, 10} and any(arm.combined for arm in first)
    assert any(arm.keep_tokens for arm in first) and any(arm.apart for arm in first)
    assert all(arm.model == 1 or arm.apart for arm in first)  # the dear model's packs wait until a plan needs them


def test_what_plans_lean_on_is_tried_next() -> None:
    n = len(ARMS)
    loss = np.array([0.0 if a.exact else 0.01 * (1 + a.model) * (1 + (a.votes == 1)) for a in ARMS])[:, None]
    zeros = np.zeros(n, dtype=np.int64)
    columns = Columns(stratum=zeros, partition=zeros, block=zeros, arm=np.arange(n), usd=USD, loss=loss)
    found = lay(Problem(sizes=np.array([1_000.0]), columns=columns, limits=()), np.array([20.0]))
    wanted = used_arms(found, ARMS, set())
    assert wanted and all(ARMS[i].votes == 1 and not ARMS[i].exact for i in wanted)
    assert used_arms(found, ARMS, set(wanted)) == []
    size = audit_size(found, np.array([20.0]), 0.1, item_usd=0.5, taken=20)
    assert size >= 60
    # A dearer reference is asked less.
    assert audit_size(found, np.array([20.0]), 0.1, item_usd=50.0, taken=20) <= size
    assert audit_size(found, np.array([20.0]), 0.1, item_usd=500.0, taken=20) == 0, "no certificate is worth that"


def test_ways_of_their_own_and_sides_of_a_cut_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    arms = [REFERENCE, Levers(apart=1), Levers(apart=2), Levers(keep_tokens=100), Levers(keep_tokens=100, side=1)]
    effects = dict(zip(arms[1:], (2.0, -1.0, 0.0, 1.5), strict=True))
    model = fit([observed(arm, 800, rng, effect) for arm, effect in effects.items()], arms, 2)
    hard, log_length = np.zeros((50, 2)), np.full(50, 6.0)
    found = [model.share(arm, hard, log_length).mean() for arm in arms[1:]]
    assert found[0] > 3 * found[1] and found[3] > 2 * found[2]


def test_samples_are_small_and_prefer_what_looks_hard() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=20_000)
    items = explore_items(hard, explore_size(20_000, 0.05, 0.1), rng)
    assert len(set(items.tolist())) == 276 and hard[items].mean() > 0.2
    assert explore_size(300, 0.05, 0.1) == 20
    assert explore_share(0.01, 1.0) == 1 and explore_share(5.0, 1.0) == 0.35
