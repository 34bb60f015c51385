"""Killed at every step, stopped half-way, cancelled, late: what is on the disk is enough, and nothing is paid twice."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from fake_provider import FakeClock, FakeProvider, failed, first_labels
from small_job import BATCH_NAIVE, PLAN_ID, REALTIME_NAIVE, Job, endpoint, job, packed, plan, texts

from semtel_batch.errors import EndpointError, Incomplete, QuotaExhausted
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import Answer, Outcome, Shard, Strategy, Tier
from semtel_batch.results import final_labels
from semtel_batch.rows import PlanState, ShardState
from semtel_batch.runner import Runner
from semtel_batch.store import Store
from semtel_batch.transport.shardfile import Call

STEPS = ("upload", "create", "note", "submitted", "poll", "answers")


def runner(made: Job, provider: FakeProvider, clock: FakeClock) -> Runner:
    return Runner(made.store, made.plan, provider.open, clock, lambda _tick: None)


def unlabelled(made: Job) -> int:
    return final_labels(made.store, made.plan)["label"].null_count()


def state(made: Job) -> PlanState:
    return made.store.plan_row(PLAN_ID).state


@dataclass(frozen=True)
class Moment:
    """The disk and the provider as they were when a process was killed without a word."""

    step: str
    project: Path
    provider: FakeProvider


def moments(
    made: Job, provider: FakeProvider, drive: Callable[[Runner], None], clock: FakeClock | None = None
) -> list[Moment]:
    """Run to the end and keep what a kill at each of the provider's steps would have left."""
    found: list[Moment] = []

    def keep(step: str, _shard: Shard) -> None:
        there = made.project.with_name(f"{made.project.name}-{len(found)}")
        shutil.copytree(made.project, there)
        found.append(Moment(step, there, replace(provider, batches=copy.deepcopy(provider.batches))))
        found[-1].provider.billed = provider.billed.copy()
        found[-1].provider.before = lambda _step, _shard: None

    provider.before = keep
    drive(runner(made, provider, clock or FakeClock()))
    return found


def finish_from(moment: Moment, made: Plan, after: timedelta = timedelta()) -> FakeProvider:
    """The next process: the dead one's lease has run out, its memory is gone."""
    clock = FakeClock()
    clock.time += after + timedelta(minutes=11)
    with closing(Store(moment.project)) as store:
        rest = Job(moment.project, store, made)
        runner(rest, moment.provider, clock).collect(wait=True)
        assert (state(rest), unlabelled(rest), store.problems(PLAN_ID)) == (PlanState.DONE, 0, []), moment.step
        assert sum(part.n_requests for part in store.parts(PLAN_ID)) == sum(
            r.shard.n_requests for r in store.shards(PLAN_ID)
        )
        left = {path.name for path in (rest.folder / "labels").iterdir()}
        assert left == {part.labels.name for part in store.parts(PLAN_ID)}, "no part without an owner is left"
    return moment.provider


def test_killed_at_any_step_of_a_batch_each_request_is_billed_once(tmp_path: Path) -> None:
    made = job(tmp_path / "p", plan(packed(2)), texts(5))
    found = moments(made, FakeProvider(), lambda r: r.collect(wait=True))
    assert {moment.step for moment in found} == set(STEPS)
    for moment in found:
        provider = finish_from(moment, made.plan)
        assert (provider.n_billed, max(provider.billed.values()), provider.n_created) == (3, 1, 1), moment.step
    made.store.close()


def test_killed_while_asking_again_the_good_answers_stay(tmp_path: Path) -> None:
    made = job(tmp_path / "p", plan(), texts(3))
    seen: list[bytes] = []

    def first_time_fails(call: Call) -> Answer:
        seen.append(call.body)
        return failed(call) if b"question 1 " in call.body and len(seen) <= 3 else first_labels(call)

    found = moments(made, FakeProvider(behave=first_time_fails), lambda r: r.collect(wait=True))
    again = [moment for moment in found if len(moment.provider.batches) == 2][:3]
    assert again
    for moment in again:
        provider = finish_from(moment, made.plan)
        assert (provider.n_billed, provider.n_created) == (3, 2), moment.step
    made.store.close()


