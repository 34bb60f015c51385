"""A budget without an agreement: the plan changes as few labels as the money allows."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from test_planner import job

from semtel_batch.planner.optimize import choose
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
