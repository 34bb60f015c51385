"""Plans that mix ways: when they are made, that they keep every limit, and that the run can follow them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from test_planner import OPENAI, found, job

from semtel_batch.compose.compress.results import Spent
from semtel_batch.errors import Infeasible
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.shorter import Shortened
from semtel_batch.planner.slicing import edges
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import PriceOverride, Tier
from semtel_batch.strata import faults, serves, stratum_of, uniforms

HOUR = 3_600.0
LENGTHS = np.random.default_rng(5).integers(50, 3_000, 1_000)


def served(plan: Plan) -> np.ndarray:
    """How many legs ask each conversation for the first classifier."""
    stratum, uniform = stratum_of(plan.strata, LENGTHS), uniforms(plan.seed, np.arange(len(LENGTHS)))
    name = plan.classifiers[0].name
    return np.sum([serves(leg, stratum, uniform) for leg in plan.legs if name in leg.classifiers], axis=0)


def short_queue(**changes: object) -> Plan:
    """A queue that takes less than half of the job in one window, and two days' work for batches."""
    alone = choose(job(LENGTHS, ["batch"]))
    queue = int(0.4 * alone.chosen.usage.prompt_tokens)
    endpoint = replace(OPENAI, enqueued_tokens=queue, **changes)
    return choose(job(LENGTHS, ["naive", "batch"], endpoints=(endpoint,), objective=Objective(deadline_s=30 * HOUR)))


def test_what_a_short_queue_takes_goes_by_batch_and_the_rest_at_once() -> None:
    plan = short_queue()
    realtime, batch = found(plan, "naive", Tier.REALTIME), found(plan, "batch", Tier.BATCH)
    assert batch.time_s > 30 * HOUR  # three windows, one after the other
    assert {leg.strategy.tier for leg in plan.legs} == {Tier.REALTIME, Tier.BATCH}
    assert batch.usd < plan.chosen.usd < Decimal("0.85") * realtime.usd
    assert plan.chosen.time_s <= 30 * HOUR and plan.certified
    assert faults(plan) == () and (served(plan) == 1).all()
    waiting = sum(
        line.usage.prompt_tokens for line in plan.chosen.lines if line.tier is Tier.BATCH and line.part == "classify"
    )
    assert waiting <= plan.endpoints[0].enqueued_tokens


def test_a_mix_says_what_its_limits_cost_and_where_everything_goes() -> None:
    plan = short_queue()
    queue = next(p for p in plan.shadow_prices if p.constraint.startswith("enqueued tokens"))
    # A token more in the queue saves half of its realtime price; answers and the retries' share blur it a little.
    price = plan.price("openai", Tier.REALTIME).input_usd
    assert float(-queue.usd) == pytest.approx(float(price) / 2, rel=0.5) and queue.step == "1M more enqueued tokens"
    assert sum(one.n_conversations for one in plan.mix if "topic" in plan.legs[one.leg].classifiers) == len(LENGTHS)
    assert float(sum(one.usd for one in plan.mix)) == pytest.approx(float(plan.chosen.usd), rel=1e-4)
    assert any("enqueued" in one.reason for one in plan.mix)
    assert [point.name for point in plan.frontier if point.is_chosen] == [f"mix of {plan.recipe}"]


def test_agreement_is_spent_to_its_limit() -> None:
    wish = Objective(min_agreement=0.95)
    plan = choose(job(LENGTHS, ["batch", "packed"], assume=True, objective=wish))
    assert plan.chosen.quality.label_change <= 0.05 + 1e-9
    assert plan.chosen.quality.label_change == pytest.approx(0.05, rel=0.1)
    alone = choose(job(LENGTHS, ["batch"], objective=wish))
    assert plan.chosen.usd < alone.chosen.usd and not plan.certified
    assert faults(plan) == () and (served(plan) == 1).all()
    assert any(p.constraint.startswith("disagreement on") and p.usd < 0 for p in plan.shadow_prices)


def test_without_a_limit_in_the_way_one_way_serves_everybody() -> None:
    for wish in (Objective(), Objective(deadline_s=60 * HOUR)):
        plan = choose(job(LENGTHS, ["naive", "batch"], objective=wish))
        assert plan.mix == () and all(leg.slices == () for leg in plan.legs)


