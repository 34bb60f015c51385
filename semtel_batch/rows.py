"""The rows of the store as records: what a plan's execution is made of, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from semtel_batch.records import Outcome, Receipt, Shard, Stage, Tier, Usage


class PlanState(StrEnum):
    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class ShardState(StrEnum):
    CUT = "cut"  # its manifest is written; nothing was sent
    SUBMITTED = "submitted"  # an intent is on record; the provider may have it
    ENDED = "ended"  # all its answers are written down


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    id: str
    created_at: datetime
    state: PlanState
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """A user had a plan's texts deleted; its labels too, unless they were to stay."""

    plan_id: str
    at: datetime
    labels_kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """All shards that ask one leg at one stage for the n-th time."""

    leg: int
    stage: Stage
    attempt: int
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewShard:
    """A shard about to be cut: all but what the store gives it."""

    key: str
    classifiers: tuple[str, ...]
    endpoint: str
    tier: Tier
    way: str  # of asking: see legs.way_of_asking
    manifest: Path
    n_requests: int
    n_items: int
    prompt_tokens: int
    max_completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow:
    shard: Shard
    state: ShardState
    way: str
    manifest: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One numbered try to hand a shard to a provider."""

    shard_id: int
    number: int
    state: str  # intended, submitted, ended, rejected
    receipt: Receipt
    status: str | None
    n_completed: int
    n_failed: int
    n_total: int
    error_code: str | None
    error_message: str | None
    intended_at: datetime
    ended_at: datetime | None
    submitted_at: datetime | None
    polled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One pair of Parquet files with what was paid for it."""

    shard_id: int
    answers: Path
    labels: Path
    n_requests: int
    n_items: int
    n_answered: int
    n_tries: int
    usage: Usage
    cost_usd: Decimal
    written_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An item that ended without a label, and why."""

    row: int
    classifier: str
    outcome: Outcome
    detail: str | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """Items that an earlier run answered: a shard without requests, whose labels are there already."""

    shard: NewShard
    answers: Path
    labels: Path
