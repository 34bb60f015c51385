"""Rows for a store to keep: shards of one generation, parts of shards."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from small_job import PLAN_ID, START

from semtel_batch.records import Shard, Stage, Tier, Usage
from semtel_batch.rows import Generation, NewShard, Part
from semtel_batch.store import Store

FIRST = Generation(leg=0, stage=Stage.CLASSIFY, attempt=0)


def later(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def new_shard(store: Store, key: str) -> NewShard:
    return NewShard(
        key=key,
        classifiers=("topic", "expertise"),
        endpoint="main",
        tier=Tier.BATCH,
        way="w1",
        manifest=store.files(PLAN_ID) / "manifests" / f"{key}.parquet",
        n_requests=10,
        n_items=20,
        prompt_tokens=1_000,
        max_completion_tokens=500,
    )


def cut(store: Store, *keys: str, generation: Generation = FIRST) -> list[Shard]:
    store.cut(PLAN_ID, generation, [new_shard(store, key) for key in keys], START)
    return [row.shard for row in store.shards(PLAN_ID) if row.shard.key in keys]


def part(store: Store, shard: Shard, number: int, **changes: object) -> Part:
    name = f"{shard.key}.{number:05d}.parquet"
    made = Part(
        shard_id=shard.id,
        answers=store.files(PLAN_ID) / "answers" / name,
        labels=store.files(PLAN_ID) / "labels" / name,
        n_requests=5,
        n_items=10,
        n_answered=9,
        n_tries=6,
        usage=Usage(prompt_tokens=50, cached_tokens=4, cache_write_tokens=3, completion_tokens=20, reasoning_tokens=2),
        cost_usd=Decimal("0.00000000123456789012345678"),
        written_at=START,
    )
    return replace(made, **changes)  # type: ignore[arg-type]
