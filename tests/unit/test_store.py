"""The store: every method, from two connections, and what it refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from small_job import PLAN_ID, START, plan
from stored_rows import cut, later, part

from semtel_batch import database, plans
from semtel_batch.errors import BadInput, StoreError
from semtel_batch.plans import Plan
from semtel_batch.records import Outcome
from semtel_batch.rows import PlanState, Problem
from semtel_batch.store import Store, store_path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path)) as made:
        yield made


@pytest.fixture
def planned(store: Store) -> Plan:
    made = plan()
    store.add_plan(made)
    return made


# -- plans ---------------------------------------------------------------------------------------------------------


def test_a_plan_comes_back_whole_to_another_connection(store: Store, planned: Plan) -> None:
    with closing(Store(store.project)) as other:
        assert other.plan(PLAN_ID) == planned
        assert other.plan() == planned


def test_the_newest_plan_is_the_one_meant(store: Store) -> None:
    for minutes, name in ((5, "pb"), (9, "pa"), (1, "pc")):
        store.add_plan(replace(plan(), id=name, created_at=later(minutes)))
    assert store.plan().id == "pa"
    assert [row.id for row in store.plan_rows()] == ["pa", "pb", "pc"]


def test_newest_holds_between_whole_seconds_and_fractions(store: Store) -> None:
    store.add_plan(replace(plan(), id="whole", created_at=START))
    store.add_plan(replace(plan(), id="fraction", created_at=START + timedelta(microseconds=1)))
    assert store.plan().id == "fraction"


def test_a_prefix_is_enough_while_it_is_unique(store: Store) -> None:
    for name in ("abc1", "abd2"):
        store.add_plan(replace(plan(), id=name))
    assert store.plan("abc").id == "abc1"
    with pytest.raises(BadInput, match="More than one plan begins with 'ab'"):
        store.plan("ab")
    with pytest.raises(BadInput, match="No plan begins with 'x'"):
        store.plan("x")


@pytest.mark.parametrize("pattern", ["%", "_", "a%", "ab__"])
def test_a_prefix_is_no_pattern(store: Store, pattern: str) -> None:
    store.add_plan(replace(plan(), id="abc1"))
    with pytest.raises(BadInput, match="No plan"):
        store.plan(pattern)


def test_an_empty_store_says_what_to_do(store: Store) -> None:
    with pytest.raises(BadInput, match="semtel-batch plan DATA"):
        store.plan()


def test_no_store_is_made_where_one_is_only_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="plan something first"):
        Store(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "tamper",
    ["""replace(document, '"seed":7', '"seed":8')""", "substr(document, 1, 100)", "'{}'"],
)
def test_a_plan_that_was_changed_is_refused(store: Store, planned: Plan, tamper: str) -> None:
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute(f"UPDATE plans SET document = {tamper}")
    with pytest.raises(StoreError, match="was changed after it was frozen"):
        store.plan(planned.id)


def test_the_hash_is_of_the_decision_and_not_of_its_name_and_hour() -> None:
    made = plan()
    assert plans.content_hash(replace(made, id="other", created_at=later(60))) == made.hash
    assert plans.content_hash(replace(made, max_attempts=9)) != made.hash


def test_a_plan_starts_once_and_ends_and_may_go_on(store: Store, planned: Plan) -> None:
    row = store.plan_row(planned.id)
    assert (row.state, row.created_at, row.started_at, row.ended_at) == (PlanState.PLANNED, START, None, None)
    store.start_plan(planned.id, later(1))
    store.end_plan(planned.id, PlanState.DONE, later(2))
    row = store.plan_row(planned.id)
    assert (row.state, row.started_at, row.ended_at) == (PlanState.DONE, later(1), later(2))
    store.start_plan(planned.id, later(3))
    row = store.plan_row(planned.id)
    assert (row.state, row.started_at, row.ended_at) == (PlanState.RUNNING, later(1), None)


def test_the_same_plan_can_not_be_kept_twice(store: Store, planned: Plan) -> None:
    with pytest.raises(StoreError, match="UNIQUE"):
        store.add_plan(planned)


# -- parts and problems --------------------------------------------------------------------------------------------


def test_money_and_tokens_come_back_exactly(store: Store, planned: Plan) -> None:
    (shard,) = cut(store, "k1")
    written = part(store, shard, 1)
    store.add_part(planned.id, written)
    with closing(Store(store.project)) as other:
        assert other.parts(planned.id) == [written]


def test_a_merged_part_takes_the_place_of_its_shards_parts(store: Store, planned: Plan) -> None:
    one, two = cut(store, "k1", "k2")
    first, second, other = part(store, one, 1), part(store, one, 2), part(store, two, 1)
    for each in (first, second, other):
        store.add_part(planned.id, each)
    merged = part(store, one, 0, n_requests=10)
    old = store.replace_parts(planned.id, merged)
    assert sorted(old) == sorted([first.answers, first.labels, second.answers, second.labels])
    assert store.parts(planned.id) == [other, merged]


def test_a_part_of_no_shard_is_refused(store: Store, planned: Plan) -> None:
    (shard,) = cut(store, "k1")
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store.add_part(planned.id, part(store, replace(shard, id=99), 1))
    assert store.parts(planned.id) == []


def test_problems_are_replaced_as_a_whole(store: Store, planned: Plan) -> None:
    many = [
        Problem(row=row, classifier="topic", outcome=Outcome.REFUSED, detail=None, attempts=2) for row in range(5_003)
    ]
    store.set_problems(planned.id, many)
    assert sorted(store.problems(planned.id), key=lambda p: p.row) == many
    one = Problem(row=4, classifier="topic", outcome=Outcome.INVALID, detail="said 'x\u2028y'", attempts=3)
    store.set_problems(planned.id, [one])
    assert store.problems(planned.id) == [one]
    with pytest.raises(StoreError):
        store.set_problems(planned.id, [one, one])
    assert store.problems(planned.id) == [one]
    store.set_problems(planned.id, [])
    assert store.problems(planned.id) == []


# -- leases --------------------------------------------------------------------------------------------------------


def test_a_lease_is_for_one_until_it_runs_out(store: Store) -> None:
    with closing(Store(store.project)) as other:
        assert store.take_lease("plan p", "a", START, later(10))
        assert not other.take_lease("plan p", "b", later(9.9), later(20))
        assert other.take_lease("plan q", "b", START, later(10)), "another plan's lease is free"
        assert store.take_lease("plan p", "a", later(9), later(19)), "its holder may extend it"
        assert other.lease_holder("plan p") == "a"
        assert not other.take_lease("plan p", "b", later(10), later(20))
        assert other.take_lease("plan p", "b", later(19), later(29)), "it ran out"
        assert not store.take_lease("plan p", "a", later(20), later(30))


def test_a_lease_is_ended_by_its_holder_only(store: Store) -> None:
    store.take_lease("plan p", "a", START, later(10))
    store.end_lease("plan p", "b")
    assert store.lease_holder("plan p") == "a"
    store.end_lease("plan p", "a")
    assert store.lease_holder("plan p") is None


def test_trouble_in_the_database_is_a_store_error(store: Store, planned: Plan) -> None:
    with closing(sqlite3.connect(store_path(store.project))) as database, database:
        database.execute("DROP TABLE problems")
    with pytest.raises(StoreError, match="no such table"):
        store.problems(planned.id)


@pytest.mark.parametrize(("code", "hint"), [(sqlite3.SQLITE_FULL, "room"), (sqlite3.SQLITE_IOERR, "room"), (1, "run")])
def test_a_full_disk_is_named_when_a_store_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    def fail(*_: object) -> None:
        problem = sqlite3.OperationalError("database or disk is full")
        problem.sqlite_errorcode = code
        raise problem

    monkeypatch.setattr(database, "migrate", fail)
    with pytest.raises(StoreError, match=rf"can't be opened .*{hint}"):
        Store(tmp_path)
