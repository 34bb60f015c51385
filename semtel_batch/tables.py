"""The store's tables, as SQLAlchemy Core sees them. A test holds them equal to what the migrations make."""

from __future__ import annotations

from sqlalchemy import REAL, Column, ForeignKey, Index, Integer, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _plan() -> Column[str]:
    return Column("plan_id", Text, ForeignKey("plans.id"), nullable=False)


plans = Table(
    "plans",
    metadata,
    Column("id", Text, primary_key=True),
    _text("created_at"),
    _text("hash"),
    _text("document"),
    _text("state"),
    _text("started_at", null=True),
    _text("ended_at", null=True),
)

legs = Table(
    "legs",
    metadata,
    Column("plan_id", Text, ForeignKey("plans.id"), primary_key=True),
    Column("leg", Integer, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    _text("ended_at", null=True),
)

shards = Table(
    "shards",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    _plan(),
    _count("leg"),
    _text("stage"),
    _count("attempt"),
    _text("classifiers"),
    _text("endpoint"),
    _text("tier"),
    _text("way"),
    _text("state"),
    _text("manifest"),
    _count("n_requests"),
    _count("n_items"),
    _count("prompt_tokens"),
    _count("max_completion_tokens"),
    _text("created_at"),
    _text("ended_at", null=True),
    Index("shards_by_plan", "plan_id", "state"),
    Index("shards_by_way", "way"),
)

submissions = Table(
    "submissions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("shard_id", Integer, ForeignKey("shards.id"), nullable=False),
    _count("number"),
    _text("state"),
    _text("input_file_id", null=True),
    _text("batch_id", null=True),
    _text("status", null=True),
    _count("n_completed"),
    _count("n_failed"),
    _count("n_total"),
    _text("error_code", null=True),
    _text("error_message", null=True),
    _text("intended_at"),
    _text("submitted_at", null=True),
    _text("polled_at", null=True),
    _text("ended_at", null=True),
    UniqueConstraint("shard_id", "number"),
)

parts = Table(
    "parts",
    metadata,
    Column("id", Integer, primary_key=True),
    _plan(),
    Column("shard_id", Integer, ForeignKey("shards.id"), nullable=False),
    _text("answers"),
    _text("labels"),
    _count("n_requests"),
    _count("n_items"),
    _count("n_answered"),
    _count("n_tries"),
    _count("prompt_tokens"),
    _count("cached_tokens"),
    _count("cache_write_tokens"),
    _count("completion_tokens"),
    _count("reasoning_tokens"),
    _text("cost_usd"),
    _text("written_at"),
    Index("parts_by_shard", "shard_id"),
)

problems = Table(
    "problems",
    metadata,
    Column("plan_id", Text, ForeignKey("plans.id"), primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("classifier", Text, primary_key=True),
    _text("outcome"),
    _text("detail", null=True),
    _count("attempts"),
)

paces = Table(
    "paces",
    metadata,
    Column("id", Integer, primary_key=True),
    _plan(),
    _text("endpoint"),
    _text("at"),
    Column("span_s", REAL, nullable=False),
    _count("allowed"),
    _count("in_flight"),
    _count("n_answered"),
    _count("n_limited"),
    _count("n_failed"),
    Column("p50_s", REAL),
    Index("paces_by_plan", "plan_id"),
)

purges = Table(
    "purges",
    metadata,
    Column("plan_id", Text, ForeignKey("plans.id"), primary_key=True),
    _text("at"),
    _count("labels_kept"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    _plan(),
    _text("endpoint"),
    _text("at"),
    _text("change"),
    _text("reason"),
    Index("events_by_plan", "plan_id"),
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("id", Text, primary_key=True),
    _text("created_at"),
    _text("ended_at", null=True),
    _text("document"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("calibration_id", Text, ForeignKey("calibrations.id"), nullable=False),
    _plan(),
    *map(_text, ("measured_at", "kind", "classifier", "version", "companions", "reference", "model", "strategy")),
    *map(_text, ("source", "sample")),
    _count("seed"),
    Column("min_tokens", Integer),
    Column("max_tokens", Integer),
    _count("n"),
    _count("n_different"),
    Index("evidence_by_version", "version"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("id", Integer, primary_key=True),
    _plan(),
    _text("made_at"),
    _text("document"),
    Index("certificates_by_plan", "plan_id"),
)

studies = Table(
    "studies",
    metadata,
    Column("key", Text, primary_key=True),
    _text("created_at"),
    _text("document"),
)

packs = Table(
    "packs",
    metadata,
    Column("shard_id", Integer, ForeignKey("shards.id"), primary_key=True),
    Column("size", Integer, primary_key=True),
    *map(_text, ("model", "classifiers", "counted_at")),
    _count("n"),
    _count("n_broken"),
)

embedders = Table(
    "embedders",
    metadata,
    Column("plan_id", Text, ForeignKey("plans.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    _text("document"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    _text("holder"),
    _text("until"),
)
