"""Where plans and their shards stand, at a glance: the store's rows, summed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from semtel_batch.plans import Plan
from semtel_batch.records import Stage, Tier
from semtel_batch.rows import Part, PlanRow, PlanState, ShardRow, ShardState, Submission
from semtel_batch.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard and its newest submission; what a provider said is in `status` and the error fields."""

    key: str
    leg: int
    stage: Stage
    attempt: int
    endpoint: str
    tier: Tier
    state: ShardState
    batch_id: str | None
    status: str | None
    n_done: int
    n_requests: int
    submitted_at: datetime | None
    polled_at: datetime | None
    error_code: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassStatus:
    """What one model does for a plan in one pass: classify, grade, rerun, reclassify, or escalate."""

    name: str
    endpoint: str
    model: str
    n_requests: int
    n_done: int
    usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStatus:
    """One plan; requests are those of the shards cut so far, more are cut as passes and retries need them."""

    plan_id: str
    state: PlanState
    source: str
    recipe: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_s: float | None
    n_requests: int
    n_done: int
    n_failed: int  # items that ended without a label
    usd: Decimal
    planned_usd: Decimal
    shards: tuple[ShardStatus, ...]
    purged_at: datetime | None = None  # its texts were deleted
    passes: tuple[PassStatus, ...] = ()  # in order; more come as labels are doubted


def plan_status(store: Store, row: PlanRow) -> PlanStatus:
    """Sum up what the store has of a plan."""
    plan, purge = store.plan(row.id, purged=True), store.purges().get(row.id)
    tries, parts = store.submissions(row.id), store.parts(row.id)
    written: dict[int, int] = {}
    for part in parts:
        written[part.shard_id] = written.get(part.shard_id, 0) + part.n_requests
    rows = store.shards(row.id)
    shards = tuple(
        _shard_status(shard, tries.get(shard.shard.id, []), written.get(shard.shard.id, 0)) for shard in rows
    )
    return PlanStatus(
        plan_id=row.id,
        state=row.state,
        source=plan.data.source,
        recipe=plan.recipe,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        deadline_s=plan.objective.deadline_s,
        n_requests=sum(shard.n_requests for shard in shards),
        n_done=sum(written.values()),
        n_failed=len(store.problems(row.id)),
        usd=sum((part.cost_usd for part in parts), Decimal(0)),
        planned_usd=plan.chosen.usd,
        shards=shards,
        purged_at=purge.at if purge else None,
        passes=_passes(plan, rows, parts),
    )


def _passes(plan: Plan, shards: Sequence[ShardRow], parts: Sequence[Part]) -> tuple[PassStatus, ...]:
    of_shard = {row.shard.id: (plan.pass_of(row.shard), row.shard.endpoint) for row in shards}
    return tuple(
        PassStatus(
            name=key[0],
            endpoint=key[1],
            model=plan.endpoint(key[1]).model,
            n_requests=sum(row.shard.n_requests for row in shards if of_shard[row.shard.id] == key),
            n_done=sum(part.n_requests for part in parts if of_shard.get(part.shard_id) == key),
            usd=sum((part.cost_usd for part in parts if of_shard.get(part.shard_id) == key), Decimal(0)),
        )
        for key in dict.fromkeys(of_shard.values())
    )


def _shard_status(row: ShardRow, tries: list[Submission], n_written: int) -> ShardStatus:
    shard, last = row.shard, tries[-1] if tries else None
    return ShardStatus(
        key=shard.key,
        leg=shard.leg,
        stage=shard.stage,
        attempt=shard.attempt,
        endpoint=shard.endpoint,
        tier=shard.tier,
        state=row.state,
        batch_id=last.receipt.batch_id if last else None,
        status=last.status if last else None,
        n_done=max(n_written, last.n_completed + last.n_failed if last and last.state == "submitted" else 0),
        n_requests=shard.n_requests,
        submitted_at=last.submitted_at if last else None,
        polled_at=last.polled_at if last else None,
        error_code=last.error_code if last else None,
        error_message=last.error_message if last else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What one endpoint does for a plan in one tier; `words` are the provider's states of its open batches."""

    endpoint: str
    tier: Tier
    n_shards: int
    n_open: int
    n_requests: int
    n_done: int
    words: tuple[tuple[str, int], ...]


def serving(status: PlanStatus) -> list[Serving]:
    """A plan's shards by endpoint and tier, those with open ones first."""
    groups: dict[tuple[str, Tier], list[ShardStatus]] = {}
    for shard in status.shards:
        if shard.n_requests:
            groups.setdefault((shard.endpoint, shard.tier), []).append(shard)
    found = [_serving(endpoint, tier, shards) for (endpoint, tier), shards in groups.items()]
    return sorted(found, key=lambda one: one.n_open == 0)


def _serving(endpoint: str, tier: Tier, shards: list[ShardStatus]) -> Serving:
    still_open = [shard for shard in shards if shard.state is not ShardState.ENDED]
    words = Counter(shard.status for shard in still_open if shard.status)
    return Serving(
        endpoint=endpoint,
        tier=tier,
        n_shards=len(shards),
        n_open=len(still_open),
        n_requests=sum(shard.n_requests for shard in shards),
        n_done=sum(shard.n_done for shard in shards),
        words=tuple(words.most_common()),
    )


def is_over(status: PlanStatus) -> bool:
    """Whether nothing will happen to a plan by itself: it is done, cancelled, or was never started."""
    return status.state is not PlanState.RUNNING


def time_left_s(status: PlanStatus, now: datetime) -> float | None:
    """At the pace so far, seconds until all requests that are cut have an answer. None where no pace can be told.

    A batch answers all at once, so of plans that wait for one it says nothing.
    """
    waits = any(one.n_open for one in serving(status) if not one.tier.is_at_once)
    if is_over(status) or waits or status.started_at is None or status.n_done < 10:
        return None
    elapsed_s = (now - status.started_at).total_seconds()
    return elapsed_s * (status.n_requests - status.n_done) / status.n_done


@cache
def _schema() -> TypeAdapter[PlanStatus]:
    return TypeAdapter(PlanStatus)  # built when it is needed: it takes longer than the rest of this module


def as_json(status: PlanStatus) -> dict[str, Any]:
    document: dict[str, Any] = _schema().dump_python(status, mode="json")
    return document
