"""A job small enough to follow by hand: a dozen conversations, two classifiers, a sealed plan and its store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from semtel_batch.conversations import Columns, ingest
from semtel_batch.plans import DataProfile, Estimate, Leg, Objective, Plan, Quality, seal
from semtel_batch.records import Classifier, Endpoint, EndpointKind, Keep, Label, Strategy, Tier, TierPrice
from semtel_batch.results import conversations_folder
from semtel_batch.store import Store

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
PLAN_ID = "p1a2b3c4"
LUNA = "gpt-6-luna"
BATCH_NAIVE = Strategy(recipe="batch", tier=Tier.BATCH)
REALTIME_NAIVE = Strategy(recipe="naive", tier=Tier.REALTIME)


def classifier(name: str, *labels: str, version: str = "1") -> Classifier:
    return Classifier(
        name=name,
        description=f"{name} of a conversation",
        instructions=f"Say the {name}.",
        labels=tuple(Label(name=label, definition=f"it is {label}") for label in labels),
        version=f"b2:{name}-{version}",
    )


TOPIC = classifier("topic", "Technology", "Travel", "Health")
EXPERTISE = classifier("expertise", "Novice", "Expert")
GRADER = Classifier(
    name="grader",
    description="judges labels",
    instructions="Doubt what does not fit.",
    labels=(Label(name="correct"), Label(name="incorrect")),
    version="b2:grader-1",
)


def endpoint(name: str = "main", **changes: Any) -> Endpoint:
    made = Endpoint(
        name=name,
        kind=EndpointKind.OPENAI,
        base_url="https://api.openai.com/v1",
        model=LUNA,
        api_key_env="OPENAI_API_KEY",
    )
    return replace(made, **changes)


def price(tier: Tier) -> TierPrice:
    """Round numbers: 1 dollar a million in, a tenth of it cached, 1.25 written, 4 out; batch is half of that."""
    unit = Decimal("0.5") if tier is Tier.BATCH else Decimal(1)
    return TierPrice(
        tier=tier,
        input_usd=unit,
        cached_usd=unit / 10,
        cache_write_usd=unit * Decimal("1.25"),
        output_usd=unit * 4,
        source="by hand",
    )


def plan(*strategies: Strategy, **changes: Any) -> Plan:
    """One leg a strategy: a single leg asks both classifiers together, two legs ask one each."""
    chosen = strategies or (BATCH_NAIVE,)
    sets = [("topic", "expertise")] if len(chosen) == 1 else [("topic",), ("expertise",)]
    at = changes.pop("endpoint", endpoint())
    made = Plan(
        id=PLAN_ID,
        created_at=START,
        objective=Objective(),
        data=DataProfile(
            source="conversations.jsonl",
            n_conversations=0,
            n_unique=0,
            encoding="o200k_base",
            text_tokens=0,
            median_tokens=0,
            p90_tokens=0,
            max_tokens=0,
        ),
        classifiers=(TOPIC, EXPERTISE),
        grader=GRADER,
        endpoints=(at,),
        prices=tuple((at.name, price(tier)) for tier in (Tier.REALTIME, Tier.BATCH)),
        legs=tuple(
            Leg(number=i, classifiers=names, strategy=strategy, endpoint=at.name)
            for i, (names, strategy) in enumerate(zip(sets, chosen, strict=True))
        ),
        retry_tier=chosen[0].tier,
        max_attempts=3,
        seed=7,
        chosen=Estimate(
            strategy=chosen[0],
            endpoint=at.name,
            lines=(),
            usd=Decimal(1),
            usd_high=Decimal(2),
            time_s=60.0,
            quality=Quality(label_change=0.0, assumed=True, basis="by construction"),
        ),
        alternatives=(),
        naive_usd=Decimal(3),
        certified=False,
    )
    return seal(replace(made, **changes))


def packed(n: int, **changes: Any) -> Strategy:
    return Strategy(recipe="packed", tier=Tier.BATCH, conversations_per_request=n, classifiers_per_request=0, **changes)


def truncated(limit: int, keep: Keep = Keep.HEAD, **changes: Any) -> Strategy:
    return Strategy(recipe="truncated", tier=Tier.BATCH, truncate_to=limit, keep=keep, **changes)


def texts(n: int) -> list[str]:
    return [f"user: question {i} about {'trains' if i % 2 else 'laptops'}\nassistant: answer {i}" for i in range(n)]


@dataclass(frozen=True, slots=True)
class Job:
    project: Path
    store: Store
    plan: Plan

    @property
    def conversations(self) -> Path:
        return conversations_folder(self.store, self.plan)

    @property
    def folder(self) -> Path:
        return self.store.files(self.plan.id)


def job(project: Path, made: Plan, conversations: list[str]) -> Job:
    """Keep the conversations (ids c0, c1, …) and the plan in a new project."""
    project.mkdir(parents=True, exist_ok=True)
    source = project / "conversations.jsonl"
    rows = [{"conversation_id": f"c{i}", "text": text} for i, text in enumerate(conversations)]
    source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    store = Store(project)
    made_job = Job(project, store, made)
    ingest(str(source), Columns(), made_job.conversations, "o200k_base")
    store.add_plan(made)
    return made_job
