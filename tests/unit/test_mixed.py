"""Mixed plans through the whole run: short conversations packed on one endpoint, long ones alone on another."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_provider import FakeClock, FakeProvider, answered, failed, first_labels, labels_asked, no_room
from small_job import (
    BATCH_NAIVE,
    EXPERTISE,
    GRADER,
    REALTIME_NAIVE,
    START,
    TOPIC,
    Job,
    endpoint,
    job,
    packed,
    plan,
    price,
)

from semtel_batch import classifiers, plans
from semtel_batch.audit.findings import Severity
from semtel_batch.audit.project import audit
from semtel_batch.errors import Incomplete, StoreError
from semtel_batch.plans import Leg, Objective, Plan, Slice, Strata, seal
from semtel_batch.records import Answer, Classifier, Doubt, Outcome, Progress, Shard, Stage, Tier
from semtel_batch.report import report
from semtel_batch.results import fan_out_detail, final_labels
from semtel_batch.rows import PlanState, ShardState
from semtel_batch.runner import Runner
from semtel_batch.status import plan_status
from semtel_batch.strata import uniforms
from semtel_batch.transport.shardfile import Call

EDGE = 60
BOTH = ("topic", "expertise")
SHORT = [f"user: question {i} about trains" for i in range(8)]
LONG = [f"user: question {i} about " + "laptops and their many ports " * 12 for i in range(8, 16)]
CONVERSATIONS = [text for pair in zip(SHORT, LONG, strict=True) for text in pair]


def versioned(asked: Classifier) -> Classifier:
    """A classifier with the version that its text has, as an audit computes it again."""
    return replace(asked, version=classifiers.version_of(asked.name, asked.instructions, asked.labels))


def mixed(**changes: Any) -> Plan:
    """Short: packed by four, in batch, on `a`. Long: half alone in realtime on `b`; half in batch on `b`, split."""
    a, b = endpoint("a"), endpoint("b")
    short, low, high = Slice(stratum=0), Slice(stratum=1, high=0.5), Slice(stratum=1, low=0.5)
    first = packed(4, doubt=changes.pop("doubt", Doubt.NONE))
    legs = (
        Leg(number=0, classifiers=BOTH, strategy=first, endpoint="a", slices=(short,)),
        Leg(number=1, classifiers=BOTH, strategy=REALTIME_NAIVE, endpoint="b", slices=(low,), retry_tier=Tier.REALTIME),
        Leg(number=2, classifiers=("topic",), strategy=BATCH_NAIVE, endpoint="b", slices=(high,)),
        Leg(number=3, classifiers=("expertise",), strategy=BATCH_NAIVE, endpoint="b", slices=(high,)),
    )
    base = plan(
        classifiers=(versioned(TOPIC), versioned(EXPERTISE)),
        endpoints=(a, b),
        prices=tuple((name, price(tier)) for name in ("a", "b") for tier in (Tier.REALTIME, Tier.BATCH)),
        legs=legs,
        strata=Strata(edges=(EDGE,)),
    )
    return seal(replace(base, grader=versioned(GRADER), **changes))


@dataclass
class World:
    job: Job
    clock: FakeClock = field(default_factory=FakeClock)
    provider: FakeProvider = field(default_factory=FakeProvider)

    @property
    def runner(self) -> Runner:
        return Runner(self.job.store, self.job.plan, self.provider.open, self.clock, lambda _tick: None)

    def finish(self) -> None:
        self.runner.collect(wait=True)
        assert self.job.store.plan_row(self.job.plan.id).state is PlanState.DONE

    def shards(self, leg: int) -> list[Shard]:
        return [row.shard for row in self.job.store.shards(self.job.plan.id) if row.shard.leg == leg]

    @property
    def labels(self) -> Any:
        return final_labels(self.job.store, self.job.plan)

    def broken(self) -> list[str]:
        found = audit(self.job.store, None, self.clock.now()).findings
        bad = [f for f in found if f.severity is Severity.BROKEN and "planned for" not in f.what]
        return [f"{f.which}: {f.what}: {f.found}" for f in bad if "longest" not in f.what]  # a profile made by hand


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Any]:
    made: list[World] = []

    def make(**changes: Any) -> World:
        made.append(World(job(tmp_path / f"project{len(made)}", mixed(**changes), CONVERSATIONS)))
        return made[-1]

    yield make
    for world in made:
        world.job.store.close()


def expected_leg(row: int, seed: int) -> int:
    if row % 2 == 0:
        return 0
    return 1 if uniforms(seed, [row])[0] < 0.5 else 2


def test_each_conversation_goes_where_its_stratum_and_its_number_say(new: Any) -> None:
    world = new()
    with pytest.raises(Incomplete):
        world.runner.submit()
    world.finish()
    assert world.labels["label"].null_count() == 0
    legs = {(row, name): leg for row, name, leg in world.labels.select("row", "classifier", "leg").iter_rows()}
    for row in range(16):
        wanted = expected_leg(row, world.job.plan.seed)
        assert legs[row, "topic"] == wanted
        assert legs[row, "expertise"] == (3 if wanted == 2 else wanted)
    assert {(s.endpoint, s.tier) for leg in range(4) for s in world.shards(leg)} == {
        ("a", Tier.BATCH),
        ("b", Tier.REALTIME),
        ("b", Tier.BATCH),
    }
    assert sum(s.n_requests for s in world.shards(0)) == 2
    assert max(world.provider.billed.values()) == 1


def test_an_audit_finds_a_mixed_run_sound_and_names_a_leg_that_asked_anothers(new: Any) -> None:
    world = new()
    world.runner.collect(wait=True)
    assert world.broken() == []
    swapped = tuple(
        replace(leg, slices={1: (Slice(stratum=1, low=0.5),), 2: (Slice(stratum=1, high=0.5),)}.get(n, leg.slices))
        for n, leg in enumerate(world.job.plan.legs)
    )
    assert _overwritten(world, swapped)
    found = world.broken()
    assert any("asked that another leg serves" in line for line in found)
    assert any("that nobody asked" in line for line in found)


def _overwritten(world: World, legs: tuple[Leg, ...]) -> bool:
    """Put other legs into the stored plan, with the hash that goes with them."""
    legs = (*legs[:3], replace(legs[3], slices=legs[2].slices))
    other = seal(replace(world.job.plan, legs=legs))
    with sqlite3.connect(world.job.store.path) as raw:
        changed = raw.execute("UPDATE plans SET document = ?, hash = ?", (plans.to_json(other), other.hash))
    return changed.rowcount == 1


def test_what_a_mixed_plan_said_is_told_leg_by_leg(new: Any) -> None:
    world = new()
    world.finish()
    detail = fan_out_detail(world.job.store, world.job.plan, world.labels)
    told = dict(zip(detail["conversation_id"], detail["strategy"], strict=True))
    for row in range(16):
        assert told[f"c{row}"] == {0: "packed", 1: "naive", 2: "batch"}[expected_leg(row, world.job.plan.seed)]
    assert set(detail["topic_tier"]) == {"batch", "realtime"}
    assert detail["topic_cost_usd"].null_count() == 0
    summed = sum(part.cost_usd for part in world.job.store.parts(world.job.plan.id))
    by_item = sum(detail[f"{name}_cost_usd"].sum() for name in BOTH)
    assert abs(by_item - summed) < summed / 1_000_000
    said = report(world.job.store, world.job.plan, world.labels)
    assert said.recipe == "packed + naive + batch"
    assert {(line.endpoint, line.tier) for line in said.endpoints} == {
        ("a", Tier.BATCH),
        ("b", Tier.BATCH),
        ("b", Tier.REALTIME),
    }
    assert said.actual.usd == summed
    assert plan_status(world.job.store, world.job.store.plan_row(world.job.plan.id)).recipe == said.recipe


def test_where_the_recipe_differs_by_classifier_each_is_named(new: Any) -> None:
    legs = (
        Leg(number=0, classifiers=("topic",), strategy=packed(5), endpoint="a"),
        Leg(number=1, classifiers=("expertise",), strategy=BATCH_NAIVE, endpoint="b", slices=(Slice(stratum=0),)),
        Leg(number=2, classifiers=("expertise",), strategy=packed(5), endpoint="b", slices=(Slice(stratum=1),)),
    )
    world = new(legs=legs)
    world.finish()
    detail = fan_out_detail(world.job.store, world.job.plan, world.labels)
    assert detail["strategy"].to_list() == ["topic: packed; expertise: batch", "packed"] * 8


def test_what_fails_is_asked_again_by_its_own_leg_and_in_its_own_tier(new: Any) -> None:
    once: set[bytes] = set()

    def flaky(call: Call) -> Answer:
        if call.body not in once and labels_asked(call)[0] == 1:
            once.add(call.body)
            return failed(call)
        return first_labels(call)

    world = new()
    world.provider.behave = flaky
    world.finish()
    again = [(s.leg, s.endpoint, s.tier) for leg in range(4) for s in world.shards(leg) if s.attempt == 1]
    assert sorted(again) == [(1, "b", Tier.REALTIME), (2, "b", Tier.BATCH), (3, "b", Tier.BATCH)]
    assert world.labels["label"].null_count() == 0
    assert world.broken() == []


def test_retry_asks_each_open_item_of_the_leg_that_serves_it(new: Any) -> None:
    world = new()
    world.provider.behave = lambda call: failed(call) if b"question 1" in call.body else first_labels(call)
    world.finish()
    owed = world.labels["label"].null_count()
    assert owed > 0
    world.provider.behave = first_labels
    assert world.runner.retry() == owed
    world.finish()
    assert world.labels["label"].null_count() == 0
    assert max(world.provider.billed.values()) == 1
    assert world.broken() == []


def test_only_the_legs_that_grade_are_graded(new: Any) -> None:
    def doubting(call: Call) -> Answer:
        n, choices = labels_asked(call)
        wrong = "incorrect" in next(iter(choices.values()))
        return answered(
            call, [{"id": i + 1, **{k: v[-1 if wrong else 0] for k, v in choices.items()}} for i in range(n)]
        )

    world = new(doubt=Doubt.GRADER)
    world.provider.behave = doubting
    world.finish()
    stages = {leg: {s.stage for s in world.shards(leg)} for leg in range(4)}
    assert stages[0] == set(Stage) - {Stage.RERUN, Stage.EMBED}
    assert stages[1] == stages[2] == stages[3] == {Stage.CLASSIFY}
    assert world.broken() == []


def test_a_full_queue_of_one_endpoint_does_not_shrink_the_shards_of_another(new: Any) -> None:
    refused: list[str] = []

    def refuse(shard: Shard) -> Progress | None:
        if shard.endpoint == "a" and not refused:
            refused.append(shard.key)
            return no_room(shard, message="Limit: 200 enqueued tokens")
        return None

    world = new()
    world.provider.refuse = refuse
    world.finish()
    assert sum(s.n_requests > 0 for s in world.shards(0)) > 1
    assert all("p" not in s.key.rpartition("-")[2] for leg in (2, 3) for s in world.shards(leg))


def test_near_the_deadline_only_what_has_realtime_moves_there(new: Any) -> None:
    a = endpoint("a", tiers=(Tier.BATCH,))
    world = new(endpoints=(a, endpoint("b")), objective=Objective(deadline_s=4 * 3_600))
    world.provider.n_looks = 500
    with pytest.raises(Incomplete):
        world.runner.submit()
    world.clock.time = START + timedelta(hours=3, minutes=50)
    with pytest.raises(Incomplete):
        world.runner.collect(wait=False)
    moved = {key for key, batch in world.provider.batches.items() if batch.cancelled}
    assert moved == {s.key for leg in (2, 3) for s in world.shards(leg)}
    assert not any(world.provider.batches[s.key].cancelled for s in world.shards(0))


def test_cancel_keeps_what_every_leg_has(new: Any) -> None:
    world = new()
    world.provider.n_looks = 3
    with pytest.raises(Incomplete):
        world.runner.submit()
    world.runner.cancel()
    assert world.job.store.plan_row(world.job.plan.id).state is PlanState.CANCELLED
    labelled = world.labels.filter(world.labels["label"].is_not_null())
    assert set(labelled["leg"]) >= {1}
    assert all(row.state is not ShardState.SUBMITTED for row in world.job.store.shards(world.job.plan.id))
    assert {p.outcome for p in world.job.store.problems(world.job.plan.id)} <= {Outcome.CANCELLED, Outcome.ABANDONED}


def test_a_second_run_takes_over_what_each_leg_answered(new: Any) -> None:
    world = new()
    world.finish()
    n_billed = world.provider.n_billed
    other = seal(replace(world.job.plan, id="q1a2b3c4"))
    folder = world.job.store.files(other.id)
    folder.mkdir()
    (folder / "conversations").symlink_to(world.job.conversations)
    world.job.store.add_plan(other)
    Runner(world.job.store, other, world.provider.open, world.clock, lambda _tick: None).collect(wait=True)
    assert world.provider.n_billed == n_billed
    assert final_labels(world.job.store, other)["label"].null_count() == 0


def test_a_plan_that_leaves_somebody_out_never_reaches_the_store(new: Any) -> None:
    world = new()
    short = seal(replace(world.job.plan, id="bad", legs=world.job.plan.legs[:3]))
    with pytest.raises(StoreError, match="expertise of stratum 1"):
        world.job.store.add_plan(short)
    with pytest.raises(StoreError, match="expertise of stratum 1"):
        Runner(world.job.store, short, world.provider.open, world.clock, lambda _tick: None).submit()
    assert world.provider.opened == []


def test_a_request_over_the_long_context_limit_is_billed_dearer_in_the_store_and_by_item(new: Any) -> None:
    """The fake provider bills 100 prompt tokens a request: a limit of 99 makes all of them long."""
    prices = tuple((name, replace(price(tier), long_over=99)) for name in ("a", "b") for tier in Tier)
    long, short = new(prices=prices), new()
    for world in (long, short):
        world.finish()
    usd = [sum(part.cost_usd for part in world.job.store.parts(world.job.plan.id)) for world in (long, short)]
    assert 1.5 * float(usd[1]) < float(usd[0]) < 2 * float(usd[1])
    detail = fan_out_detail(long.job.store, long.job.plan, long.labels)
    by_item = sum(detail[f"{name}_cost_usd"].sum() for name in BOTH)
    assert abs(by_item - usd[0]) < usd[0] / 1_000_000
    assert long.broken() == []


def test_batches_are_looked_at_between_the_realtime_shards_of_a_mix(new: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semtel_batch.compose.shards._BETWEEN_LOOKS_REQUESTS", 2)
    world = new()
    seen: list[str] = []

    def told(step: str, shard: Shard) -> None:
        seen.append(f"{step} {shard.tier}")
        world.clock.time += timedelta(minutes=2)

    world.provider.before = told
    with pytest.raises(Incomplete):
        world.runner.submit()
    run = [number for number, what in enumerate(seen) if what == "answers realtime"]
    assert len(run) > 1 and "poll batch" in seen[run[0] : run[1]]
    world.finish()
    assert world.labels["label"].null_count() == 0 and max(world.provider.billed.values()) == 1
