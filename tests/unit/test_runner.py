"""The loop against a provider in memory: batch life, refusals, retries, grading, cancelling; nothing asked twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from fake_provider import FakeClock, FakeProvider, answered, failed, first_labels, full, labels_asked, no_room
from small_job import BATCH_NAIVE, PLAN_ID, REALTIME_NAIVE, Job, endpoint, job, packed, plan, texts

from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.records import Answer, BatchState, Doubt, Outcome, Progress, Shard, Stage, Strategy, Tier
from semtel_batch.results import fan_out, final_labels
from semtel_batch.rows import PlanState, ShardState
from semtel_batch.runner import Runner, Tick
from semtel_batch.transport.shardfile import Call


@dataclass
class World:
    job: Job
    clock: FakeClock = field(default_factory=FakeClock)
    provider: FakeProvider = field(default_factory=FakeProvider)
    ticks: list[Tick] = field(default_factory=list)

    @property
    def runner(self) -> Runner:
        """A new process each time: nothing but the store and the provider remembers."""
        return Runner(self.job.store, self.job.plan, self.provider.open, self.clock, self.ticks.append)

    def finish(self) -> None:
        self.runner.collect(wait=True)
        assert self.state is PlanState.DONE
        assert self.provider.n_open == 0

    @property
    def state(self) -> PlanState:
        return self.job.store.plan_row(PLAN_ID).state

    @property
    def labels(self) -> pl.DataFrame:
        return fan_out(self.job.store, self.job.plan, final_labels(self.job.store, self.job.plan))

    @property
    def problems(self) -> list[tuple[int, str, Outcome, int]]:
        return sorted((p.row, p.classifier, p.outcome, p.attempts) for p in self.job.store.problems(PLAN_ID))

    @property
    def shards(self) -> list[Shard]:
        return [row.shard for row in self.job.store.shards(PLAN_ID)]

    def all_labelled(self) -> bool:
        return not any(self.labels.drop("conversation_id").null_count().row(0))


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Any]:
    made: list[World] = []

    def make(*strategies: Strategy, n: int = 6, conversations: list[str] | None = None, **changes: Any) -> World:
        listed = texts(n) if conversations is None else conversations
        made.append(World(job(tmp_path / f"project{len(made)}", plan(*strategies, **changes), listed)))
        return made[-1]

    yield make
    for world in made:
        world.job.store.close()


def about(call: Call, number: int) -> bool:
    return f"question {number} " in call.body.decode()


def only(*numbers: int, otherwise: Any) -> Any:
    """Misbehave for these conversations alone."""
    return lambda call: otherwise(call) if any(about(call, n) for n in numbers) else first_labels(call)


def failing_once() -> Any:
    calls: list[Call] = []

    def behave(call: Call) -> Answer:
        calls.append(call)
        return failed(call) if len(calls) == 1 else first_labels(call)

    return behave


# -- a life --------------------------------------------------------------------------------------------------------


def test_a_batch_from_submit_to_settled(new: Any) -> None:
    world = new()
    with pytest.raises(Incomplete, match=f"semtel-batch collect {PLAN_ID}"):
        world.runner.submit()
    assert (world.provider.n_created, world.provider.n_billed, world.state) == (1, 0, PlanState.RUNNING)
    with pytest.raises(Incomplete):
        world.runner.collect(wait=False)
    world.runner.collect(wait=False)
    assert world.state is PlanState.DONE
    assert world.provider.n_billed == 6
    assert world.labels.rows() == [(f"c{i}", "Technology", "Novice") for i in range(6)]
    assert (world.problems, world.provider.n_open) == ([], 0)
    assert [p.name for p in (world.job.folder / "shards").iterdir()] == [], "what was sent is not kept"
    assert len(world.job.store.parts(PLAN_ID)) == 1, "and the parts of a shard are merged"


def test_a_finished_plan_sends_nothing_more(new: Any) -> None:
    world = new()
    world.finish()
    for _ in range(2):
        world.runner.submit()
        world.runner.collect(wait=True)
    assert (world.provider.n_created, world.provider.n_billed, world.state) == (1, 6, PlanState.DONE)


def test_waiting_grows_to_a_minute_and_no_further(new: Any) -> None:
    world = new()
    world.provider.n_looks = 40
    world.finish()
    assert world.clock.naps[:4] == pytest.approx([1.0, 1.2, 1.44, 1.728])
    assert max(world.clock.naps) == world.clock.naps[-1] == 60.0


def test_realtime_runs_to_its_end_in_submit(new: Any) -> None:
    world = new(REALTIME_NAIVE)
    world.runner.submit()
    assert (world.state, world.provider.n_billed, world.clock.naps) == (PlanState.DONE, 6, [])
    assert world.all_labelled()


def test_two_legs_run_side_by_side(new: Any) -> None:
    world = new(BATCH_NAIVE, REALTIME_NAIVE)
    with pytest.raises(Incomplete):
        world.runner.submit()
    assert world.provider.n_billed == 6, "the realtime leg did not wait for the batch"
    world.finish()
    assert world.provider.n_billed == 12
    assert world.all_labelled()


def test_equal_conversations_are_asked_once_and_empty_ones_never(new: Any) -> None:
    world = new(conversations=["user: same", "", "user: same", "user: other"])
    world.finish()
    assert world.provider.n_billed == 2
    assert world.labels["topic"].to_list() == ["Technology", None, "Technology", "Technology"]
    assert world.problems == [(1, "expertise", Outcome.ABANDONED, 0), (1, "topic", Outcome.ABANDONED, 0)]


def test_the_cost_is_the_bill(new: Any) -> None:
    world = new()
    world.finish()
    # 6 × (90 plain at 0.5 + 10 cached at 0.05 + 7 out at 2) / 10⁶
    assert world.ticks[-1].usd * 1_000_000 == 6 * (Decimal(45) + Decimal("0.5") + Decimal(14))
    assert (world.ticks[-1].n_requests_done, world.ticks[-1].n_requests_total) == (6, 6)
    assert (world.ticks[-1].n_labels, world.ticks[-1].n_unlabelled) == (12, 0)


# -- asking again --------------------------------------------------------------------------------------------------


def test_what_failed_is_asked_again_alone_until_it_is_answered(new: Any) -> None:
    world, tries = new(packed(3)), []

    def at_second_try(call: Call) -> Answer:
        if about(call, 4):
            tries.append(labels_asked(call)[0])
            return failed(call) if len(tries) == 1 else first_labels(call)
        return first_labels(call)

    world.provider.behave = at_second_try
    world.finish()
    assert tries == [3, 1], "first in a pack, then alone"
    assert world.provider.n_billed == 1 + 3, "the pack was not billed; its three were asked alone"
    assert world.all_labelled()


def test_a_good_label_is_not_asked_again_beside_a_bad_one(new: Any) -> None:
    world, sets = new(), []

    def half(call: Call) -> Answer:
        _, choices = labels_asked(call)
        if about(call, 2):
            sets.append(sorted(choices))
            if len(sets) == 1:
                return answered(call, [{"id": 1, "topic": "Travel", "expertise": "Wizard"}])
        return first_labels(call)

    world.provider.behave = half
    world.finish()
    assert sets == [["expertise", "topic"], ["expertise"]]
    assert world.labels.row(2) == ("c2", "Travel", "Novice")


def test_attempts_end_and_leave_a_named_failure(new: Any) -> None:
    world = new(max_attempts=3)
    world.provider.behave = only(1, otherwise=failed)
    world.finish()
    assert world.problems == [(1, "expertise", Outcome.ERRORED, 3), (1, "topic", Outcome.ERRORED, 3)]
    assert world.labels["topic"].null_count() == 1
    assert world.provider.n_billed == 5


def test_a_refusal_is_not_asked_again(new: Any) -> None:
    world = new()
    world.provider.behave = only(1, otherwise=lambda call: failed(call, Outcome.REFUSED, 200))
    world.finish()
    assert world.problems == [(1, "expertise", Outcome.REFUSED, 1), (1, "topic", Outcome.REFUSED, 1)]
    assert world.provider.n_created == 1


def test_retries_go_where_the_plan_says(new: Any) -> None:
    world = new(retry_tier=Tier.REALTIME)
    world.provider.behave = only(1, otherwise=failing_once())
    world.finish()
    assert [shard.tier for shard in world.shards] == [Tier.BATCH, Tier.REALTIME]
    assert world.all_labelled()


def test_the_grader_judges_and_doubted_items_are_asked_alone(new: Any) -> None:
    world = new(packed(3, doubt=Doubt.GRADER), retry_tier=Tier.REALTIME)
    judged: list[str] = []

    def doubt_two(call: Call) -> Answer:
        n, choices = labels_asked(call)
        if "correct" in choices["topic" if "topic" in choices else "expertise"]:
            content = orjson.loads(call.body)["messages"][1]["content"]
            judged.append(content)
            blocks = content.split("</conversation>")[:n]
            verdicts = ["incorrect" if "question 2 " in block else "correct" for block in blocks]
            return answered(call, [{"id": i + 1, "topic": v, "expertise": "correct"} for i, v in enumerate(verdicts)])
        if n == 1 and about(call, 2):
            return answered(call, [{"id": 1, "topic": "Health"}])
        return first_labels(call)

    world.provider.behave = doubt_two
    world.finish()
    assert sum(content.count("<labels>\ntopic: Technology\nexpertise: Novice\n</labels>") for content in judged) == 6
    assert [(s.stage, s.tier, s.n_requests, s.classifiers) for s in world.shards] == [
        (Stage.CLASSIFY, Tier.BATCH, 2, ("topic", "expertise")),
        (Stage.GRADE, Tier.BATCH, 2, ("topic", "expertise")),
        (Stage.RECLASSIFY, Tier.REALTIME, 1, ("topic",)),
    ]
    assert world.labels["topic"].to_list() == ["Technology", "Technology", "Health", *["Technology"] * 3]
    assert world.provider.n_billed == 2 + 2 + 1


def test_retry_asks_what_has_no_label_once_more(new: Any) -> None:
    world = new(max_attempts=1)
    world.provider.behave = only(1, 3, otherwise=failed)
    world.finish()
    assert len(world.problems) == 4
    world.provider.behave = only(3, otherwise=failed)
    assert world.runner.retry() == 4
    assert world.state is PlanState.RUNNING
    world.finish()
    assert [(row, attempts) for row, name, _, attempts in world.problems if name == "topic"] == [(3, 2)]
    assert world.provider.n_billed == 5


def test_retry_of_a_plan_without_failures_changes_nothing(new: Any) -> None:
    world = new()
    world.finish()
    assert world.runner.retry() == 0
    assert world.state is PlanState.DONE


# -- refusals of a whole batch -------------------------------------------------------------------------------------


def test_a_batch_without_room_waits_and_is_sent_again(new: Any) -> None:
    world, refusals = new(), []

    def twice(shard: Shard) -> Progress | None:
        refusals.append(world.clock.now())
        return no_room(shard) if len(refusals) <= 2 else None

    world.provider.refuse = twice
    world.finish()
    assert world.provider.n_created == 3
    assert refusals[1] - refusals[0] >= timedelta(seconds=30), "not at once"
    assert world.provider.n_billed == 6
    tries = next(iter(world.job.store.submissions(PLAN_ID).values()))
    assert [t.state for t in tries] == ["rejected", "rejected", "ended"]


def test_a_full_queue_at_submit_is_borne_too(new: Any) -> None:
    world = new()
    refusals: list[str] = []

    def once(step: str, shard: Shard) -> None:
        if step == "create" and not refusals:
            refusals.append(shard.key)
            full(shard)

    world.provider.before = once
    with pytest.raises(Incomplete):
        world.runner.submit()
    assert world.provider.n_created == 0
    world.finish()
    assert (world.provider.n_created, world.provider.n_billed) == (1, 6)


def test_the_queue_is_not_filled_beyond_its_limit(new: Any) -> None:
    world = new(BATCH_NAIVE, BATCH_NAIVE, endpoint=endpoint(enqueued_tokens=2_600))
    waiting: list[int] = []

    def look(step: str, _shard: Shard) -> None:
        if step == "submitted":
            rows = world.job.store.shards(PLAN_ID)
            waiting.append(sum(r.shard.prompt_tokens for r in rows if r.state is ShardState.SUBMITTED))

    world.provider.before = look
    world.finish()
    assert len(waiting) >= 2
    assert max(waiting) <= 2_600
    assert world.all_labelled()


def test_a_request_longer_than_the_whole_queue_is_still_sent(new: Any) -> None:
    """The provider, not we, says no to it; what must not happen is cutting it for ever."""
    world = new(endpoint=endpoint(enqueued_tokens=50), n=2)
    world.finish()
    assert world.all_labelled()


def test_a_batch_that_waiting_can_not_mend_stops_the_run_and_loses_nothing(new: Any) -> None:
    world = new(BATCH_NAIVE, BATCH_NAIVE)
    bad = Progress(
        state=BatchState.REJECTED, status="failed", error_code="model_not_found", error_message="no such model"
    )
    world.provider.refuse = lambda shard: bad if shard.leg == 1 else None
    with pytest.raises(EndpointError, match=r"model_not_found: no such model.*nothing was billed.*submit p1a2b3c4"):
        world.finish()
    world.provider.refuse = lambda _shard: None
    world.finish()
    assert world.provider.n_billed == 12
    assert max(world.provider.billed.values()) == 1
    assert world.all_labelled()


def test_trouble_that_may_pass_is_gone_through(new: Any) -> None:
    world, troubles = new(), {"upload": 2, "poll": 3}

    def trouble(step: str, _shard: Shard) -> None:
        if troubles.get(step):
            troubles[step] -= 1
            raise Incomplete("the provider does not answer")

    world.provider.before = trouble
    world.finish()
    assert (world.provider.n_created, world.provider.n_billed) == (1, 6)
    assert world.all_labelled()
