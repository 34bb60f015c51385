"""What a calibration spends its sample on, what it counts, and what a plan makes of that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_job import LUNA, endpoint, packed, plan, texts
from small_job import job as small_job
from test_planner import OPENAI, TASK, TOPIC, job

from semtel_batch.compose.pack import pack
from semtel_batch.measurements import Arm, Calibration, Kind, Measurement, Role
from semtel_batch.planner.evidence import measured
from semtel_batch.planner.optimize import choose
from semtel_batch.quality.certificate import upper_bound
from semtel_batch.records import Doubt, Strategy, Tier
from semtel_batch.strategies import find, levers_of, one_by_one
from semtel_batch.studies import calibrate as study

NAIVE = Strategy(recipe="", tier=Tier.REALTIME)
NOW = datetime(2026, 11, 25, tzinfo=UTC)
CALIBRATION = Calibration(
    id="c1",
    created_at=NOW,
    source="conversations.jsonl",
    asked=(),
    classifiers=("topic",),
    tier=Tier.REALTIME,
    seed=7,
    n_population=1_000,
    n_explore=100,
    n_verify=200,
    n_audit=200,
    budget_usd=Decimal(1),
    usd_high=Decimal("0.5"),
    arms=(Arm(role=Role.REFERENCE, plan_id="p1a2b3c4", strategy=NAIVE, endpoint="main"),),
)


def test_factors_are_the_recipes_points_of_one_lever_packs_before_second_passes() -> None:
    found = [strategy for _, strategy in study.factors(find(()), Tier.REALTIME, 10_000, named=False)]
    assert {strategy.tier for strategy in found} <= {Tier.REALTIME, Tier.DECISIONS}
    assert len(found) == len({study.bare(strategy) for strategy in found})
    shapes = {(s.conversations_per_request, s.classifiers_per_request, s.truncate_to is not None) for s in found}
    assert {(10, 1, False), (1, 0, False), (1, 1, True)} <= shapes
    assert (10, 0, False) not in shapes, "two levers at once"
    doubts = [strategy.doubt is not Doubt.NONE for strategy in found]
    assert doubts == sorted(doubts)
    named = study.factors(find(["packed"]), Tier.BATCH, 10_000, named=True)
    assert {s.classifiers_per_request for _, s in named} == {0, 1}


def test_every_point_of_every_recipe_can_be_measured_alone_and_told_lever_by_lever() -> None:
    for recipe in find(()):
        for strategy in recipe.strategies():
            assert study.point(recipe, strategy).strategies() == (strategy,)
            assert len(one_by_one(strategy)) == len(levers_of(strategy))
            assert all(len(levers_of(one)) == 1 for one in one_by_one(strategy))
    deciding = [
        s for _, s in study.factors(find(()), Tier.REALTIME, 10_000, named=False) if s.tier is not Tier.REALTIME
    ]
    assert {strategy.tier for strategy in deciding} == {Tier.DECISIONS}, "another way of asking, not another price"


def test_what_cuts_nothing_is_not_paid_for() -> None:
    limits = {s.truncate_to for _, s in study.factors(find(["truncated"]), Tier.REALTIME, 800, named=False)}
    assert limits == {512}


def test_the_parts_of_the_sample_do_not_overlap() -> None:
    for n in (21, 64, 860, 100_000):
        parts = study.split(n)
        assert study.FEWEST <= parts.n_explore <= study.MOST_EXPLORED
        assert parts.n_explore + parts.n_verify + parts.n_audit <= n
    assert study.split(100_000) == study.Split(n_explore=200, n_verify=480, n_audit=480)


def test_each_audited_item_has_a_pack_to_itself() -> None:
    lengths = np.random.default_rng(1).lognormal(5, 1, 400).astype(np.int64)
    apart = np.zeros(400, dtype=bool)
    apart[::10] = True
    for other in (False, True):
        packs = pack(lengths, max_tokens=10**6, max_items=10, seed=3, other_packs=other, apart=apart)
        assert sorted(np.concatenate(packs).tolist()) == list(range(400))
        assert [int(apart[members].sum()) for members in packs] == [1] * 40
    tight = pack(lengths, max_tokens=1_000, max_items=10, seed=3, apart=apart)
    assert max(int(apart[members].sum()) for members in tight) == 1
    assert sorted(np.concatenate(tight).tolist()) == list(range(400))


def labels(**given: str | None) -> pl.DataFrame:
    rows = [(name, "topic", label, 10 * i) for i, (name, label) in enumerate(given.items())]
    return pl.DataFrame(rows, schema=["conversation_id", "classifier", "label", "n_tokens"], orient="row")


def test_a_missing_label_differs_and_a_missing_reference_says_nothing() -> None:
    differs, lengths = study.compare(labels(a="x", b="x", c="x", d=None), labels(d="x", c=None, b="y", a="x"), "topic")
    assert differs.tolist() == [False, True, True]
    assert lengths.tolist() == [0, 10, 20]


def test_changes_are_counted_over_all_lengths_and_by_class() -> None:
    basis = study.Basis(
        calibration=CALIBRATION, plan=plan(packed(5)), strategy=packed(5), reference=LUNA, model=LUNA, edges=(15,)
    )
    found = [
        (one.min_tokens, one.max_tokens, one.n_different, one.n)
        for one in study.measure(basis, labels(a="x", b="x", c="x"), labels(a="y", b="x", c="y"))
        if one.classifier == "topic"
    ]
    assert found == [(None, None, 2, 3), (0, 15, 1, 2), (15, 2**31 - 1, 1, 1)]


# -- what plans make of it -----------------------------------------------------------------------------------------


def counted(strategy: Strategy, x: int, n: int, classifier: str = "topic", **changes: object) -> Measurement:
    version = {"topic": TOPIC, "task": TASK}[classifier].version
    made = Measurement(
        calibration_id="c1",
        plan_id="p1",
        measured_at=NOW,
        kind=Kind.CHANGE,
        classifier=classifier,
        version=version,
        companions=(version,),
        reference=OPENAI.priced_as,
        model=OPENAI.priced_as,
        strategy=strategy,
        source="conversations.jsonl",
        sample="E",
        seed=1,
        n=n,
        n_different=x,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


PACKED = replace(NAIVE, conversations_per_request=10)


def test_what_was_measured_takes_the_place_of_what_was_published() -> None:
    asked = job(
        [50] * 2_000, classifiers=(TOPIC, TASK), measured=(counted(PACKED, 1, 200), counted(PACKED, 4, 200, "task"))
    )
    found = measured(asked, replace(PACKED, recipe="packed", tier=Tier.BATCH), OPENAI)
    assert found is not None
    assert not found.assumed
    assert found.label_change == pytest.approx(upper_bound(4, 200, 0.05))
    assert "task 4 of 200" in found.basis


def test_measured_ways_may_be_chosen_where_an_agreement_is_asked_for() -> None:
    evidence = (counted(PACKED, 0, 200),)
    asked = job([50] * 2_000, classifiers=(TOPIC,), measured=evidence)
    chosen = choose(replace(asked, objective=replace(asked.objective, min_agreement=0.95)))
    assert (chosen.chosen.strategy.recipe, chosen.chosen.strategy.conversations_per_request) == ("packed", 10)
    assert not chosen.certified, "what was chosen on a sample is certified by fresh conversations only"
    assert choose(asked).chosen.strategy.recipe == "batch"
    strict = choose(replace(asked, objective=replace(asked.objective, min_agreement=0.99)))
    assert strict.chosen.strategy.recipe == "batch", "200 items without a change do not show 99 %"


def test_levers_measured_alone_add_up_and_a_missing_one_leaves_the_published() -> None:
    both = replace(PACKED, classifiers_per_request=0)
    combined = replace(NAIVE, classifiers_per_request=0)
    together = (TOPIC.version, TASK.version)
    evidence = [counted(PACKED, 0, 100, name) for name in ("topic", "task")]
    asked = job([50] * 2_000, classifiers=(TOPIC, TASK), measured=tuple(evidence))
    assert measured(asked, both, OPENAI) is None
    evidence += [counted(combined, 3, 100, name, companions=together) for name in ("topic", "task")]
    found = measured(replace(asked, measured=tuple(evidence)), both, OPENAI)
    assert found is not None
    assert found.label_change == pytest.approx(upper_bound(0, 100, 0.05) + upper_bound(3, 100, 0.05))


def test_other_data_versions_or_models_are_not_this_jobs_evidence() -> None:
    def found(**changes: object) -> object:
        asked = job([50] * 2_000, classifiers=(TOPIC,), measured=(counted(PACKED, 0, 100, **changes),))
        return measured(asked, PACKED, OPENAI)

    elsewhere = found(source="other.jsonl")
    assert elsewhere is not None
    assert elsewhere.assumed  # type: ignore[attr-defined]
    assert found(version="another") is None
    assert found(reference="another") is None
    assert found(model="another") is None
    assert found(kind=Kind.SELF_FLIP) is None


def test_the_store_keeps_calibrations_evidence_and_certificates(tmp_path: Path) -> None:
    made = small_job(tmp_path / "p", plan(endpoint=endpoint()), texts(2))
    made.store.put_calibration(CALIBRATION)
    ended = replace(CALIBRATION, ended_at=NOW)
    made.store.put_calibration(ended)
    assert made.store.calibrations() == [ended]
    evidence = [counted(PACKED, 2, 30, plan_id=made.plan.id, min_tokens=5, max_tokens=9)]
    made.store.set_evidence("c1", [*evidence, *evidence])
    made.store.set_evidence("c1", evidence)
    assert made.store.evidence([TOPIC.version]) == evidence
    assert made.store.evidence(["another"]) == []
    made.store.add_certificate(made.plan.id, "{}", NOW)
    assert made.store.certificates(made.plan.id) == ["{}"]
