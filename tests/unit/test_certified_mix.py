"""From a walked path to the plan of its certified mix: everybody is asked as certified, or it is not used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_planner import OPENAI, TASK, TOPIC, job, recipes_named
from test_walk import Scripted

from semtel_batch.measurements import MixPath, Packs, Pilot
from semtel_batch.planner import bench as benches
from semtel_batch.planner import walk
from semtel_batch.planner.job import Job
from semtel_batch.planner.optimize import choose
from semtel_batch.planner.promise import mix_certificates, target_of
from semtel_batch.plans import Objective, Plan, Slice
from semtel_batch.records import Strategy, Tier
from semtel_batch.strata import faults, serves, stratum_of, uniforms
from semtel_batch.studies import pathing

LENGTHS = np.random.default_rng(3).integers(40, 1_500, 4_000)
ASKED = Objective(min_agreement=0.95)
LABELLED = np.arange(4_000) % 40 == 0
RECIPES = ["naive", "batch", "packed"]
HOUR = 3_600.0


def made(**fields: object) -> Job:
    fields = {"objective": ASKED, "labelled": lambda _: LABELLED, "classifiers": (TOPIC, TASK), **fields}
    return job(LENGTHS, RECIPES, **fields)


def walked(packed_change: float = 0.12, seed: int = 5) -> tuple[benches.Bench, Pilot]:
    """A pilot whose packs of five change nothing and whose larger ones change this share of labels."""
    whole = replace(made(), seed=seed)
    ways = [way for way in benches.ways_of(whole, ()) if way.key.strategy.conversations_per_request in (1, 5, 20)]
    ground = benches.bench(whole, ways)
    rates = tuple(packed_change if lever.pack == 20 else 0.0 for lever in ground.table.levers)
    asker = Scripted(ground.table, rates)
    pilot = Pilot(
        min_agreement=0.95,
        delta=0.05,
        reference=OPENAI.priced_as,
        reference_plan_id="r1",
        population=3_900,
        n_data=4_000,
        classifiers=("topic", "task"),
    )
    path = MixPath(
        seed=seed,
        data_hash="d",
        n_distinct=4_000,
        versions=(TOPIC.version, TASK.version),
        edges=ground.edges,
        ways=(),
        steps=(),
        population=0,
        n=400,
    )
    aim = pathing.aim_of(path, target_of(pilot))
    laid = walk.explore(ground.table, asker, aim.allowed)
    pool = walk.concerned(ground.table, laid.steps, ~LABELLED, kept=True)
    path = replace(pathing.written(ground, laid, path, {}), population=len(pool))
    steps = pathing.read_back(path)
    again = benches.bench(whole, [ground.ways[number] for number in used(laid)], path.edges)
    rates = tuple(packed_change if lever.pack == 20 else 0.0 for lever in again.table.levers)
    fresh = walk.Fresh(items=pool[::9][:400], population=len(pool))
    found = walk.walk(again.table, steps, fresh, aim, Scripted(again.table, rates))
    return again, replace(pilot, mixes=pathing.judged(path, found, len(fresh.items)))


def used(laid: walk.Laid) -> list[int]:
    return sorted({0, *(int(way) for one in laid.steps for way in one.arm)})


BENCH, PILOT = walked()


def asked_by(plan: Plan) -> np.ndarray:
    """The number of the leg that asks each conversation for its topic; every one by exactly one."""
    stratum = stratum_of(plan.strata, LENGTHS, LABELLED.astype(np.int64))
    uniform = uniforms(plan.seed, np.arange(len(LENGTHS)))
    legs = [leg for leg in plan.legs if "topic" in leg.classifiers]
    masks = np.stack([serves(leg, stratum, uniform) for leg in legs])
    assert (masks.sum(0) == 1).all()
    return np.array([leg.number for leg in legs])[masks.argmax(0)]


def test_a_walked_path_survives_being_written_down() -> None:
    path = PILOT.mixes
    assert path is not None and path.certified is not None
    assert path.ways[0].recipe == "batch" and len(path.steps) > 2
    for number, one in enumerate(pathing.read_back(path)):
        assert BENCH.table.sizes @ np.bincount(one.stratum, weights=one.high - one.low) == pytest.approx(4_000)
        assert (number < path.steps.index(path.certified) + 1) == path.steps[number].is_certified


def test_the_plan_asks_everybody_as_it_was_certified() -> None:
    plan = choose(made(pilots=(PILOT,)))
    path = PILOT.mixes
    assert path is not None and path.certified is not None
    assert plan.certified and faults(plan) == () and plan.seed == path.seed
    legs = asked_by(plan)
    step = pathing.read_back(path)[path.steps.index(path.certified)]
    ways = BENCH.table.ways(step)
    for conversation in range(0, 4_000, 7):
        strategy = plan.legs[legs[conversation]].strategy
        way = 0 if LABELLED[conversation] else ways[conversation]
        assert strategy.conversations_per_request == BENCH.ways[way].key.strategy.conversations_per_request
    assert plan.chosen.quality.label_change <= 0.05 and not plan.chosen.quality.assumed
    reference = f"reference {OPENAI.priced_as} asked one by one"
    sentence = f"with 95 % confidence at least 95 % of topic labels equal those of {reference}"
    assert sentence in plan.chosen.quality.basis and f"(pilot n={path.n_asked}, x=" in plan.chosen.quality.basis
    assert [one.is_chosen for one in plan.path].count(True) == 1
    assert {one.reason for one in plan.mix if one.stratum % 2} == {"labelled by the reference in the calibration"}
    barred = [a.reason for a in plan.alternatives if a.estimate.strategy.conversations_per_request == 20]
    assert set(barred) == {"not certified: the pilot for 95 % certified a mix"}


def test_where_conversations_share_texts_the_promise_says_that_it_is_over_texts() -> None:
    shared = replace(PILOT, n_data=5_000)
    assert all("one by one over 4,000 distinct texts (" in one.wording for one in mix_certificates(shared))
    assert all("distinct texts" not in one.wording for one in mix_certificates(PILOT))


def test_a_mix_is_cheaper_than_what_keeps_labels_and_than_the_safest_single_way() -> None:
    plan, alone = choose(made(pilots=(PILOT,))), choose(made())
    assert plan.chosen.usd < alone.chosen.usd


def test_a_deadline_moves_ways_to_faster_tiers_and_changes_nobodys_way() -> None:
    slow, fast = (choose(made(pilots=(PILOT,), objective=replace(ASKED, deadline_s=s))) for s in (None, HOUR / 2))
    assert fast.certified and fast.chosen.time_s <= HOUR / 2
    assert {leg.strategy.tier for leg in fast.legs} == {Tier.REALTIME}
    assert {leg.strategy.tier for leg in slow.legs} == {Tier.BATCH}
    packs = [[plan.legs[n].strategy.conversations_per_request for n in asked_by(plan)] for plan in (slow, fast)]
    assert packs[0] == packs[1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labelled": lambda _: None}, "it is of other texts"),
        ({"labelled": None}, "it is of other texts"),
        ({"classifiers": (TOPIC,)}, "it is of other classifiers"),
        ({"classifiers": (TASK, TOPIC)}, "it is of other classifiers"),
        ({"objective": Objective(min_agreement=0.96)}, ""),
        ({"objective": Objective()}, ""),
    ],
    ids=["other data", "unknown data", "fewer classifiers", "another order", "more asked for", "nothing asked for"],
)
def test_what_is_not_the_certified_job_is_not_called_certified_by_it(changes: dict[str, object], why: str) -> None:
    plan = choose(made(pilots=(PILOT,), **changes))
    said = [line for line in plan.warnings if line.startswith("The mix that calibrate certified is not used")]
    assert len(said) == bool(why) and all(why in line for line in said)
    assert plan.path == () and plan.strata.levels == 1
    assert not plan.chosen.quality.label_change, "nothing that may change labels was measured or named"


def test_packs_that_broke_since_take_the_certificate_with_them() -> None:
    both = tuple(sorted((TOPIC.version, TASK.version)))
    alone = [(TOPIC.version,), (TASK.version,), both]
    broken = tuple(
        Packs(model=OPENAI.priced_as, classifiers=versions, size=size, n=200, n_broken=150)
        for versions in alone
        for size in (10, 20)
    )
    plan = choose(made(pilots=(PILOT,), packs=broken))
    assert all(leg.strategy.conversations_per_request <= 5 for leg in plan.legs)
    assert plan.path == (), "packs of 20 are no longer sent, and those of 5 in their place were not certified"
    assert any("packed can't be asked as it was any more" in line for line in plan.warnings)


def test_the_words_rest_on_the_exact_test() -> None:
    for one in mix_certificates(PILOT):
        assert one.p_value <= 0.05 and one.most <= 0.05
        assert one.wording.startswith("with 95 % confidence at least 95 % of")
    assert Slice(stratum=1) in choose(made(pilots=(PILOT,))).legs[0].slices


def test_a_way_without_levers_must_have_been_tried() -> None:
    whole = replace(made(), recipes=recipes_named(("naive", "packed-graded")))
    assert len(benches.ways_of(whole, ())) == 1
    graded = next(s for r in whole.recipes for s in r.strategies() if s.conversations_per_request == 5)
    tried = benches.Key.of(whole, graded, OPENAI)
    (_, way) = benches.ways_of(whole, (tried,))
    assert way.key == tried
    assert benches.levers(benches.ways_of(whole, (tried,)))[1].apart == 1
    assert benches.Key.of(whole, replace(graded, tier=Tier.BATCH, recipe="x"), OPENAI) == tried
    assert benches.Key.of(whole, Strategy(recipe="", tier=Tier.REALTIME), OPENAI) == benches.reference_key(whole)
