"""A budget without an agreement: the plan changes as few labels as the money allows."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from test_planner import OPENAI, job

from semtel_batch.errors import Infeasible
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.sweep import Sought, Variant, sweep
from semtel_batch.plans import Objective, Plan
from semtel_batch.strata import faults

LENGTHS = np.random.default_rng(5).integers(50, 3_000, 1_000)
WAYS = ("naive", "batch", "combined", "packed")


def planned(budget: Decimal | None, **fields: object) -> Plan:
    return choose(job(LENGTHS, WAYS, objective=Objective(budget_usd=budget), **{"assume": True} | fields))


def costs() -> tuple[Decimal, Decimal]:
    """Of the cheapest way that changes nothing, and of the cheapest of all, at the upper estimate."""
    every = planned(None)
    kept = [one.estimate.usd_high for one in every.alternatives if not one.estimate.quality.label_change]
    return min(kept), every.chosen.usd_high


def test_what_money_can_keep_is_kept_at_the_least_cost() -> None:
    safe, _ = costs()
    plan = planned(safe * 3)
    assert plan.chosen.quality.label_change == 0 and plan.chosen.usd_high == safe
    assert any(one.reason == "changes more labels" for one in plan.alternatives)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_with_less_money_no_way_that_fits_changes_fewer_labels(share: float) -> None:
    safe, least = costs()
    budget = least + (safe - least) * Decimal(share)
    plan = planned(budget)
    assert plan.chosen.usd_high <= budget and plan.chosen.quality.label_change > 0 and not plan.certified
    singles = [one.estimate for one in plan.alternatives if one.estimate.usd_high <= budget]
    best = min(one.quality.label_change for one in singles)
    assert plan.chosen.quality.label_change <= best and faults(plan) == ()
    if share == 0.9:  # most of it as it is, and some of it combined
        assert plan.mix and plan.chosen.quality.label_change < 0.5 * best


def test_more_money_never_changes_more_labels() -> None:
    safe, least = costs()
    changes = [planned(least + (safe - least) * Decimal(k) / 4).chosen.quality.label_change for k in range(5)]
    assert changes == sorted(changes, reverse=True) and changes[-1] == 0


def test_an_agreement_brings_back_the_lowest_cost() -> None:
    safe, _ = costs()
    wish = Objective(budget_usd=safe * 3, min_agreement=0.7)
    plan = choose(replace(job(LENGTHS, WAYS, assume=True), objective=wish))
    assert plan.chosen.usd_high < safe / 2


def test_without_evidence_money_buys_no_change() -> None:
    safe, _ = costs()
    plan = planned(safe * 2, assume=False)
    assert plan.chosen.quality.label_change == 0 and plan.certified


# ── limits that are searched for ────────────────────────────────────────────────────────────────────────────────────


def searched(limit: str, word: str, objective: Objective, **fields: object) -> Variant:
    made = job(LENGTHS, WAYS, endpoints=(replace(OPENAI, tpm=40_000),), **fields)
    (found,) = sweep(made, [(f"{limit}={word}", Sought(limit=limit, word=word, objective=objective))])
    return found


def test_the_earliest_deadline_can_be_kept_and_one_a_little_shorter_can_not() -> None:
    found = searched("deadline", "earliest", Objective())
    assert found.plan is not None and found.asked.startswith("deadline=earliest: ")
    deadline_s = found.objective.deadline_s
    assert deadline_s is not None and found.plan.chosen.time_s <= deadline_s
    shorter = job(
        LENGTHS, WAYS, endpoints=(replace(OPENAI, tpm=40_000),), objective=Objective(deadline_s=deadline_s / 1.05)
    )
    with pytest.raises(Infeasible):
        choose(shorter)


def test_the_cheapest_deadline_costs_next_to_no_more_than_none() -> None:
    found = searched("deadline", "cheapest", Objective())
    free = choose(job(LENGTHS, WAYS, endpoints=(replace(OPENAI, tpm=40_000),)))
    assert found.plan is not None and found.plan.chosen.usd <= free.chosen.usd * Decimal("1.02")
    assert found.objective.deadline_s is not None and found.objective.deadline_s < 25 * 3_600


def test_the_least_budget_is_enough_and_a_smaller_one_is_not() -> None:
    found = searched("budget", "least", Objective())
    budget = found.objective.budget_usd
    assert budget is not None and planned(budget, assume=False).chosen.usd_high <= budget
    with pytest.raises(Infeasible):
        planned(budget * Decimal("0.99"), assume=False)


def test_the_best_agreement_is_kept_within_the_other_limits() -> None:
    safe, least = costs()
    budget = (safe + least) / 2
    found = searched("min-agreement", "best", Objective(budget_usd=budget), assume=True)
    assert found.plan is not None and found.objective.min_agreement is not None
    assert found.plan.chosen.usd_high <= budget and 0.8 < found.objective.min_agreement < 1
    assert 1 - found.plan.chosen.quality.label_change >= found.objective.min_agreement - 1e-9


def test_where_nothing_helps_the_search_says_why() -> None:
    found = searched("deadline", "earliest", Objective(budget_usd=Decimal("0.000001")))
    assert found.plan is None and "budget" in found.reason
