"""What a report says of endpoints that shared the work: by the answers that each gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from reported_plan import START, Execution, plan

from semtel_batch.plans import Plan
from semtel_batch.records import Change, Event, Outcome, Pace, Stage, Tier, Usage
from semtel_batch.store import Store
from semtel_batch.throughput import EndpointLine, endpoint_lines

STOPPED = Event(endpoint="azure", at=START + timedelta(seconds=9), change=Change.STOPPED, reason="It has no quota.")


def pooled() -> Plan:
    made = plan()
    first, leg = made.endpoints[0], made.legs[0]
    price = made.price("openai", Tier.REALTIME)
    return plan(
        endpoints=(first, replace(first, name="azure")),
        prices=(*made.prices, ("azure", replace(price, input_usd=price.input_usd * 2, long_over=5_000))),
        legs=(replace(leg, pool=("azure",)),),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store, made = Store(tmp_path), pooled()
    store.add_plan(made)
    store.start_plan(made.id, START)
    run = Execution(store, made)
    batch = run.ask(Stage.CLASSIFY, 0, Tier.BATCH, 1)
    run.hand_over(batch, 1.0)
    run.answer(batch, [{}], "0.01", 50.0)
    shard = run.ask(Stage.CLASSIFY, 1, Tier.REALTIME, 6)
    by_azure = {"endpoint": "azure", "latency_s": 4.0, "n_tries": 3}
    own = [{"endpoint": "openai"}, {"endpoint": None}, {"endpoint": "openai", "outcome": Outcome.ERRORED.value}]
    run.answer(shard, [*own, by_azure], "0.01", 60.0)
    store.add_events(made.id, [STOPPED])
    store.add_paces(made.id, [pace("azure", 5), pace("openai", 0)])
    yield store
    store.close()


def pace(endpoint: str, n_limited: int) -> Pace:
    return Pace(
        endpoint=endpoint,
        at=START,
        span_s=1.0,
        limit=8,
        in_flight=4,
        n_answered=1,
        n_limited=n_limited,
        n_failed=0,
        p50_s=1.0,
    )


def lines(store: Store) -> dict[tuple[str, Tier], EndpointLine]:
    made = pooled()
    row, shards, parts = store.plan_row(made.id), store.shards(made.id), store.parts(made.id)
    return {(line.endpoint, line.tier): line for line in endpoint_lines(store, made, row, shards, parts)}


def test_each_has_a_line_of_its_own_and_batches_one_alone(store: Store) -> None:
    found = lines(store)
    assert set(found) == {("openai", Tier.BATCH), ("openai", Tier.REALTIME), ("azure", Tier.REALTIME)}
    assert found["openai", Tier.BATCH].n_planned == 1 and found["openai", Tier.BATCH].share is None


def test_answers_count_for_whoever_gave_them(store: Store) -> None:
    found = lines(store)
    own, azure = found["openai", Tier.REALTIME], found["azure", Tier.REALTIME]
    assert (own.share, azure.share) == (0.75, 0.25)
    assert (own.bill.n_requests, own.n_answered, own.n_retried) == (3, 2, 0)
    assert (azure.bill.n_requests, azure.n_answered, azure.n_retried) == (1, 1, 2)
    assert own.latency and azure.latency and (own.latency.p50_s, azure.latency.p50_s) == (1.0, 4.0)
    assert (own.n_planned, azure.n_planned) == (None, None)  # which of them gets what is left, nobody knows


def test_each_is_billed_at_its_own_price(store: Store) -> None:
    found = lines(store)
    one = (1 * 1_000 + 4 * 10) / Decimal(1_000_000)
    assert found["openai", Tier.REALTIME].bill.usd == 3 * one
    assert found["azure", Tier.REALTIME].bill.usd == one + Decimal("0.001")


def test_a_long_request_is_billed_as_long(store: Store) -> None:
    made = pooled()
    shard = store.shards(made.id)[-1].shard
    long = {"endpoint": "azure", "prompt_tokens": 6_000}
    Execution(store, made, _n=10).answer(shard.id, [long], "0.01", 61.0)
    price = made.price("azure", Tier.REALTIME)
    usages = [Usage(prompt_tokens=n, completion_tokens=10) for n in (1_000, 6_000)]
    expected = price.cost_usd(usages[0]) + price.cost_usd(usages[1], is_long=True)
    assert lines(store)["azure", Tier.REALTIME].bill.usd == expected


def test_refusals_and_events_are_the_endpoints_own(store: Store) -> None:
    found = lines(store)
    assert [found[name, Tier.REALTIME].n_limited for name in ("azure", "openai")] == [5, 0]
    assert found["azure", Tier.REALTIME].events == (STOPPED,)
    assert found["openai", Tier.REALTIME].events == found["openai", Tier.BATCH].events == ()
