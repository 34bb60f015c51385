"""The store: generations, shards and their submissions, from cut to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from small_job import PLAN_ID, START, plan
from stored_rows import FIRST, cut, later, new_shard, part

from semtel_batch.errors import StoreError
from semtel_batch.plans import Plan
from semtel_batch.records import BatchState, Progress, Receipt, Shard, Stage, Tier, Usage
from semtel_batch.rows import Reused, ShardState
from semtel_batch.store import Store, plan_folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path)) as made:
        yield made


@pytest.fixture
def planned(store: Store) -> Plan:
    made = plan()
    store.add_plan(made)
    return made


# -- generations and shards ----------------------------------------------------------------------------------------


def test_a_generation_ends_with_its_last_shard(store: Store, planned: Plan) -> None:
    one, two = cut(store, "k1", "k2")
    store.end_shard(one, later(1))
    assert store.generations(planned.id) == [FIRST]
    store.end_shard(two, later(2))
    assert store.generations(planned.id) == [replace(FIRST, ended=True)]
    assert [row.state for row in store.shards(planned.id)] == [ShardState.ENDED] * 2


def test_a_generation_ends_without_regard_to_others(store: Store, planned: Plan) -> None:
    again = replace(FIRST, attempt=1)
    graded = replace(FIRST, stage=Stage.GRADE)
    other = replace(FIRST, leg=1)
    for i, generation in enumerate((FIRST, again, graded, other)):
        cut(store, f"k{i}", generation=generation)
    store.end_shard(store.shards(planned.id)[1].shard, START)
    ended = {(g.leg, g.stage, g.attempt): g.ended for g in store.generations(planned.id)}
    assert [key for key, value in ended.items() if value] == [(0, Stage.CLASSIFY, 1)]


def test_a_generation_with_nothing_to_ask_has_ended(store: Store, planned: Plan) -> None:
    store.cut(planned.id, FIRST, [], START)
    assert store.generations(planned.id) == [replace(FIRST, ended=True)]


def test_a_generation_is_cut_whole_or_not_at_all(store: Store, planned: Plan) -> None:
    with pytest.raises(StoreError):
        store.cut(planned.id, FIRST, [new_shard(store, "same"), new_shard(store, "same")], START)
    assert (store.generations(planned.id), store.shards(planned.id)) == ([], [])
    cut(store, "k1")
    with pytest.raises(StoreError):
        cut(store, "k2")
    assert [row.shard.key for row in store.shards(planned.id)] == ["k1"]


def test_a_shard_comes_back_as_it_was_cut(store: Store, planned: Plan) -> None:
    (shard,) = cut(store, "k1")
    (row,) = store.shards(planned.id)
    assert (row.state, row.way) == (ShardState.CUT, "w1")
    assert row.manifest == plan_folder(store.project, planned.id) / "manifests" / "k1.parquet"
    assert shard == Shard(
        id=shard.id,
        key="k1",
        plan_id=planned.id,
        leg=0,
        stage=Stage.CLASSIFY,
        attempt=0,
        classifiers=("topic", "expertise"),
        endpoint="main",
        tier=Tier.BATCH,
        path=plan_folder(store.project, planned.id) / "shards" / "k1.jsonl",
        n_requests=10,
        n_items=20,
        prompt_tokens=1_000,
        max_completion_tokens=500,
    )


def test_a_shard_too_large_is_replaced_by_its_pieces(store: Store, planned: Plan) -> None:
    whole, other = cut(store, "k1", "k2")
    store.end_shard(other, START)
    store.split_shard(whole, [replace(new_shard(store, f"k1p{i}"), n_requests=5) for i in (1, 2)], later(1))
    rows = {row.shard.key: row for row in store.shards(planned.id)}
    assert {key: (row.state, row.shard.n_requests) for key, row in rows.items()} == {
        "k1": (ShardState.ENDED, 0),
        "k2": (ShardState.ENDED, 10),
        "k1p1": (ShardState.CUT, 5),
        "k1p2": (ShardState.CUT, 5),
    }
    assert not store.generations(planned.id)[0].ended
    for key in ("k1p1", "k1p2"):
        store.end_shard(rows[key].shard, later(2))
    assert store.generations(planned.id)[0].ended


def test_only_what_was_not_sent_moves_to_another_tier(store: Store, planned: Plan) -> None:
    sent, unsent = cut(store, "k1", "k2")
    store.intend(sent, START)
    for shard in (sent, unsent):
        store.move_shard(shard, Tier.REALTIME)
    assert [row.shard.tier for row in store.shards(planned.id)] == [Tier.BATCH, Tier.REALTIME]


def test_what_an_earlier_run_answered_counts_at_once_and_costs_nothing(store: Store, planned: Plan) -> None:
    nothing_sent = replace(new_shard(store, "k9"), n_requests=0, n_items=4)
    folder = store.files(planned.id)
    reused = Reused(shard=nothing_sent, answers=folder / "answers" / "k9", labels=folder / "labels" / "k9")
    store.cut(planned.id, FIRST, [new_shard(store, "k1")], START, [reused])
    rows = {row.shard.key: row for row in store.shards(planned.id)}
    assert (rows["k9"].state, rows["k1"].state) == (ShardState.ENDED, ShardState.CUT)
    assert not store.generations(planned.id)[0].ended
    (made,) = store.parts(planned.id)
    assert (made.shard_id, made.n_items, made.n_answered, made.n_requests) == (rows["k9"].shard.id, 4, 4, 0)
    assert (made.cost_usd, made.usage, made.labels) == (Decimal(0), Usage(), reused.labels)
    store.end_shard(rows["k1"].shard, later(1))
    assert store.generations(planned.id)[0].ended


def test_a_generation_answered_earlier_as_a_whole_has_ended(store: Store, planned: Plan) -> None:
    folder = store.files(planned.id)
    reused = Reused(shard=new_shard(store, "k9"), answers=folder / "answers" / "k9", labels=folder / "labels" / "k9")
    store.cut(planned.id, FIRST, [], START, [reused])
    assert store.generations(planned.id)[0].ended


def test_parts_are_found_by_the_way_of_asking_in_every_plan(store: Store, planned: Plan) -> None:
    store.add_plan(replace(plan(), id="other"))
    for name, key, way in ((PLAN_ID, "k1", "w1"), ("other", "k2", "w1"), (PLAN_ID, "k3", "w2")):
        attempt = len(store.generations(name))
        generation = replace(FIRST, attempt=attempt)
        store.cut(name, generation, [replace(new_shard(store, key), way=way)], START)
        shard = store.shards(name)[-1].shard
        store.add_part(name, part(store, shard, 1))
    assert [path.name for path in store.label_parts("w1")] == ["k1.00001.parquet", "k2.00001.parquet"]
    assert store.label_parts("w3") == []


def test_a_project_can_be_moved(store: Store, planned: Plan, tmp_path: Path) -> None:
    (shard,) = cut(store, "k1")
    store.add_part(planned.id, part(store, shard, 1))
    store.close()
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "state").rename(moved / "state")
    with closing(Store(moved)) as there:
        assert there.shards(planned.id)[0].manifest.is_relative_to(moved)
        assert there.parts(planned.id)[0].answers.is_relative_to(moved)


# -- submissions ---------------------------------------------------------------------------------------------------


def test_an_intent_is_taken_up_again_until_it_is_rejected(store: Store, planned: Plan) -> None:
    (shard,) = cut(store, "k1")
    first = store.intend(shard, START)
    assert (first.number, first.state, first.receipt, first.n_total) == (1, "intended", Receipt(), 10)
    assert store.shards(planned.id)[0].state is ShardState.SUBMITTED
    store.note(shard, Receipt(input_file_id="file-1"), later(1))
    with closing(Store(store.project)) as other:
        again = other.intend(shard, later(5))
    assert (again.number, again.receipt, again.submitted_at) == (1, Receipt(input_file_id="file-1"), None)

    rejected = Progress(state=BatchState.REJECTED, status="failed", error_code="token_limit_exceeded")
    store.reject(shard, rejected, later(6))
    assert store.shards(planned.id)[0].state is ShardState.CUT
    second = store.intend(shard, later(7))
    assert (second.number, second.receipt) == (2, Receipt())
    old, new = store.submissions(planned.id)[shard.id]
    assert (old.state, old.error_code, new.state) == ("rejected", "token_limit_exceeded", "intended")


def test_a_batch_is_noted_observed_and_ended(store: Store, planned: Plan) -> None:
    one, two = cut(store, "k1", "k2")
    store.intend(one, START)
    store.intend(two, START)
    store.note(one, Receipt(input_file_id="file-1", batch_id="batch_1"), later(1))
    store.observe(one, Progress(state=BatchState.WAITING, status="in_progress", n_completed=4, n_failed=1), later(2))
    (seen,) = store.submissions(planned.id)[one.id]
    assert (seen.state, seen.receipt.batch_id, seen.submitted_at) == ("submitted", "batch_1", later(1))
    assert (seen.status, seen.n_completed, seen.n_failed, seen.polled_at) == ("in_progress", 4, 1, later(2))
    store.end_shard(one, later(3))
    assert store.submissions(planned.id)[one.id][0].state == "ended"
    assert store.submissions(planned.id)[two.id][0].state == "intended"


def test_ending_a_shard_leaves_its_rejected_tries_rejected(store: Store, planned: Plan) -> None:
    (shard,) = cut(store, "k1")
    store.intend(shard, START)
    store.reject(shard, Progress(state=BatchState.REJECTED, status="failed"), later(1))
    store.intend(shard, later(2))
    store.end_shard(shard, later(3))
    assert [s.state for s in store.submissions(planned.id)[shard.id]] == ["rejected", "ended"]


def test_only_the_newest_try_changes(store: Store, planned: Plan) -> None:
    (shard,) = cut(store, "k1")
    store.intend(shard, START)
    store.note(shard, Receipt(input_file_id="file-1", batch_id="batch_1"), START)
    store.reject(shard, Progress(state=BatchState.REJECTED, status="failed"), later(1))
    store.intend(shard, later(2))
    store.note(shard, Receipt(input_file_id="file-2", batch_id="batch_2"), later(3))
    ids = [s.receipt.batch_id for s in store.submissions(planned.id)[shard.id]]
    assert ids == ["batch_1", "batch_2"]
