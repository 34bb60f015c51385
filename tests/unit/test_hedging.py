"""A deadline in a run: how much is taken back from batches, when, in which packs, and what it costs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from fake_provider import USAGE, FakeClock, FakeProvider, labels_asked
from small_job import PLAN_ID, Job, endpoint, job, packed, plan, price, texts
from test_runner_crash import finish_from, moments, runner, state, unlabelled

from semtel_batch.audit.findings import Severity
from semtel_batch.audit.project import audit
from semtel_batch.errors import Incomplete
from semtel_batch.parts import ANSWERS, read_parts
from semtel_batch.plans import Objective
from semtel_batch.records import Stage, Tier
from semtel_batch.rows import ShardState
from semtel_batch.store import Store
from semtel_batch.transport.shardfile import Call

# A request a minute: five make a chunk, and six minutes of realtime.
SLOW = endpoint(rpm=1)
FOUR_HOURS = Objective(deadline_s=4 * 3_600.0)


def submitted(tmp_path: Path, n: int = 40, **changes: object) -> tuple[Job, FakeProvider, FakeClock]:
    """Packs of two in batches that never come back by themselves."""
    made = job(tmp_path / "p", plan(packed(2), **{"endpoint": SLOW, "objective": FOUR_HOURS} | changes), texts(n))
    provider, clock = FakeProvider(n_looks=100_000), FakeClock()
    with pytest.raises(Incomplete):
        runner(made, provider, clock).submit()
    return made, provider, clock


def cancelled(provider: FakeProvider) -> list[str]:
    return sorted(key for key, batch in provider.batches.items() if batch.cancelled)


def unsound(store: Store, clock: FakeClock) -> list[str]:
    """What an audit finds of the run: the plan was made by hand, and so its versions and its profile were."""
    broken = [f for f in audit(store, None, clock.now()).findings if f.severity is Severity.BROKEN]
    by_hand = ("planned for", "longest", "version")
    return [f"{f.which}: {f.what}" for f in broken if not any(word in f.what for word in by_hand)]


def test_what_a_deadline_may_take_back_is_sent_in_chunks(tmp_path: Path) -> None:
    made, provider, _ = submitted(tmp_path)
    assert [row.shard.n_requests for row in made.store.shards(PLAN_ID)] == [5, 5, 5, 5]
    assert len(provider.batches) == 4
    whole, _, _ = submitted(tmp_path / "without", objective=Objective())
    assert [row.shard.n_requests for row in whole.store.shards(PLAN_ID)] == [20]


def test_only_what_realtime_must_begin_with_is_taken_back(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path)
    clock.time += timedelta(hours=2)
    with pytest.raises(Incomplete):
        runner(made, provider, clock).collect(wait=False)
    assert cancelled(provider) == []  # 24 minutes of realtime: there is time
    # 24 + 15 minutes until the next look and a cancelled batch's end, and five left over: at 190 minutes it is time.
    clock.time = FakeClock().time + timedelta(minutes=200)
    with pytest.raises(Incomplete):
        runner(made, provider, clock).collect(wait=False)
    taken = cancelled(provider)
    assert 0 < len(taken) < 4
    # What was taken back is answered at once, in the packs it had, while the others go on waiting.
    rows = {row.shard.key: row for row in made.store.shards(PLAN_ID)}
    for key, row in rows.items():
        is_taken = key in taken
        assert (row.state, row.shard.tier) == (
            (ShardState.ENDED, Tier.REALTIME) if is_taken else (ShardState.SUBMITTED, Tier.BATCH)
        )
    assert {row.shard.attempt for row in rows.values()} == {0}


def test_batches_that_never_come_back_are_not_late_and_each_answer_is_paid_once(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path, n=20)
    sizes: list[int] = []

    def counted(call: Call) -> object:
        sizes.append(labels_asked(call)[0])
        return behave(call)

    behave, provider.behave = provider.behave, counted  # type: ignore[assignment]
    started = clock.time
    clock.time += timedelta(minutes=200)
    runner(made, provider, clock).collect(wait=True)
    assert unlabelled(made) == 0 and clock.time < started + timedelta(hours=4)
    assert (provider.n_billed, max(provider.billed.values())) == (10, 1) and set(sizes) == {2}
    # Two of five were answered by each batch before it stopped, and cost half.
    parts = made.store.parts(PLAN_ID)
    answers = read_parts([part.answers for part in parts], ANSWERS)
    assert answers.group_by("tier").len().sort("len").rows() == [("batch", 4), (None, 6)]
    bill = 4 * price(Tier.BATCH).cost_usd(USAGE) + 6 * price(Tier.REALTIME).cost_usd(USAGE)
    assert sum((part.cost_usd for part in parts), Decimal(0)) == bill
    assert unsound(made.store, clock) == []


def test_no_more_is_taken_back_than_the_budget_bears_beside_what_goes_on_waiting(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path)
    shard = made.store.shards(PLAN_ID)[0].shard
    usage = replace(
        USAGE, prompt_tokens=shard.prompt_tokens, completion_tokens=shard.max_completion_tokens, cached_tokens=0
    )
    # What is taken back costs as much again as where it waits, of which all four cost as much as two in realtime.
    one = price(Tier.REALTIME).cost_usd(usage)
    assert price(Tier.BATCH).cost_usd(usage) * 2 == one
    poor = replace(made.plan, objective=replace(FOUR_HOURS, budget_usd=one * Decimal("2.7")))
    clock.time += timedelta(hours=4)
    with pytest.raises(Incomplete):
        runner(Job(made.project, made.store, poor), provider, clock).submit()
    assert len(cancelled(provider)) == 1


def test_killed_while_taking_back_nothing_is_paid_twice(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path, n=12)
    clock.time += timedelta(hours=4)
    found = moments(made, provider, lambda r: r.collect(wait=True), clock)
    made.store.close()
    for moment in found:
        with closing(Store(moment.project)) as store:
            assert unsound(store, clock) == [], moment.step
    steps = [moment for moment in found if moment.step in ("cancel", "poll", "answers")]
    assert {moment.step for moment in steps} == {"cancel", "poll", "answers"}
    for moment in steps:
        after = finish_from(moment, made.plan, timedelta(hours=4))
        assert (after.n_billed, max(after.billed.values())) == (6, 1), moment.step


def test_a_cancelled_plan_moves_nothing(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path)
    clock.time += timedelta(minutes=200)
    with pytest.raises(Incomplete):
        runner(made, provider, clock).submit()  # takes back, and looks at nothing
    assert cancelled(provider)
    runner(made, provider, clock).cancel()
    runner(made, provider, clock).collect(wait=True)
    assert all(row.shard.tier is Tier.BATCH for row in made.store.shards(PLAN_ID))
    labels = made.store.parts(PLAN_ID)
    assert labels and provider.n_billed == 8
    with closing(made.store):
        assert state(made).value == "cancelled"
        assert pl.Series([row.shard.stage is Stage.CLASSIFY for row in made.store.shards(PLAN_ID)]).all()
