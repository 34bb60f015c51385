"""Where plans and their shards stand, at a glance: the store's rows, summed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from semtel_batch.records import Stage, Tier
from semtel_batch.rows import PlanRow, PlanState, ShardRow, ShardState, Submission
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


def plan_status(store: Store, row: PlanRow) -> PlanStatus:
    """Sum up what the store has of a plan."""
    plan, purge = store.plan(row.id, purged=True), store.purges().get(row.id)
    tries, parts = store.submissions(row.id), store.parts(row.id)
    written: dict[int, int] = {}
    for part in parts:
        written[part.shard_id] = written.get(part.shard_id, 0) + part.n_requests
    shards = tuple(
        _shard_status(shard, tries.get(shard.shard.id, []), written.get(shard.shard.id, 0))
        for shard in store.shards(row.id)
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


@cache
def _schema() -> TypeAdapter[PlanStatus]:
    return TypeAdapter(PlanStatus)  # built when it is needed: it takes longer than the rest of this module


def as_json(status: PlanStatus) -> dict[str, Any]:
    document: dict[str, Any] = _schema().dump_python(status, mode="json")
    return document
