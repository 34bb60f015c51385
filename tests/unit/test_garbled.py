"""How many conversations a prompt bears: what counts as a broken pack, when a size is given up, and who heeds it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from fake_provider import Behaviour, answered, first_labels
from small_job import LUNA, PLAN_ID, START, packed
from test_planner import TASK, TOPIC, job
from test_runner import World, new

from semtel_batch.measurements import Packs
from semtel_batch.planner.optimize import choose
from semtel_batch.quality.garbled import breaks, halves, size_that_holds, tally
from semtel_batch.records import Answer, Doubt, Stage
from semtel_batch.transport.shardfile import Call

__all__ = ["new"]


def packs(size: int, n_broken: int, n: int, model: str = LUNA, versions: tuple[str, ...] = ("v",)) -> Packs:
    return Packs(model=model, classifiers=versions, size=size, n=n, n_broken=n_broken)


def test_halves() -> None:
    assert halves(20) == (20, 10, 5, 3, 2, 1)
    assert halves(1) == (1,)


@pytest.mark.parametrize(
    ("n_broken", "n", "expected"),
    [
        (0, 0, False),
        (1, 1, False),
        (2, 2, False),
        (3, 3, True),
        (2, 20, False),
        (5, 20, False),
        (7, 20, True),
        (130, 1_000, True),
    ],
)
def test_a_size_is_given_up_only_when_surely_more_than_a_tenth_break(n_broken: int, n: int, expected: bool) -> None:
    assert breaks([packs(20, n_broken, n)]) is expected


def test_noise_at_a_tenth_shrinks_nothing_and_counts_of_like_sizes_add_up() -> None:
    assert size_that_holds([packs(20, 10, 100)], 20) == 20
    assert size_that_holds([packs(size, 1, 1) for size in (20, 19, 12)], 20) == 10


def test_a_size_shrinks_to_what_held_and_never_past_what_broke_below_it() -> None:
    assert size_that_holds([], 20) == 20
    assert size_that_holds([packs(20, 30, 30)], 20) == 10
    assert size_that_holds([packs(20, 30, 30), packs(10, 0, 90)], 20) == 10
    assert size_that_holds([packs(20, 30, 30), packs(10, 40, 90)], 20) == 5
    assert size_that_holds([packs(20, 30, 30)], 50) == 13, "what breaks at 20 is not tried at 50"
    assert size_that_holds([packs(20, 30, 30)], 10) == 10
    assert size_that_holds([packs(2, 30, 30)], 2) == 1


def test_a_pack_is_broken_by_what_is_missing_or_unreadable_not_by_a_strange_label() -> None:
    def items(request: int, *outcomes: str) -> list[tuple[int, int, str]]:
        return [(request, slot, outcome) for slot, outcome in enumerate(outcomes, 1)]

    listed = [
        *items(1, "answered", "answered", "answered", "missing"),
        *items(2, "answered", "invalid", "invalid", "invalid"),  # labels that are none: asked alone they'd be no better
        *items(3, "invalid", "invalid", "invalid", "invalid"),
        *items(4, "answered", "answered", "truncated", "truncated"),
        *items(5, "missing", "missing", "missing", "missing"),  # the provider lost the line
        *items(6, "errored", "errored", "errored", "errored"),
        *items(7, "missing"),
        *items(8, "answered", "answered", "answered", "answered", "answered", "missing"),
    ]
    labels = pl.DataFrame(listed, schema=["request", "slot", "outcome"], orient="row")
    ends = ["answered", "answered", "answered", "truncated", "missing", "errored", "answered", "answered"]
    answers = pl.DataFrame({"request": list(range(1, 9)), "outcome": ends})
    found = tally(answers, labels, LUNA, ("b", "a"))
    assert found == (packs(4, 3, 4, versions=("a", "b")), packs(6, 0, 1, versions=("a", "b")))


# -- a run ---------------------------------------------------------------------------------------------------------


def losing_half_of(over: int) -> Behaviour:
    """A model that leaves out the second half of what is more than so many."""

    def behave(call: Call) -> Answer:
        whole = first_labels(call)
        results = json.loads(whole.content or "")["results"]
        return whole if len(results) <= over else answered(call, results[: len(results) // 2])

    return behave


def sizes(world: World, stage: Stage, attempt: int = 0) -> int:
    rows = [row for row in world.job.store.shards(PLAN_ID) if (row.shard.stage, row.shard.attempt) == (stage, attempt)]
    return max(-(-row.shard.n_items // 2 // row.shard.n_requests) for row in rows)


def test_a_run_that_sees_its_packs_broken_packs_fewer_from_then_on(new: Any) -> None:
    world = new(packed(8, doubt=Doubt.RERUN), n=64)
    world.provider.behave = losing_half_of(4)
    world.finish()
    assert world.all_labelled()
    assert sizes(world, Stage.CLASSIFY) == 8
    assert sizes(world, Stage.CLASSIFY, 1) <= 4
    assert sizes(world, Stage.RERUN) == 4, "the second run is cut after the first one's answers were seen"
    kept = world.job.store.packs(START - timedelta(days=1))
    assert [(one.size, one.n_broken > 0) for one in kept][-1] == (8, True)
    assert all(one.n_broken == 0 for one in kept if one.size <= 4)
    assert {one.classifiers for one in kept} == {tuple(sorted(c.version for c in world.job.plan.classifiers))}
    assert world.job.store.packs(START + timedelta(days=400)) == []


def test_a_run_whose_packs_hold_packs_as_planned(new: Any) -> None:
    world = new(packed(8, doubt=Doubt.RERUN), n=64)
    world.finish()
    assert sizes(world, Stage.RERUN) == 8


# -- the next plan -------------------------------------------------------------------------------------------------


def test_the_next_plan_caps_its_packs_and_says_why() -> None:
    both = tuple(sorted((TOPIC.version, TASK.version)))
    seen = [packs(20, 9, 12, versions=(one.version,)) for one in (TOPIC, TASK)] + [packs(20, 8, 12, versions=both)]
    asked = job([200] * 400, recipes=["packed"], assume=True, classifiers=(TOPIC, TASK))
    before, after = choose(asked), choose(replace(asked, packs=tuple(seen)))
    assert before.chosen.strategy.conversations_per_request == 20
    shapes = {one.estimate.strategy.conversations_per_request for one in after.alternatives}
    assert shapes == {5, 10}
    assert after.chosen.strategy.conversations_per_request == 10
    (told,) = [line for line in after.warnings if "larger packs" in line]
    assert "At most 10 conversations of topic and task share a prompt" in told
    assert "of 12 larger packs" in told and "8 (67%)" in told
    other = replace(asked, packs=tuple(replace(one, model="another") for one in seen))
    assert choose(other).chosen == before.chosen


def test_a_way_whose_packs_never_hold_is_asked_one_by_one_and_doubts_nothing() -> None:
    seen = (packs(2, 40, 40, versions=(TOPIC.version,)), packs(5, 40, 40, versions=(TOPIC.version,)))
    asked = job([200] * 40, recipes=["packed-rerun"], named=True, classifiers=(TOPIC,), packs=seen)
    plan = choose(asked)
    assert plan.chosen.strategy.conversations_per_request == 1
    assert plan.chosen.strategy.doubt is Doubt.NONE
    assert plan.certified
