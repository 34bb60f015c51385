"""The store's table rows as records, and back. Paths are kept relative to state/, so that a project can be moved."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from semtel_batch.measurements import Kind, Measurement, Packs, strategy_from_json, strategy_to_json
from semtel_batch.records import Change, Event, Outcome, Pace, Receipt, Shard, Stage, Tier, Usage
from semtel_batch.rows import (
    Generation,
    NewShard,
    Part,
    PlanRow,
    PlanState,
    Problem,
    Purge,
    ShardRow,
    ShardState,
    Submission,
)

_MEASURED = tuple(field.name for field in fields(Measurement))
_TOKENS = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens")


def plan_row(row: Any) -> PlanRow:
    return PlanRow(
        id=row.id,
        created_at=datetime.fromisoformat(row.created_at),
        state=PlanState(row.state),
        started_at=_when(row.started_at),
        ended_at=_when(row.ended_at),
    )


def purge(row: Any) -> Purge:
    return Purge(plan_id=row.plan_id, at=datetime.fromisoformat(row.at), labels_kept=bool(row.labels_kept))


def shard_values(plan_id: str, generation: Generation, shard: NewShard, state: Path, at: datetime) -> dict[str, Any]:
    return {
        "key": shard.key,
        "plan_id": plan_id,
        "leg": generation.leg,
        "stage": generation.stage,
        "attempt": generation.attempt,
        "classifiers": json.dumps(shard.classifiers),
        "endpoint": shard.endpoint,
        "tier": shard.tier,
        "way": shard.way,
        "state": ShardState.CUT,
        "manifest": str(shard.manifest.relative_to(state)),
        "n_requests": shard.n_requests,
        "n_items": shard.n_items,
        "prompt_tokens": shard.prompt_tokens,
        "max_completion_tokens": shard.max_completion_tokens,
        "created_at": at.isoformat(),
    }


def shard_row(row: Any, state: Path) -> ShardRow:
    shard = Shard(
        id=row.id,
        key=row.key,
        plan_id=row.plan_id,
        leg=row.leg,
        stage=Stage(row.stage),
        attempt=row.attempt,
        classifiers=tuple(json.loads(row.classifiers)),
        endpoint=row.endpoint,
        tier=Tier(row.tier),
        path=state / "files" / row.plan_id / "shards" / f"{row.key}.jsonl",
        n_requests=row.n_requests,
        n_items=row.n_items,
        prompt_tokens=row.prompt_tokens,
        max_completion_tokens=row.max_completion_tokens,
    )
    return ShardRow(shard=shard, state=ShardState(row.state), way=row.way, manifest=state / row.manifest)


def submission(row: Any) -> Submission:
    return Submission(
        shard_id=row.shard_id,
        number=row.number,
        state=row.state,
        receipt=Receipt(input_file_id=row.input_file_id, batch_id=row.batch_id),
        status=row.status,
        n_completed=row.n_completed,
        n_failed=row.n_failed,
        n_total=row.n_total,
        error_code=row.error_code,
        error_message=row.error_message,
        intended_at=datetime.fromisoformat(row.intended_at),
        ended_at=_when(row.ended_at),
        submitted_at=_when(row.submitted_at),
        polled_at=_when(row.polled_at),
    )


def part_values(plan_id: str, one: Part, state: Path) -> dict[str, Any]:
    return {
        "plan_id": plan_id,
        "shard_id": one.shard_id,
        "answers": str(one.answers.relative_to(state)),
        "labels": str(one.labels.relative_to(state)),
        "n_requests": one.n_requests,
        "n_items": one.n_items,
        "n_answered": one.n_answered,
        "n_tries": one.n_tries,
        **{name: getattr(one.usage, name) for name in _TOKENS},
        "cost_usd": str(one.cost_usd),
        "written_at": one.written_at.isoformat(),
    }


def part(row: Any, state: Path) -> Part:
    return Part(
        shard_id=row.shard_id,
        answers=state / row.answers,
        labels=state / row.labels,
        n_requests=row.n_requests,
        n_items=row.n_items,
        n_answered=row.n_answered,
        n_tries=row.n_tries,
        usage=Usage(**{name: getattr(row, name) for name in _TOKENS}),
        cost_usd=Decimal(row.cost_usd),
        written_at=datetime.fromisoformat(row.written_at),
    )


def problem(row: Any) -> Problem:
    return Problem(
        row=row.row, classifier=row.classifier, outcome=Outcome(row.outcome), detail=row.detail, attempts=row.attempts
    )


def pace_values(plan_id: str, one: Pace) -> dict[str, Any]:
    return {
        "plan_id": plan_id,
        "endpoint": one.endpoint,
        "at": one.at.isoformat(),
        "span_s": one.span_s,
        "allowed": one.limit,
        "in_flight": one.in_flight,
        "n_answered": one.n_answered,
        "n_limited": one.n_limited,
        "n_failed": one.n_failed,
        "p50_s": one.p50_s,
    }


def pace(row: Any) -> Pace:
    return Pace(
        endpoint=row.endpoint,
        at=datetime.fromisoformat(row.at),
        span_s=row.span_s,
        limit=row.allowed,
        in_flight=row.in_flight,
        n_answered=row.n_answered,
        n_limited=row.n_limited,
        n_failed=row.n_failed,
        p50_s=row.p50_s,
    )


def event_values(plan_id: str, one: Event) -> dict[str, Any]:
    return {
        "plan_id": plan_id,
        "endpoint": one.endpoint,
        "at": one.at.isoformat(),
        "change": one.change,
        "reason": one.reason,
    }


def event(row: Any) -> Event:
    return Event(endpoint=row.endpoint, at=datetime.fromisoformat(row.at), change=Change(row.change), reason=row.reason)


def measurement_values(one: Measurement) -> dict[str, Any]:
    values = {name: getattr(one, name) for name in _MEASURED}
    return values | {
        "measured_at": one.measured_at.isoformat(),
        "companions": json.dumps(one.companions),
        "strategy": strategy_to_json(one.strategy),
    }


def measurement(row: Any) -> Measurement:
    values = {name: getattr(row, name) for name in _MEASURED}
    return Measurement(
        **values
        | {
            "measured_at": datetime.fromisoformat(row.measured_at),
            "kind": Kind(row.kind),
            "companions": tuple(json.loads(row.companions)),
            "strategy": strategy_from_json(row.strategy),
        }
    )


def packs_values(shard: Shard, one: Packs, at: datetime) -> dict[str, Any]:
    values = {"shard_id": shard.id, "size": one.size, "model": one.model, "n": one.n, "n_broken": one.n_broken}
    return values | {"classifiers": json.dumps(one.classifiers), "counted_at": at.isoformat()}


def packs(row: Any) -> Packs:
    versions = tuple(json.loads(row.classifiers))
    return Packs(model=row.model, classifiers=versions, size=row.size, n=row.n, n_broken=row.n_broken)


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