def test_killed_in_realtime_only_what_was_in_flight_is_asked_again(tmp_path: Path) -> None:
    made = job(tmp_path / "p", plan(REALTIME_NAIVE), texts(5))
    found = moments(made, FakeProvider(), lambda r: r.submit())
    assert len(found) == 2
    for moment in found:
        provider = finish_from(moment, made.plan)
        assert (provider.n_billed, max(provider.billed.values())) == (5, 1), "each group is on the disk before the next"
    made.store.close()


@pytest.fixture
def five(tmp_path: Path) -> Job:
    return job(tmp_path / "p", plan(REALTIME_NAIVE), texts(5))


def test_stopped_half_way_the_rest_is_asked_later(five: Job) -> None:
    provider, clock = FakeProvider(stop_after=1), FakeClock()
    with pytest.raises(Incomplete, match=f"semtel-batch collect {PLAN_ID}"):
        runner(five, provider, clock).submit()
    assert (provider.n_billed, provider.n_open, unlabelled(five)) == (2, 0, 6)
    provider.stop_after = None
    runner(five, provider, clock).collect(wait=False)
    assert (provider.n_billed, max(provider.billed.values()), state(five)) == (5, 1, PlanState.DONE)


def test_an_endpoint_that_dies_loses_nothing_that_was_answered(five: Job) -> None:
    def dies(call: Call) -> Answer:
        if b"question 3 " in call.body:
            raise QuotaExhausted("no money left")
        return first_labels(call)

    provider, clock = FakeProvider(behave=dies), FakeClock()
    with pytest.raises(QuotaExhausted):
        runner(five, provider, clock).submit()
    assert provider.n_open == 0
    assert five.store.lease_holder(f"plan {PLAN_ID}") is None, "the lease is let go of"
    assert sum(part.n_requests for part in five.store.parts(PLAN_ID)) == 2
    provider.behave = first_labels
    runner(five, provider, clock).collect(wait=True)
    billed = sorted(provider.billed.values())
    assert (len(billed), billed[-1]) == (5, 2), "question 2 was in flight and not written down"
    assert unlabelled(five) == 0


def test_two_processes_do_not_work_on_one_plan(five: Job) -> None:
    provider, clock, told = FakeProvider(), FakeClock(), []

    def other(_step: str, _shard: Shard) -> None:
        with pytest.raises(Incomplete, match="Another process works on plan") as refused:
            runner(five, FakeProvider(), clock).submit()
        told.append(refused)

    provider.before = other
    runner(five, provider, clock).submit()
    assert len(told) == 2
    assert provider.n_billed == 5


def test_a_lease_is_extended_while_batches_are_handed_over(tmp_path: Path) -> None:
    made = job(tmp_path / "p", plan(BATCH_NAIVE, BATCH_NAIVE), texts(2))
    provider, clock, held = FakeProvider(), FakeClock(), []

    def slow(step: str, _shard: Shard) -> None:
        if step == "create":
            clock.time += timedelta(minutes=6)
            held.append(not made.store.take_lease(f"plan {PLAN_ID}", "a:1:b", clock.now(), clock.now()))

    provider.before = slow
    with pytest.raises(Incomplete, match="still waits"):
        runner(made, provider, clock).submit()
    assert held == [True, True]
    made.store.close()


# -- cancelling ----------------------------------------------------------------------------------------------------


def submitted(tmp_path: Path, **changes: object) -> tuple[Job, FakeProvider, FakeClock]:
    made = job(tmp_path / "p", plan(**changes), texts(4))
    provider, clock = FakeProvider(n_looks=3), FakeClock()
    with pytest.raises(Incomplete):
        runner(made, provider, clock).submit()
    return made, provider, clock


