"""A small plan and its execution, made by hand so that every figure of its report can be summed by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from semtel_batch.parts import ANSWERS, LABELS, write_part
from semtel_batch.plans import (
    Alternative,
    CostLine,
    DataProfile,
    Estimate,
    Leg,
    Objective,
    Plan,
    Quality,
    seal,
)
from semtel_batch.records import (
    BatchState,
    Classifier,
    Doubt,
    Endpoint,
    EndpointKind,
    Label,
    Outcome,
    Progress,
    Receipt,
    Stage,
    Strategy,
    Tier,
    TierPrice,
    Usage,
)
from semtel_batch.rows import Generation, NewShard, Part, PlanState, Problem
from semtel_batch.store import Store

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def classifier(name: str, *labels: str) -> Classifier:
    return Classifier(
        name=name,
        description=f"{name} of a conversation",
        instructions="Read it.",
        labels=tuple(Label(name=label) for label in labels),
        version=f"b2:{name}",
    )


def price(tier: Tier, scale: str = "1") -> TierPrice:
    unit = Decimal(scale)
    return TierPrice(
        tier=tier,
        input_usd=Decimal(1) * unit,
        cached_usd=Decimal("0.1") * unit,
        cache_write_usd=Decimal("1.25") * unit,
        output_usd=Decimal(4) * unit,
        source="genai-prices 2026-10-30",
    )


def estimate(recipe: str, usd: str, *, tier: Tier = Tier.REALTIME, **strategy: Any) -> Estimate:
    amount = Decimal(usd)
    change = 0.108 if strategy.get("conversations_per_request", 1) > 1 else 0.0
    return Estimate(
        strategy=Strategy(recipe=recipe, tier=tier, **strategy),
        endpoint="openai",
        lines=(
            CostLine(
                part="classify",
                n_requests=3,
                usage=Usage(prompt_tokens=30_000, cached_tokens=10_000, completion_tokens=300),
                usd=amount * 3 / 4,
            ),
            CostLine(
                part="retry", n_requests=1, usage=Usage(prompt_tokens=900, completion_tokens=30), usd=amount * 1 / 4
            ),
        ),
        usd=amount,
        usd_high=amount * 5 / 4,
        time_s=86_400.0 if tier is Tier.BATCH else 95.0,
        quality=Quality(
            label_change=change, assumed=True, basis="Semantic Telemetry, 2025" if change else "by construction"
        ),
    )


def plan(**changes: Any) -> Plan:
    """Six conversations, five of them unique, two classifiers: ten items are asked and twelve answered."""
    chosen = estimate("packed-graded", "0.0320", tier=Tier.BATCH, conversations_per_request=5, doubt=Doubt.GRADER)
    naive = estimate("naive", "0.2400")
    batch = estimate("batch", "0.1200", tier=Tier.BATCH)
    made = Plan(
        id="p7f3a9",
        created_at=START,
        objective=Objective(deadline_s=90_000.0, budget_usd=Decimal(5), min_agreement=0.85),
        data=DataProfile(
            source="examples/conversations.jsonl",
            n_conversations=6,
            n_unique=5,
            encoding="o200k_base",
            text_tokens=31_204,
            median_tokens=410,
            p90_tokens=1_020,
            max_tokens=8_310,
        ),
        classifiers=(
            classifier("topic", "Technology", "Travel", "Health"),
            classifier("expertise", "Novice", "Expert"),
        ),
        grader=None,
        endpoints=(
            Endpoint(
                name="openai",
                kind=EndpointKind.OPENAI,
                base_url="https://api.openai.com/v1",
                model="gpt-6-luna",
                api_key_env="OPENAI_API_KEY",
            ),
        ),
        prices=(("openai", price(Tier.BATCH, "0.5")), ("openai", price(Tier.REALTIME))),
        legs=(Leg(number=0, classifiers=("topic", "expertise"), strategy=chosen.strategy, endpoint="openai"),),
        retry_tier=Tier.REALTIME,
        max_attempts=3,
        seed=7,
        chosen=chosen,
        alternatives=(
            Alternative(estimate=chosen, feasible=True),
            Alternative(estimate=naive, feasible=True, reason="costs $0.2080 more"),
            Alternative(estimate=batch, feasible=True, reason="costs $0.0880 more"),
            Alternative(
                estimate=replace(chosen, strategy=replace(chosen.strategy, conversations_per_request=20)),
                feasible=False,
                reason="changes 15.3 % of labels (assumed), more than --min-agreement 0.85 allows",
            ),
        ),
        naive_usd=Decimal("0.2400"),
        certified=False,
        warnings=("3 conversations are longer than the model's best range.",),
    )
    return seal(replace(made, **changes))


@dataclass
class Execution:
    """Writes a plan's execution into a store, step by step."""

    store: Store
    plan: Plan
    _n: int = field(default=0)

    def ask(self, stage: Stage, attempt: int, tier: Tier, n_requests: int, n_items: int = 5) -> int:
        """Cut a generation of one shard; gives the shard's id."""
        self._n += 1
        manifest = self.store.files(self.plan.id) / "shards" / f"m{self._n}.parquet"
        shard = NewShard(
            key=f"key{self._n}",
            classifiers=("topic", "expertise"),
            endpoint="openai",
            tier=tier,
            way="a-way",
            manifest=manifest,
            n_requests=n_requests,
            n_items=n_items,
            prompt_tokens=100,
            max_completion_tokens=10,
        )
        self.store.cut(self.plan.id, Generation(leg=0, stage=stage, attempt=attempt), [shard], START)
        return self.store.shards(self.plan.id)[-1].shard.id

    def hand_over(self, shard_id: int, after_s: float) -> None:
        shard = next(r.shard for r in self.store.shards(self.plan.id) if r.shard.id == shard_id)
        at = START + timedelta(seconds=after_s)
        self.store.intend(shard, at)
        self.store.note(shard, Receipt(input_file_id="file-1", batch_id="batch_1"), at)
        self.store.observe(
            shard, Progress(state=BatchState.WAITING, status="in_progress", n_completed=1, n_total=shard.n_requests), at
        )

    def answer(self, shard_id: int, answers: list[dict[str, Any]], usd: str, after_s: float) -> None:
        """Write one part; answers not told otherwise are answered after 1 s with 1,000 tokens in and 10 out."""
        self._n += 1
        folder = self.store.files(self.plan.id) / "parts"
        blank = dict.fromkeys(ANSWERS, None) | {
            "outcome": Outcome.ANSWERED.value,
            "n_tries": 1,
            "latency_s": 1.0,
            "prompt_tokens": 1_000,
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            "completion_tokens": 10,
            "reasoning_tokens": 0,
        }
        frame = pl.DataFrame([blank | {"request": i} | a for i, a in enumerate(answers)], schema=ANSWERS)
        paths = folder / f"a{self._n}.parquet", folder / f"l{self._n}.parquet"
        write_part(paths[0], frame, ANSWERS)
        write_part(paths[1], LABELS.to_frame(), LABELS)
        names = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens")
        self.store.add_part(
            self.plan.id,
            Part(
                shard_id=shard_id,
                answers=paths[0],
                labels=paths[1],
                n_requests=len(answers),
                n_items=len(answers) * 2,
                n_answered=len(answers) * 2,
                n_tries=int(frame["n_tries"].sum()),
                usage=Usage(**{name: int(frame[name].sum()) for name in names}),
                cost_usd=Decimal(usd),
                written_at=START + timedelta(seconds=after_s),
            ),
        )