def test_without_any_limit_each_length_is_asked_in_the_way_that_is_cheapest_for_it() -> None:
    """One endpoint is cheap to ask and dear to answer, the other the reverse: short and long texts part."""
    lengths = np.concatenate([np.full(500, 30), np.full(500, 3_000)])
    way = PriceOverride(input_usd=Decimal("0.1"), output_usd=Decimal(100))
    other = replace(way, input_usd=Decimal(2), output_usd=Decimal("0.1"))
    terse, wordy = (
        replace(OPENAI, name=name, price=price, tiers=(Tier.REALTIME,)) for name, price in (("a", way), ("b", other))
    )
    plan = choose(job(lengths, ["naive"], endpoints=(terse, wordy)))
    assert {leg.endpoint for leg in plan.legs} == {"a", "b"} and faults(plan) == () and plan.certified
    assert plan.chosen.usd < Decimal("0.98") * min(one.estimate.usd for one in plan.alternatives)
    assert all(one.share == 1 and one.reason == "the cheapest for these" for one in plan.mix)
    assert plan.shadow_prices == ()
    assert choose(job(lengths, ["naive"], endpoints=(terse,))).mix == ()


def test_texts_are_compressed_where_that_pays() -> None:
    """Compressing takes CPU time for every text, and saves tokens of long ones only."""
    lengths = np.concatenate([np.full(600, 40), np.full(400, 3_000)])

    def compressed(compressor: str, rate: float) -> Shortened:
        spent = Spent(n_texts=200, tokens_before=1_000, tokens_after=500, cpu_s=1.0)
        left = np.where(lengths > 100, lengths // 2, lengths)
        return Shortened(lengths=left, cpu_s=200.0, spent=spent, earlier=True)

    made = job(lengths, ["naive", "compressed"], assume=True, compressed=compressed, cpu_usd_per_hour=Decimal(1))
    budget = Objective(min_agreement=0.99)
    free, bound = (choose(replace(made, objective=wish)) for wish in (Objective(), budget))
    for plan in (free, bound):
        legs = {leg.strategy.compress_rate is not None for leg in plan.legs}
        assert faults(plan) == ()
        if plan.mix and True in legs:
            assert plan.cpu_usd_per_hour == 1 and any(line.part == "compress" for line in plan.chosen.lines)
            assert all(one.stratum > 0 for one in plan.mix if plan.legs[one.leg].strategy.compress_rate is not None)
    assert bound.mix and {leg.strategy.compress_rate is not None for leg in bound.legs} == {True, False}
    assert bound.chosen.quality.label_change <= 0.01 + 1e-9


def test_a_mix_may_keep_what_no_single_way_does() -> None:
    wish = Objective(deadline_s=30 * HOUR)
    realtime = found(choose(job(LENGTHS, ["naive", "batch"])), "naive", Tier.REALTIME)
    alone = choose(job(LENGTHS, ["batch"]))
    endpoint = replace(OPENAI, enqueued_tokens=int(0.4 * alone.chosen.usage.prompt_tokens))
    budget = Decimal("0.9") * realtime.usd_high
    plan = choose(job(LENGTHS, ["naive", "batch"], endpoints=(endpoint,), objective=replace(wish, budget_usd=budget)))
    assert plan.mix and plan.chosen.usd_high <= budget
    with pytest.raises(Infeasible, match="Several ways mixed would come nearer: budget"):
        choose(job(LENGTHS, ["naive", "batch"], endpoints=(endpoint,), objective=replace(wish, budget_usd=budget / 3)))


def test_without_evidence_a_mix_holds_only_what_keeps_labels() -> None:
    endpoint = replace(OPENAI, enqueued_tokens=400_000)
    plan = choose(
        job(LENGTHS, ["naive", "batch", "packed"], endpoints=(endpoint,), objective=Objective(deadline_s=30 * HOUR))
    )
    assert all(not leg.strategy.changes_labels for leg in plan.legs)


def test_strata_are_as_many_as_their_sizes_bear() -> None:
    assert edges(np.arange(150)) == ()
    assert len(edges(np.arange(1_000))) == 2
    assert len(edges(np.arange(10_000))) == 3
    assert edges(np.full(10_000, 7)) == ()
