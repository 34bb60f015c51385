"""What a plan says of prices that are not today's or not asked for: a change while it runs, a window it may not use."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from test_planner import NOW, OPENAI, book, job

from semtel_batch.errors import Infeasible
from semtel_batch.families import OPENAI_URL
from semtel_batch.planner.optimize import choose
from semtel_batch.plans import Objective
from semtel_batch.prices import PriceBook, PriceChange
from semtel_batch.records import Endpoint, Tier


def _dearer(endpoint: Endpoint, times: int) -> PriceBook:
    known = book((endpoint,))
    now = known.prices["openai", Tier.BATCH]
    later = replace(now, input_usd=now.input_usd * times, output_usd=now.output_usd * times)
    change = PriceChange(on=(NOW + timedelta(days=1)).date(), price=later)
    return replace(known, changes={("openai", Tier.BATCH): change})


def test_where_a_price_changes_while_a_run_may_go_on_the_interval_bears_both() -> None:
    same, dearer = choose(job(recipes=["batch"])), choose(job(recipes=["batch"], prices=_dearer(OPENAI, 3)))
    assert dearer.chosen.usd == same.chosen.usd and dearer.chosen.usd_low == same.chosen.usd_low
    assert dearer.chosen.usd_high - same.chosen.usd_high == 2 * same.chosen.usd
    assert any(one.what == "price change" for one in dearer.chosen.uncertainties)
    assert any("its interval bears either" in line for line in dearer.warnings)
    soon = choose(job(recipes=["naive"], prices=_dearer(OPENAI, 3)))
    assert not any(one.what == "price change" for one in soon.chosen.uncertainties)
    budget = Objective(budget_usd=2 * same.chosen.usd_high)
    with pytest.raises(Infeasible):
        choose(job(recipes=["batch"], prices=_dearer(OPENAI, 3), objective=budget))


def test_what_a_completion_window_would_save_is_said_and_not_done() -> None:
    there = replace(OPENAI, base_url=OPENAI_URL, tiers=(Tier.REALTIME,))
    within = Objective(deadline_s=10 * 3_600)
    told = [w for w in choose(job(endpoints=(there,), objective=within)).warnings if "completion window" in w]
    assert len(told) == 1 and 'tiers = ["realtime", "8h"]' in told[0] and "$" in told[0]
    unasked = (
        job(endpoints=(there,), objective=Objective(deadline_s=3_600)),  # no window ends by then
        job(endpoints=(replace(there, tiers=(Tier.REALTIME, Tier.BATCH)),), objective=within),  # batch is cheaper
        job(endpoints=(replace(there, base_url="https://gateway.example/v1"),), objective=within),
        job(endpoints=(replace(there, tiers=(*there.tiers, Tier.EIGHT_HOURS)),), objective=within),
    )
    assert not any("completion window would" in line for one in unasked for line in choose(one).warnings)


def test_at_one_price_batch_goes_before_flex_and_before_its_deadline_flex_is_half_of_realtime() -> None:
    there = replace(OPENAI, tiers=(Tier.REALTIME, Tier.BATCH, Tier.FLEX))
    day, hour = (
        choose(job(recipes=["naive", "batch", "flex"], endpoints=(there,), objective=Objective(deadline_s=seconds)))
        for seconds in (26 * 3_600, 3_600)
    )
    assert (day.chosen.strategy.tier, hour.chosen.strategy.tier) == (Tier.BATCH, Tier.FLEX)
    assert any("while there is room" in a.reason for a in day.alternatives if a.estimate.strategy.tier is Tier.FLEX)
    assert any("while there is room" in line for line in hour.warnings)


def test_the_upper_end_of_flex_bears_that_there_is_no_room() -> None:
    """What flex refuses is asked in realtime, at twice the price, where that is offered; elsewhere it stays owed."""
    both, alone = replace(OPENAI, tiers=(Tier.REALTIME, Tier.FLEX)), replace(OPENAI, tiers=(Tier.FLEX,))
    with_way_out, without = (choose(job(recipes=["flex"], endpoints=(one,))).chosen for one in (both, alone))
    first = sum(line.usd for line in with_way_out.lines if line.tier is Tier.FLEX)
    assert with_way_out.usd_high > with_way_out.usd + first > without.usd_high
    assert [one.what for one in with_way_out.uncertainties].count("no room for flex") == 1
    assert all(one.what != "no room for flex" for one in without.uncertainties)
    assert with_way_out.usd - with_way_out.usd_low < first / 2


def test_waiting_for_a_price_has_its_price() -> None:
    plain, dearer = choose(job(recipes=["batch"])), choose(job(recipes=["batch"], prices=_dearer(OPENAI, 3)))
    (then,) = [one for one in dearer.shadow_prices if one.constraint == "prices"]
    assert then.step == f"submitted from {(NOW + timedelta(days=1)).date()} on"
    assert then.usd == 2 * sum(line.usd for line in plain.chosen.lines if line.tier is Tier.BATCH)
    known = book((OPENAI,))
    now = known.prices["openai", Tier.BATCH]
    half = replace(now, input_usd=now.input_usd / 2, output_usd=now.output_usd / 2)
    change = PriceChange(on=(NOW + timedelta(days=9)).date(), price=half)  # after the run: waiting is what would save
    cheaper = choose(job(recipes=["batch"], prices=replace(known, changes={("openai", Tier.BATCH): change})))
    assert [one.usd for one in cheaper.shadow_prices if one.constraint == "prices"] == [-plain.chosen.usd / 2]
    assert not any(one.constraint == "prices" for one in plain.shadow_prices)