def test_cancelling_keeps_what_was_answered_and_names_the_rest(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path)
    runner(made, provider, clock).cancel()
    assert state(made) is PlanState.CANCELLED
    assert (provider.n_billed, unlabelled(made)) == (2, 4)
    assert {p.outcome for p in made.store.problems(PLAN_ID)} == {Outcome.CANCELLED}
    runner(made, provider, clock).collect(wait=True)
    assert (state(made), provider.n_billed, clock.naps) == (PlanState.CANCELLED, 2, [])


def test_a_cancelled_plan_goes_on_when_its_user_retries(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path)
    runner(made, provider, clock).cancel()
    assert runner(made, provider, clock).retry() == 4
    runner(made, provider, clock).collect(wait=True)
    assert (state(made), unlabelled(made), provider.n_billed) == (PlanState.DONE, 0, 4)


def test_cancelling_what_was_never_sent(tmp_path: Path) -> None:
    made = job(tmp_path / "p", plan(), texts(2))
    provider, clock = FakeProvider(), FakeClock()
    runner(made, provider, clock).cancel()
    runner(made, provider, clock).collect(wait=True)
    assert (state(made), provider.n_created, clock.naps) == (PlanState.CANCELLED, 0, [])


def test_a_cancelled_plan_does_not_wait_for_a_batch_that_never_was(tmp_path: Path) -> None:
    """Killed after the intent and before the upload, then cancelled: there is nothing to wait for."""
    made = job(tmp_path / "p", plan(), texts(2))
    provider, clock = FakeProvider(), FakeClock()

    def killed(step: str, _shard: Shard) -> None:
        if step == "upload":
            raise KeyboardInterrupt

    provider.before = killed
    with pytest.raises(KeyboardInterrupt):
        runner(made, provider, clock).submit()
    assert made.store.shards(PLAN_ID)[0].state is ShardState.SUBMITTED
    runner(made, provider, clock).cancel()
    runner(made, provider, clock).collect(wait=True)
    assert (state(made), provider.n_created, clock.naps) == (PlanState.CANCELLED, 0, [])


# -- the deadline --------------------------------------------------------------------------------------------------

DAY = Objective(deadline_s=86_400.0)


def test_near_the_deadline_what_is_left_is_asked_in_realtime(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path, objective=DAY)
    provider.batches[next(iter(provider.batches))].looks_left = 10_000
    clock.time += timedelta(hours=23, minutes=50)
    runner(made, provider, clock).collect(wait=True)
    assert (state(made), unlabelled(made)) == (PlanState.DONE, 0)
    assert (provider.n_billed, max(provider.billed.values())) == (4, 1), "what the batch had answered is kept"
    assert [row.shard.tier for row in made.store.shards(PLAN_ID)] == [Tier.REALTIME], "the rest of the same requests"


def test_submitting_again_near_the_deadline_comes_to_an_end(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path, objective=DAY)
    clock.time += timedelta(hours=23, minutes=50)
    steps: list[str] = []

    def count(step: str, _shard: Shard) -> None:
        steps.append(step)
        assert len(steps) < 20, "it goes round and round"

    provider.before = count
    with pytest.raises(Incomplete, match="still waits"):
        runner(made, provider, clock).submit()
    assert steps == ["cancel"]


def test_without_a_realtime_tier_there_is_nothing_to_switch_to(tmp_path: Path) -> None:
    made, provider, clock = submitted(tmp_path, objective=DAY, endpoint=endpoint(tiers=(Tier.BATCH,)))
    clock.time += timedelta(hours=30)
    runner(made, provider, clock).collect(wait=True)
    assert {row.shard.tier for row in made.store.shards(PLAN_ID)} == {Tier.BATCH}
    assert provider.n_billed == 4


def test_a_rejected_endpoint_lets_go_of_the_lease(tmp_path: Path) -> None:
    made = job(tmp_path / "p", plan(Strategy(recipe="batch", tier=Tier.BATCH)), texts(1))

    def refuse(_step: str, _shard: Shard) -> None:
        raise EndpointError("it says no")

    with pytest.raises(EndpointError):
        runner(made, FakeProvider(before=refuse), FakeClock()).submit()
    assert made.store.lease_holder(f"plan {PLAN_ID}") is None
