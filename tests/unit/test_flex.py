"""Flex in the loop: billed by what was used, and what it has no room for moves to realtime if that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from fake_provider import USAGE, FakeClock, FakeProvider, FakeRealtime, FakeTransport
from small_job import PLAN_ID, Job, job, plan, price, texts

from semtel_batch.parts import ANSWERS, read_parts
from semtel_batch.plans import Objective, Plan
from semtel_batch.records import Answer, Endpoint, Receipt, Shard, Strategy, Tier
from semtel_batch.results import final_labels
from semtel_batch.rows import PlanState
from semtel_batch.runner import Runner
from semtel_batch.transport.protocol import NoCapacity

FLEX = Strategy(recipe="flex", tier=Tier.FLEX)
HALF = replace(price(Tier.BATCH), tier=Tier.FLEX)


@dataclass
class FlexProvider(FakeProvider):
    """Answers `n_room` groups at flex, says which tier each was served in, then has no room."""

    n_room: int = 1_000
    served_as: Tier = Tier.FLEX
    after_group: Callable[[], None] = lambda: None
    tiers_asked: list[object] = field(default_factory=list)

    def open(self, members: Sequence[Endpoint], tier: Tier) -> FakeTransport:
        self.n_open += 1
        self.opened.append((members[0].name, tier))
        return FakeFlex(self) if tier is Tier.FLEX else FakeRealtime(self)


class FakeFlex(FakeRealtime):
    provider: FlexProvider

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        for group in super().answers(shard, receipt, done):
            if self.provider.n_room == 0:
                raise NoCapacity("no room at flex")
            self.provider.n_room -= 1
            yield [replace(answer, tier=self.provider.served_as) for answer in group]
            self.provider.after_group()


def flex_plan(*, with_realtime: bool = True, objective: Objective | None = None) -> Plan:
    prices = (("main", HALF), *((("main", price(Tier.REALTIME)),) if with_realtime else ()))
    return plan(FLEX, prices=prices, retry_tier=Tier.REALTIME, objective=objective or Objective())


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Callable[[Plan], Job]]:
    made: list[Job] = []

    def make(of: Plan) -> Job:
        made.append(job(tmp_path / f"project{len(made)}", of, texts(6)))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def run(at: Job, provider: FlexProvider, clock: FakeClock | None = None) -> None:
    Runner(at.store, at.plan, provider.open, clock or FakeClock(), lambda _tick: None).collect(wait=True)


def spent(at: Job) -> Decimal:
    return sum((part.cost_usd for part in at.store.parts(PLAN_ID)), Decimal(0))


def tiers(at: Job) -> list[str | None]:
    return sorted(read_parts([part.answers for part in at.store.parts(PLAN_ID)], ANSWERS)["tier"].to_list(), key=str)


def test_flex_is_asked_and_billed_as_flex(new: Callable[[Plan], Job]) -> None:
    at, provider = new(flex_plan()), FlexProvider()
    run(at, provider)
    assert all(orjson.loads(body)["service_tier"] == "flex" for body in provider.billed)
    assert tiers(at) == ["flex"] * 6
    assert spent(at) == 6 * HALF.cost_usd(USAGE)


def test_what_was_served_at_the_default_tier_is_billed_so(new: Callable[[Plan], Job]) -> None:
    at = new(flex_plan())
    run(at, FlexProvider(served_as=Tier.REALTIME))
    assert spent(at) == 6 * price(Tier.REALTIME).cost_usd(USAGE)


def test_what_flex_has_no_room_for_is_asked_in_realtime(new: Callable[[Plan], Job]) -> None:
    at, provider = new(flex_plan()), FlexProvider(n_room=2)
    run(at, provider)
    assert at.store.plan_row(PLAN_ID).state is PlanState.DONE
    assert final_labels(at.store, at.plan)["label"].null_count() == 0
    # The first four answers keep their price although their shard has moved.
    assert tiers(at) == [None, None, "flex", "flex", "flex", "flex"]
    assert spent(at) == 4 * HALF.cost_usd(USAGE) + 2 * price(Tier.REALTIME).cost_usd(USAGE)
    assert sum("service_tier" in orjson.loads(body) for body in provider.billed) >= 4


@pytest.mark.parametrize("of", [flex_plan(with_realtime=False), flex_plan(objective=Objective(budget_usd=Decimal(0)))])
def test_it_stays_owed_where_realtime_is_not_allowed(new: Callable[[Plan], Job], of: Plan) -> None:
    at = new(of)
    with pytest.raises(NoCapacity):
        run(at, FlexProvider(n_room=2))
    assert sum(part.n_requests for part in at.store.parts(PLAN_ID)) == 4
    run(at, FlexProvider())  # another day there is room
    assert tiers(at) == ["flex"] * 6


def test_near_the_deadline_the_rest_is_asked_in_realtime(new: Callable[[Plan], Job]) -> None:
    clock = FakeClock()
    provider = FlexProvider(after_group=lambda: setattr(clock, "time", clock.time + timedelta(hours=4)))
    at = new(flex_plan(objective=Objective(deadline_s=4 * 3600)))
    run(at, provider, clock)
    assert set(tiers(at)) == {None, "flex"}
    assert final_labels(at.store, at.plan)["label"].null_count() == 0
    with closing(at.store):
        assert all(row.shard.tier is Tier.REALTIME for row in at.store.shards(PLAN_ID))
