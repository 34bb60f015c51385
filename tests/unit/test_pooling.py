"""Which endpoints share their realtime requests, and what a plan makes of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_planner import OPENAI, job, load

from semtel_batch.errors import Infeasible
from semtel_batch.intake import cost_of
from semtel_batch.parts import ANSWERS
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.pooling import joiners, partners
from semtel_batch.planner.timing import part_s
from semtel_batch.plans import Objective, from_json, to_json
from semtel_batch.records import AnswerFormat, Endpoint, EndpointKind, PriceOverride, Shard, Stage, Tier
from semtel_batch.strata import faults

FIRST = replace(OPENAI, model="gpt-5.4-mini")
AZURE = replace(
    FIRST,
    name="azure",
    kind=EndpointKind.AZURE,
    base_url="https://x.openai.azure.com",
    model="labels-east",
    model_family="gpt-5.4-mini",
)
WEST = replace(AZURE, name="azure-west", model="labels-west")


def beside(first: Endpoint, *others: Endpoint) -> list[str]:
    return [one.name for one in partners(job(endpoints=(first, *others)), first)]


def test_the_same_model_at_the_same_price_is_shared_whoever_serves_it() -> None:
    assert beside(FIRST, AZURE, WEST) == ["azure", "azure-west"]
    assert beside(FIRST) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"model_family": "gpt-5.4"},
        {"tiers": (Tier.BATCH,)},
        {"answer_format": AnswerFormat.WORDS},
        {"encoding": "cl100k_base"},
        {"price": PriceOverride(input_usd=Decimal("0.74"), output_usd=Decimal("4.5"))},
    ],
)
def test_what_would_be_asked_or_billed_otherwise_is_not_shared(changes: dict[str, Any]) -> None:
    assert beside(FIRST, replace(AZURE, **changes), WEST) == ["azure-west"]


def test_rates_add_up_and_one_request_is_no_faster() -> None:
    slow, quick = replace(FIRST, rpm=1_500), replace(AZURE, rpm=4_500)
    alone = [part_s(one, load(n=10_000)) for one in (slow, quick)]
    assert part_s(slow, load(n=10_000), [quick]) == pytest.approx(1 / sum(1 / s for s in alone))
    assert part_s(slow, load(n=1, cap=0), [quick]) == part_s(slow, load(n=1, cap=0))
    assert part_s(slow, load(Tier.BATCH), [quick]) == part_s(slow, load(Tier.BATCH))


def test_a_plan_freezes_the_members_with_their_prices_and_is_faster() -> None:
    both = choose(job([200] * 500, ["naive"], endpoints=(FIRST, AZURE)))
    alone = choose(job([200] * 500, ["naive"], endpoints=(FIRST,)))
    assert [endpoint.name for endpoint in both.endpoints] == ["openai", "azure"]
    assert {leg.pool for leg in both.legs} == {("azure",)}
    assert ("azure", Tier.REALTIME) in [(name, price.tier) for name, price in both.prices]
    assert both.chosen.usd == alone.chosen.usd and both.chosen.time_s < 0.6 * alone.chosen.time_s
    assert len(both.alternatives) == 1  # the same pool, begun with its other member, is no other way
    assert from_json(to_json(both)) == both


def test_a_batch_leg_has_a_pool_for_what_is_asked_again_at_once() -> None:
    plan = choose(job([200] * 50, ["batch"], endpoints=(FIRST, replace(AZURE, tiers=(Tier.REALTIME,)))))
    assert plan.chosen.strategy.tier is Tier.BATCH
    shard = a_shard(plan.id)
    assert [one.name for one in plan.members(replace(shard, tier=Tier.BATCH))] == ["openai"]
    assert [one.name for one in plan.members(shard)] == ["openai", "azure"]


def test_each_answer_is_billed_at_the_price_of_whoever_gave_it() -> None:
    plan = choose(job([200] * 50, ["naive"], endpoints=(FIRST, AZURE)))
    dearer = tuple((n, replace(p, input_usd=p.input_usd * 3) if n == "azure" else p) for n, p in plan.prices)
    plan = replace(plan, prices=dearer)
    zeros = dict.fromkeys(("cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens"), 0)
    tokens = {"openai": 1_000_000, "azure": 2_000_000, None: 4_000_000}  # None: of an earlier version
    rows = [dict.fromkeys(ANSWERS) | zeros | {"endpoint": e, "prompt_tokens": n} for e, n in tokens.items()]
    answers = pl.DataFrame(rows, schema=ANSWERS)
    assert cost_of(answers, plan, a_shard(plan.id)) == Decimal("0.75") * (5 + 3 * 2)
    with pytest.raises(StopIteration):
        cost_of(answers.with_columns(endpoint=pl.lit("stranger")), plan, a_shard(plan.id))


def a_shard(plan_id: str) -> Shard:
    return Shard(
        id=1,
        key="k",
        plan_id=plan_id,
        leg=0,
        stage=Stage.CLASSIFY,
        attempt=0,
        classifiers=("topic",),
        endpoint="openai",
        tier=Tier.REALTIME,
        path=None,  # type: ignore[arg-type]
        n_requests=1,
        n_items=1,
        prompt_tokens=1,
        max_completion_tokens=1,
    )


# ── dearer endpoints, where a deadline needs them ───────────────────────────────────────────────────────────────────

DEAR = PriceOverride(input_usd=Decimal(2), output_usd=Decimal(12))
CHEAP = PriceOverride(input_usd=Decimal(1), output_usd=Decimal(6))
LENGTHS = np.random.default_rng(3).integers(50, 3_000, 1_000)


def two(tpm: int = 40_000) -> tuple[Endpoint, Endpoint]:
    tiers = (Tier.REALTIME,)
    return replace(FIRST, price=CHEAP, tpm=tpm, tiers=tiers), replace(AZURE, price=DEAR, tpm=tpm, tiers=tiers)


def test_a_dearer_endpoint_answers_only_as_much_as_the_deadline_needs() -> None:
    cheap, dear = two()
    alone = choose(job(LENGTHS, ["naive"], endpoints=(cheap,))).chosen
    assert [one.name for one in joiners(job(endpoints=(cheap, dear)), cheap)] == ["azure"]
    assert joiners(job(endpoints=(cheap, dear)), dear) == ()
    easy, tight, tightest = (
        choose(job(LENGTHS, ["naive"], endpoints=(cheap, dear), objective=Objective(deadline_s=share * alone.time_s)))
        for share in (1.01, 0.8, 0.52)
    )
    assert easy.chosen.usd == alone.usd and easy.chosen.pool == ()
    for plan, share in ((tight, 0.8), (tightest, 0.52)):
        assert plan.chosen.time_s <= share * alone.time_s and faults(plan) == () and plan.certified
        assert {endpoint.name for endpoint in plan.endpoints} == {"openai", "azure"}
        assert {name for name, price in plan.prices if price.tier is Tier.REALTIME} == {"openai", "azure"}
        assert any("azure" in leg.pool for leg in plan.legs)
    # All of it twice as fast costs half as much again; four fifths of the time need a fifth of that, near enough.
    assert alone.usd < tight.chosen.usd < tightest.chosen.usd < Decimal("1.55") * alone.usd
    assert float(tight.chosen.usd / alone.usd) == pytest.approx(1.2, abs=0.04)
    assert any(one.what == "who answers" for one in tight.chosen.uncertainties)
    assert tight.mix and tight.shadow_prices[0].usd < 0
    assert {line.endpoint for line in tight.chosen.lines} == {"openai", "azure"}


def test_where_all_together_are_too_slow_that_is_said() -> None:
    cheap, dear = two()
    needed = choose(job(LENGTHS, ["naive"], endpoints=(cheap,))).chosen.time_s
    with pytest.raises(Infeasible, match="deadline"):
        choose(job(LENGTHS, ["naive"], endpoints=(cheap, dear), objective=Objective(deadline_s=0.4 * needed)))
