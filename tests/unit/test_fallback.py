"""Batches under a deadline shorter than their window: when they are counted on, and what is said of their cost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from test_planner import OPENAI, found, job

from semtel_batch.errors import Infeasible
from semtel_batch.planner.learned import Learned
from semtel_batch.planner.optimize import choose
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import Tier
from semtel_batch.strata import faults

HOUR = 3_600.0
LENGTHS = np.random.default_rng(5).integers(50, 3_000, 1_000)
# 1.5M tokens and more: some three hours of realtime.
LIMITED = replace(OPENAI, tpm=20_000)


def planned(hours: float, recipes: tuple[str, ...] = ("naive", "batch"), **fields: object) -> Plan:
    given = {"endpoints": (LIMITED,), "objective": Objective(deadline_s=hours * HOUR)} | fields
    return choose(job(LENGTHS, recipes, **given))


def naive_s() -> float:
    return found(choose(job(LENGTHS, ["naive"], endpoints=(LIMITED,))), "naive", Tier.REALTIME).time_s


def test_batches_are_counted_on_where_realtime_could_take_them_back() -> None:
    needed_h = naive_s() / HOUR
    plan = planned(needed_h + 8)
    realtime, batch = found(plan, "naive", Tier.REALTIME), found(plan, "batch", Tier.BATCH)
    assert plan.chosen == batch and plan.chosen.time_s == plan.objective.deadline_s and plan.certified
    assert Decimal("0.5") * realtime.usd < batch.usd < Decimal("0.55") * realtime.usd < batch.usd_high
    tiers = {line.tier: line.n_requests for line in batch.lines if line.part == "classify"}
    assert set(tiers) == {Tier.BATCH, Tier.REALTIME} and tiers[Tier.REALTIME] < tiers[Tier.BATCH]
    assert any(one.what == "taken back" and one.basis == "assumed" for one in batch.uncertainties)
    assert any("collect --wait" in line for line in plan.warnings)
    assert Tier.REALTIME in {price.tier for _, price in plan.prices}


def test_nothing_is_promised_that_realtime_could_not_keep() -> None:
    needed_h = naive_s() / HOUR
    assert planned(needed_h + 0.2).chosen.strategy.tier is Tier.REALTIME  # no time to look, cancel and be done
    assert planned(2.0, endpoints=(replace(OPENAI, tpm=10_000_000),)).chosen.strategy.tier is Tier.REALTIME  # no use
    alone = replace(LIMITED, tiers=(Tier.BATCH,))
    with pytest.raises(Infeasible):
        planned(needed_h + 8, endpoints=(alone,))
    assert found(planned(needed_h + 8, ("naive", "batch")), "batch", Tier.BATCH).time_s < 24 * HOUR
    short = replace(LIMITED, enqueued_tokens=100_000)
    assert found(planned(needed_h + 8, endpoints=(short,)), "batch", Tier.BATCH).time_s > 24 * HOUR


def test_turnarounds_that_were_seen_make_it_cheaper() -> None:
    quick = Learned(returned=tuple(("gpt-6-luna", 600.0 + 10 * k) for k in range(40)))
    needed_h = naive_s() / HOUR
    assumed, measured = planned(needed_h + 8), planned(needed_h + 8, learned=quick)
    assert measured.chosen.usd < assumed.chosen.usd
    assert any("measured on 40 batches" in line for line in measured.warnings)


def test_what_a_short_queue_takes_is_hedged_and_the_rest_is_asked_at_once() -> None:
    alone = choose(job(LENGTHS, ["batch"]))
    endpoint = replace(LIMITED, enqueued_tokens=int(0.4 * alone.chosen.usage.prompt_tokens))
    hours = naive_s() / HOUR + 8
    plan = planned(hours, endpoints=(endpoint,))
    realtime = found(plan, "naive", Tier.REALTIME)
    assert {leg.strategy.tier for leg in plan.legs} == {Tier.REALTIME, Tier.BATCH} and faults(plan) == ()
    assert plan.chosen.time_s <= hours * HOUR and plan.chosen.usd < Decimal("0.9") * realtime.usd
    steps = {one.constraint: one for one in plan.shadow_prices}
    assert steps["enqueued tokens of openai"].usd < 0


def test_rates_have_their_price() -> None:
    """Two queues' worth of batches need more than a day: realtime has to take what its rate lets through."""
    alone = choose(job(LENGTHS, ["batch"]))
    queue = int(0.4 * alone.chosen.usage.prompt_tokens)
    # So few tokens a minute that realtime can take some of it, and not all that the queue has no room for.
    endpoint = replace(OPENAI, enqueued_tokens=queue, tpm=1_400)
    wish = Objective(deadline_s=30 * HOUR, min_agreement=0.9)
    plan = choose(job(LENGTHS, ["naive", "batch", "packed"], assume=True, endpoints=(endpoint,), objective=wish))
    told = {(one.constraint, one.step): one.usd for one in plan.shadow_prices}
    assert plan.mix and all(usd < 0 for usd in told.values())
    rates = [key for key in told if key[0] == "tokens a minute of openai"]
    if rates:
        assert rates == [("tokens a minute of openai", "10k TPM more")] and ("deadline", "one hour more") in told


@pytest.mark.parametrize("hours", [4, 8, 16, 23])
def test_more_time_never_costs_more(hours: float) -> None:
    fast = replace(OPENAI, tpm=1_000_000)
    sooner, later = (planned(h, endpoints=(fast,)).chosen.usd for h in (hours, hours + 1.5))
    assert later <= sooner


def test_what_is_taken_back_before_a_windows_end_is_priced_too() -> None:
    """With thirty hours batches keep the deadline by themselves; a slow realtime still begins early with some."""
    slow, fast = (
        choose(
            job(LENGTHS, ["batch"], endpoints=(replace(OPENAI, tpm=tpm),), objective=Objective(deadline_s=30 * HOUR))
        )
        for tpm in (1_000, 10_000_000)
    )
    assert slow.chosen.time_s == 24 * HOUR or slow.chosen.time_s > 24 * HOUR
    told = [line for line in slow.chosen.lines if line.part == "classify" and line.tier is Tier.REALTIME]
    assert told and any(one.what == "taken back" for one in slow.chosen.uncertainties)
    assert not any(line.tier is Tier.REALTIME for line in fast.chosen.lines if line.part == "classify")
    assert fast.chosen.usd < slow.chosen.usd < Decimal("1.15") * fast.chosen.usd