def executed(project: Path, made: Plan | None = None, *, ended: bool = True) -> Store:
    """The whole way: a batch, a realtime retry, a grading pass, one reclassification; one item fails."""
    made = made or plan()
    store = Store(project)
    store.add_plan(made)
    run = Execution(store, made)
    store.start_plan(made.id, START)
    first = run.ask(Stage.CLASSIFY, 0, Tier.BATCH, 3)
    run.hand_over(first, 10.0)
    run.answer(first, [{"latency_s": None, "cached_tokens": 400}] * 2, "0.0100", 3_600.0)
    run.answer(
        first,
        [{"latency_s": None, "outcome": "expired", "error_code": "batch_expired", "completion_tokens": 0}],
        "0.0000",
        3_610.0,
    )
    if not ended:
        return store
    retry = run.ask(Stage.CLASSIFY, 1, Tier.REALTIME, 2)
    refused = {"outcome": "refused", "error_code": "content_filter", "status_code": 400, "error_message": "Not this."}
    run.answer(retry, [{"latency_s": 2.0, "n_tries": 3}, {"latency_s": 4.0, **refused}], "0.0050", 3_620.0)
    grade = run.ask(Stage.GRADE, 0, Tier.BATCH, 1)
    run.answer(grade, [{"latency_s": None}], "0.0020", 7_200.0)
    again = run.ask(Stage.RECLASSIFY, 0, Tier.REALTIME, 1)
    run.answer(again, [{"latency_s": 1.0, "reasoning_tokens": 4}], "0.0030", 7_210.0)
    store.set_problems(
        made.id, [Problem(row=4, classifier="topic", outcome=Outcome.REFUSED, detail="content_filter", attempts=2)]
    )
    store.end_plan(made.id, PlanState.DONE, START + timedelta(seconds=7_220))
    return store


def items(**first_item: Any) -> pl.DataFrame:
    """What `results.final_labels` gives for `executed`: row 0 stands for two conversations."""
    topics: list[str | None] = ["Technology", "Technology", "Travel", "Technology", None]
    skills = ["Novice", "Expert", "Novice", "Novice", "Novice"]
    rows = []
    for row, pair in enumerate(zip(topics, skills, strict=True)):
        for name, label in zip(("topic", "expertise"), pair, strict=True):
            rows.append(
                {
                    "row": row,
                    "weight": 2 if row == 0 else 1,
                    "classifier": name,
                    "label": label,
                    "how": "exact" if label else None,
                    "stage": "classify",
                    "outcome": "answered" if label else "refused",
                    "detail": None,
                    "checked": "correct",
                    "graded": "correct",
                    "origin": "packed+combined",
                }
            )
    rows[2] |= {"how": "near", "stage": "reclassify", "checked": "incorrect", "graded": "incorrect"}
    rows[2] |= {"origin": "reclassified"}
    rows[0] |= first_item
    schema = {"row": pl.UInt32, "weight": pl.UInt32} | dict.fromkeys(
        ("classifier", "label", "how", "stage", "outcome", "detail", "checked", "graded", "origin"), pl.String
    )
    return pl.DataFrame(rows, schema=schema)
