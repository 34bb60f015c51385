"""Cascades: who is asked about doubtful labels, what that costs, and what may be said of the labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from test_planner import TASK, TOPIC, book, job

from semtel_batch.commands.calibrating import ways
from semtel_batch.config import Defaults, Settings
from semtel_batch.console import calibration_view
from semtel_batch.conversations import Columns
from semtel_batch.errors import BadStrategy, Infeasible
from semtel_batch.legs import way_of_asking, wording
from semtel_batch.measurements import Kind, Measurement, Packs
from semtel_batch.planner.bench import Key
from semtel_batch.planner.job import Job
from semtel_batch.planner.learned import Doubts, Learned
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.packsizes import capped
from semtel_batch.planner.points import price_all
from semtel_batch.planner.room import RequestCounter
from semtel_batch.planner.schedule import Cell
from semtel_batch.planner.timing import WINDOW_S, LegLoad, Load, mixed_s, part_s
from semtel_batch.plans import Estimate, Objective, Plan
from semtel_batch.records import Doubt, Endpoint, EndpointKind, PriceOverride, Stage, Strategy, Tier
from semtel_batch.strategies import Recipe, bare, find, levers_of, load
from semtel_batch.studies.calibrate import Doubting
from semtel_batch.studies.threshold import Held, Threshold

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def endpoint(name: str, model: str, usd: str, **fields: Any) -> Endpoint:
    """An endpoint at so many dollars a million in, four times that out, half of it in batch."""
    into = Decimal(usd)
    price = PriceOverride(input_usd=into, output_usd=4 * into, batch_input_usd=into / 2, batch_output_usd=2 * into)
    made = Endpoint(
        name=name,
        kind=EndpointKind.OPENAI,
        base_url=f"http://127.0.0.1/{name}",
        model=model,
        api_key_env=None,
        price=price,
    )
    return replace(made, **fields)


DEAR, CHEAP = endpoint("dear", "gpt-4.1", "2"), endpoint("cheap", "gpt-4o-mini", "0.1")
CASCADE = Strategy(recipe="cascade", tier=Tier.BATCH, doubt=Doubt.CONFIDENCE, confidence_below=0.9, escalate="dear")


def cascades(lengths: tuple[int, ...] = (500,) * 200, **fields: Any) -> Job:
    endpoints = fields.pop("endpoints", (DEAR, CHEAP))
    made = job(lengths, ["cascade"], endpoints=endpoints, prices=book(endpoints))
    return replace(made, **{"named": True, **fields})


def of_tier(plan: Plan, tier: Tier) -> Estimate:
    return next(a.estimate for a in plan.alternatives if a.estimate.strategy.tier is tier)


def measured(kind: Kind, n: int, x: int, classifier: Any = TOPIC, **fields: Any) -> Measurement:
    made = Measurement(
        calibration_id="c1",
        plan_id="p0",
        measured_at=NOW,
        kind=kind,
        classifier=classifier.name,
        version=classifier.version,
        companions=(classifier.version,),
        reference="gpt-4.1",
        model="gpt-4o-mini → gpt-4.1",
        strategy=bare(replace(CASCADE, confidence_below=0.62)),
        source="conversations.jsonl",
        sample="E",
        seed=1,
        n=n,
        n_different=x,
    )
    return replace(made, **fields)


# -- who is asked, and for how much -----------------------------------------------------------------------------------


def test_doubtful_labels_are_priced_at_the_other_model_and_asked_there() -> None:
    plan = choose(cascades())
    chosen = of_tier(plan, Tier.BATCH)
    lines = {line.part: line for line in chosen.lines}
    assert (chosen.endpoint, lines["classify"].endpoint, lines["escalate"].endpoint) == ("cheap", "cheap", "dear")
    naive = next(a.estimate for a in choose(job((500,) * 200, ["batch"], endpoints=(DEAR,))).alternatives)
    (alone,) = (line for line in naive.lines if line.part == "classify")
    share = Decimal("0.3")  # assumed, and called so
    assert lines["escalate"].usd == pytest.approx(share * alone.usd, rel=Decimal("0.01"))
    assert chosen.usd == sum(line.usd for line in chosen.lines)
    assert chosen.usd_low < chosen.usd < chosen.usd_high
    assert any("30 % of the labels" in w and "assumed" in w for w in plan.warnings)
    assert {e.name for e in plan.endpoints} == {"cheap", "dear"}
    assert {("dear", Tier.BATCH), ("dear", Tier.REALTIME), ("cheap", Tier.BATCH)} <= {
        (n, p.tier) for n, p in plan.prices
    }


def test_each_pass_of_a_leg_knows_its_endpoint_tier_and_models() -> None:
    plan = choose(cascades())
    leg = plan.legs[0]
    assert [plan.asked_of(leg, stage).name for stage in (Stage.CLASSIFY, Stage.RECLASSIFY)] == ["cheap", "dear"]
    assert plan.models_of(leg) == "gpt-4o-mini → gpt-4.1"
    assert plan.again_tier(leg, Stage.RECLASSIFY) is Tier.BATCH
    realtime = replace(DEAR, tiers=(Tier.REALTIME,))
    plan = choose(cascades(endpoints=(realtime, CHEAP)))
    assert plan.legs[0].strategy.tier is Tier.BATCH and plan.again_tier(plan.legs[0], Stage.RECLASSIFY) is Tier.REALTIME


def test_a_window_that_would_end_too_late_makes_the_second_model_answer_at_once() -> None:
    hours = 3_600.0
    plan = choose(cascades(objective=Objective(deadline_s=30 * hours)))
    assert plan.legs[0].strategy.tier is Tier.BATCH
    assert plan.again_tier(plan.legs[0], Stage.RECLASSIFY) is Tier.REALTIME
    plan = choose(cascades(objective=Objective(deadline_s=80 * hours)))
    assert plan.again_tier(plan.legs[0], Stage.RECLASSIFY) is Tier.BATCH


def test_an_escalated_answer_is_the_dear_models_own_and_nobody_elses() -> None:
    plan = choose(cascades())
    leg = plan.legs[0]
    ways = {
        stage: way_of_asking(
            wording(plan, leg, ("topic",), stage, Tier.BATCH), plan.asked_of(leg, stage), leg.strategy, per_request=1
        )
        for stage in (Stage.CLASSIFY, Stage.RECLASSIFY)
    }
    dear = choose(job((500,), ["batch"], endpoints=(DEAR,)))
    alone = way_of_asking(
        wording(dear, dear.legs[0], ("topic",), Stage.CLASSIFY, Tier.BATCH), DEAR, dear.legs[0].strategy, per_request=1
    )
    assert ways[Stage.RECLASSIFY] == alone, "what the dear model was asked before is not paid again"
    assert ways[Stage.CLASSIFY] not in (alone, ways[Stage.RECLASSIFY])


# -- what can't be ----------------------------------------------------------------------------------------------------


def recipe(folder: Path, **grid: str) -> Recipe:
    lines = ['name = "mine"', 'summary = "A test."', "[grid]", 'tier = ["realtime"]']
    path = folder / "mine.toml"
    path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in grid.items())]), encoding="utf-8")
    return load(path)


def test_an_unknown_endpoint_and_the_same_model_are_refused_by_name(tmp_path: Path) -> None:
    lost = recipe(tmp_path, doubt='["confidence"]', escalate='["nowhere"]')
    with pytest.raises(BadStrategy, match=r"'nowhere'.*doesn't have; name one of: dear \(gpt-4.1\), cheap"):
        choose(cascades(recipes=(lost,)))
    with pytest.raises(BadStrategy, match="same model"):
        choose(cascades(endpoints=(DEAR,)))
    itself = recipe(tmp_path, doubt='["confidence"]', escalate='["dear"]', model='["gpt-4.1"]')
    with pytest.raises(BadStrategy, match=r"model gpt-4\.1"):
        choose(cascades(recipes=(itself,)))


def test_a_recipe_that_nobody_named_is_left_out_where_it_cannot_be(tmp_path: Path) -> None:
    lost = recipe(tmp_path, doubt='["confidence"]', escalate='["nowhere"]')
    plan = choose(cascades(recipes=(*find(["naive", "cascade"]), lost), named=False, endpoints=(DEAR,)))
    assert {a.estimate.strategy.recipe for a in plan.alternatives} == {"naive"}


def test_escalating_needs_a_doubt(tmp_path: Path) -> None:
    with pytest.raises(BadStrategy, match=r"grid.escalate stands without a way to doubt"):
        recipe(tmp_path, escalate='["dear"]')
    with pytest.raises(BadStrategy, match=r"grid.escalate stands without a way to doubt"):
        recipe(tmp_path, escalate='["dear"]', doubt='["none"]')
    some = recipe(tmp_path, escalate='["dear"]', doubt='["none", "rerun"]')
    assert [one.escalate for one in some.strategies()] == [None, "dear"]
    assert [bool(levers_of(one)) for one in some.strategies()] == [False, True]
    assert recipe(tmp_path, escalate='"dear"', grade="true").strategies()[0].escalate == "dear"


def test_a_text_that_the_second_model_cannot_read_rules_the_cascade_out() -> None:
    small = endpoint("dear", "gpt-4o", "2")  # 128,000 tokens
    large = endpoint("cheap", "gpt-4.1-mini", "0.1")  # a million
    with pytest.raises(Infeasible, match=r"1 conversation is too long .* of 'dear', which doubtful labels"):
        choose(cascades((500, 200_000), endpoints=(small, large)))


def test_an_endpoint_called_reference_is_meant_by_its_name() -> None:
    named = endpoint("reference", "gpt-4o", "1")
    plan = choose(cascades(endpoints=(DEAR, CHEAP, named)))
    assert {a.estimate.strategy.escalate for a in plan.alternatives} == {"reference"}


# -- what is known of it ----------------------------------------------------------------------------------------------


def test_unmeasured_it_counts_as_changing_every_label_and_is_not_chosen_unnamed() -> None:
    endpoints = (DEAR, CHEAP)
    plan = choose(job((500,) * 200, ["batch", "cascade"], endpoints=endpoints, prices=book(endpoints)))
    assert plan.recipe == "batch" and plan.certified
    cascade = next(a for a in plan.alternatives if a.estimate.strategy.recipe == "cascade")
    assert cascade.estimate.quality.label_change == 1.0 and cascade.estimate.quality.assumed and not cascade.feasible


def test_a_measured_cascade_is_priced_by_what_was_counted_and_chosen_where_it_keeps_the_agreement() -> None:
    found = (
        measured(Kind.KEPT, 120, 1),
        measured(Kind.CHANGE, 133, 1),
        measured(Kind.KEPT, 110, 1, TASK),
        measured(Kind.CHANGE, 133, 1, TASK),
    )
    endpoints = (DEAR, CHEAP)
    asked = job((500,) * 200, ["batch", "cascade"], endpoints=endpoints, prices=book(endpoints), measured=found)
    plan = choose(replace(asked, objective=Objective(min_agreement=0.95)))
    assert plan.recipe == "cascade" and plan.chosen.strategy.confidence_below == 0.62
    assert not plan.certified, "certified is what a pilot certified"
    assert plan.chosen.quality.label_change < 0.05 and not plan.chosen.quality.assumed
    share = next(line for line in plan.chosen.lines if line.part == "escalate").n_requests / 400
    assert share == pytest.approx(36.5 / 267, abs=0.003), "36 of 266 doubted"
    assert any("measured, n=266" in warning for warning in plan.warnings)
    other = choose(replace(asked, measured=tuple(replace(one, model="gpt-4o-mini") for one in found)))
    assert other.recipe == "batch", "what was measured of one model says nothing of two"


def test_what_earlier_runs_doubted_prices_the_next_cascade() -> None:
    seen = Doubts(model="gpt-4o-mini", strategy=bare(CASCADE), n_items=400, n_doubted=40)
    plan = choose(cascades(learned=Learned(doubts=(seen,))))
    line = next(line for line in of_tier(plan, Tier.BATCH).lines if line.part == "escalate")
    assert line.n_requests / 400 == pytest.approx((40 + 6) / 420, abs=0.005)
    elsewhere = replace(seen, strategy=replace(seen.strategy, escalate=None))
    plan = choose(cascades(learned=Learned(doubts=(elsewhere,))))
    assert next(x for x in of_tier(plan, Tier.BATCH).lines if x.part == "escalate").n_requests == 120


def test_decisions_may_be_doubted_by_their_own_confidence_and_are_asked_again_in_words(tmp_path: Path) -> None:
    deciding = endpoint("main", "gpt-6-luna", "1", tiers=(Tier.REALTIME, Tier.DECISIONS), price=None)
    path = tmp_path / "sure.toml"
    path.write_text(
        'name = "sure"\nsummary = "A test."\n[grid]\ntier = ["decisions"]\ndoubt = ["confidence"]\n'
        '[[evidence]]\nlever = "deciding"\nlabel_change = 0.1\nsource = "a guess"\n',
        encoding="utf-8",
    )
    plan = choose(cascades(endpoints=(deciding,), recipes=(load(path),)))
    lines = {line.part: line for line in plan.chosen.lines}
    assert (lines["classify"].tier, lines["reclassify"].tier) == (Tier.DECISIONS, Tier.REALTIME)
    assert lines["reclassify"].usage.completion_tokens > 0, "a written answer costs"
    assert plan.again_tier(plan.legs[0], Stage.RECLASSIFY) is Tier.REALTIME
    assert plan.again_tier(plan.legs[0]) is Tier.DECISIONS
    only = replace(deciding, tiers=(Tier.DECISIONS,))
    with pytest.raises(Infeasible, match="offers no realtime"):
        choose(cascades(endpoints=(only,), recipes=(load(path),)))


def test_packs_that_do_not_hold_leave_a_cascade_its_doubt() -> None:
    broken = Packs(model=CHEAP.model, classifiers=(TOPIC.version,), size=10, n=40, n_broken=40)
    packed = replace(CASCADE, conversations_per_request=10)
    asked = cascades(packs=tuple(replace(broken, size=n) for n in (10, 5, 3, 2)), classifiers=(TOPIC,))
    held = capped(asked, packed, CHEAP)
    assert (held.conversations_per_request, held.doubt, held.escalate) == (1, Doubt.CONFIDENCE, "dear")
    assert capped(asked, replace(packed, escalate=None), CHEAP).doubt is Doubt.NONE


# -- what calibrate measures ------------------------------------------------------------------------------------------


def test_a_cascade_is_measured_on_each_cheaper_model_and_never_the_other_way_round() -> None:
    dearer = endpoint("dearer", "gpt-4o", "9")
    settings = Settings(project=Path(), endpoints=(DEAR, CHEAP, dearer), columns=Columns(), defaults=Defaults())
    point = replace(CASCADE, escalate="reference", tier=Tier.REALTIME)
    assert [(s.escalate, e.name) for s, e in ways(settings, point)] == [("dear", "cheap")]
    assert [e.name for _, e in ways(settings, replace(point, escalate="dearer"))] == ["dear", "cheap"]
    assert [e.name for _, e in ways(settings, replace(point, escalate=None))] == ["dear"]
    assert not list(ways(settings, replace(point, escalate="nowhere")))
    assert not list(ways(settings, replace(point, model="gpt-4.1-mini")))


def test_calibrate_says_what_was_kept_and_from_which_confidence_on() -> None:
    held = (Held(classifier="topic", n_kept=118, n_kept_different=1, n=133, n_different=1),)
    bound = Threshold(below=0.62, held=held)
    one = Doubting(strategy=CASCADE, model="gpt-4o-mini → gpt-4.1", held=held, bound=bound)
    cells = calibration_view._doubting_row(one)
    assert cells[3:5] == ["11.3 %", "1 of 118"] and cells[-1] == "0.62: asks 11.3 % again, topic 1 of 118 differ"
    few = replace(bound, held=(replace(held[0], n_kept=40),))
    assert calibration_view._doubting_row(replace(one, bound=few))[-1].startswith("not 0.62")
    document = calibration_view._doubting_as_json(one)
    assert document["threshold"]["certified"] and document["threshold"]["classifiers"][0]["p_value"] < 0.05


# -- mixed with other ways --------------------------------------------------------------------------------------------


def test_a_cascade_that_changes_too_many_labels_is_mixed_with_what_changes_none() -> None:
    counts = ((Kind.KEPT, 180, 2), (Kind.CHANGE, 200, 8))
    found = tuple(measured(kind, n, x, c) for c in (TOPIC, TASK) for kind, n, x in counts)
    endpoints = (DEAR, CHEAP)
    asked = job((500,) * 2_000, ["batch", "cascade"], endpoints=endpoints, prices=book(endpoints), measured=found)
    plan = choose(replace(asked, objective=Objective(min_agreement=0.95)))
    assert {leg.strategy.recipe for leg in plan.legs} == {"batch", "cascade"} and plan.mix
    assert plan.chosen.quality.label_change <= 0.05
    cascade = next(leg for leg in plan.legs if leg.strategy.escalate)
    assert (cascade.endpoint, plan.asked_of(cascade, Stage.RECLASSIFY).name) == ("cheap", "dear")
    assert plan.price("dear", plan.again_tier(cascade, Stage.RECLASSIFY))
    assert {line.endpoint for line in plan.chosen.lines if line.part == "escalate"} == {"dear"}


def test_a_mix_takes_as_long_as_what_is_escalated_after_it() -> None:
    one = Load(tier=Tier.REALTIME, n_requests=1_000, prompt_tokens=10**6, cap_tokens=10**5, completion_tokens=10**4)
    batch = replace(one, tier=Tier.BATCH)
    plain = LegLoad(endpoint=CHEAP, main=(one,), follow_ups=())
    more = mixed_s([replace(plain, elsewhere=((DEAR, one),))])
    assert more == pytest.approx(mixed_s([plain]) + part_s(DEAR, one))
    waiting = replace(plain, main=(batch,), elsewhere=((DEAR, batch),))
    assert mixed_s([waiting]) == 2 * WINDOW_S[Tier.BATCH], "one window after the other"


def test_what_tells_ways_apart_names_both_models() -> None:
    asked = cascades()
    one, other = (Key.of(asked, replace(CASCADE, escalate=name), CHEAP) for name in ("dear", None))
    assert (one.model, other.model) == ("gpt-4o-mini → gpt-4.1", "gpt-4o-mini")


def test_what_is_escalated_counts_against_the_second_endpoints_rate_and_queue() -> None:
    slow = replace(DEAR, rpm=60)
    asked = cascades(endpoints=(slow, CHEAP), recipes=find(["cascade"]))
    drafts = {draft.estimate.strategy.tier: draft for draft in price_all(asked, RequestCounter(seed=1)).made}
    waiting, at_once = (Cell(0, 0, CHEAP, drafts[tier], 200.0) for tier in (Tier.BATCH, Tier.REALTIME))
    assert waiting.queued(slow) > 0 and waiting.queued(CHEAP) > 0 and waiting.elsewhere_s == 0
    assert waiting.windows_s == 3 * WINDOW_S[Tier.BATCH], "the first pass, its retries, and what is escalated"
    assert at_once.queued(slow) == 0 and at_once.windows_s == 0
    assert at_once.elsewhere_s > 120 / (0.85 * 60) * 60, "120 items expected, more at the upper end"
