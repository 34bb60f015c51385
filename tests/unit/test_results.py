"""What the parts say in the end: which label wins, who shares it, what it cost, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_job import EXPERTISE, PLAN_ID, START, TOPIC, Job, classifier, job, packed, plan

from semtel_batch.parts import ANSWERS, LABELS, write_part
from semtel_batch.plans import Leg, Plan
from semtel_batch.records import Doubt, Outcome, Stage, Tier, Usage
from semtel_batch.results import (
    ENDS,
    fan_out,
    fan_out_detail,
    final_labels,
    given_labels,
    labels_of_failed,
    owed,
    read_labels,
    unanswered,
    unlabelled,
)
from semtel_batch.rows import Generation, NewShard, Part, Problem

C, G, R = Stage.CLASSIFY, Stage.GRADE, Stage.RECLASSIFY
TEXTS = ["user: a", "user: b", "user: a", "user: c"]  # c2 is c0 again: rows 0, 1 and 3 are unique
TIGHT = packed(2, doubt=Doubt.GRADER)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Job]:
    begun = job(tmp_path / "p", plan(TIGHT), TEXTS)
    yield begun
    begun.store.close()


def said(row: int, name: str, label: str | None, **more: Any) -> dict[str, Any]:
    outcome = more.get("outcome", Outcome.ANSWERED if label else Outcome.INVALID)
    return {
        "row": row,
        "classifier": name,
        "label": label,
        "outcome": outcome.value,
        "how": "exact" if label else "",
        "detail": more.get("detail"),
        "permanent": more.get("permanent", False),
        "request": more.get("request", 0),
        "slot": 1,
        "fingerprint": b"",
    }


def record(
    made: Job, stage: Stage, attempt: int, *items: dict[str, Any], tier: Tier = Tier.BATCH, leg: int = 0
) -> None:
    """One generation of one shard, read as these items; each of its requests cost 1000 in and 10 out."""
    requests = sorted({item["request"] for item in items})
    key = f"{PLAN_ID}-{leg}{stage.value[0]}{attempt}"
    folder = made.folder
    answers = pl.DataFrame(
        {"request": requests, "outcome": "answered", "model": f"m-{stage.value}", "n_tries": 1, "prompt_tokens": 1_000}
    ).with_columns(completion_tokens=10, cached_tokens=0, cache_write_tokens=0, reasoning_tokens=0)
    rest = [pl.lit(None, kind).alias(name) for name, kind in ANSWERS.items() if name not in answers.columns]
    write_part(folder / "answers" / f"{key}.parquet", answers.with_columns(rest), ANSWERS)
    write_part(folder / "labels" / f"{key}.parquet", pl.DataFrame(list(items), schema=LABELS), LABELS)
    shard = NewShard(
        key=key,
        classifiers=("topic", "expertise"),
        endpoint="main",
        tier=tier,
        way="w",
        manifest=folder / "manifests" / f"{key}.parquet",
        n_requests=len(requests),
        n_items=len(items),
        prompt_tokens=0,
        max_completion_tokens=0,
    )
    made.store.cut(PLAN_ID, Generation(leg=leg, stage=stage, attempt=attempt), [shard], START)
    part = Part(
        shard_id=made.store.shards(PLAN_ID)[-1].shard.id,
        answers=folder / "answers" / f"{key}.parquet",
        labels=folder / "labels" / f"{key}.parquet",
        n_requests=len(requests),
        n_items=len(items),
        n_answered=0,
        n_tries=len(requests),
        usage=Usage(),
        cost_usd=Decimal(0),
        written_at=START,
    )
    made.store.add_part(PLAN_ID, part)


def final(made: Job) -> dict[tuple[int, str], dict[str, Any]]:
    items = final_labels(made.store, made.plan)
    assert items.height == 3 * 2, "one row an item, whatever was read"
    return {(item["row"], item["classifier"]): item for item in items.to_dicts()}


# -- which label wins ----------------------------------------------------------------------------------------------


def test_before_anything_was_read_every_item_is_open(made: Job) -> None:
    items = final(made)
    assert {item["label"] for item in items.values()} == {None}
    assert {(row, items[row, name]["weight"]) for row, name in items} == {(0, 2), (1, 1), (3, 1)}
    assert fan_out(made.store, made.plan, final_labels(made.store, made.plan)).rows() == [
        (f"c{i}", None, None) for i in range(4)
    ]


def test_the_last_answer_wins_over_earlier_ones_and_over_later_failures(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"), said(1, "topic", None), said(3, "topic", None))
    record(made, C, 1, said(1, "topic", "Health"), said(3, "topic", None, detail="said 'Moon'"))
    record(made, C, 2, said(0, "topic", None), said(3, "topic", None, detail="said 'Sun'"))
    items = final(made)
    assert [items[row, "topic"]["label"] for row in (0, 1, 3)] == ["Travel", "Health", None]
    assert [items[row, "topic"]["outcome"] for row in (0, 1, 3)] == ["answered", "answered", "invalid"]
    assert [items[row, "topic"]["n_attempts"] for row in (0, 1, 3)] == [2, 2, 3]
    assert items[3, "topic"]["detail"] == "said 'Sun'"
    assert items[0, "expertise"]["n_attempts"] == 0


def test_a_reclassified_label_wins_over_the_packed_one(made: Job) -> None:
    record(made, C, 0, *(said(row, "topic", "Travel") for row in (0, 1, 3)))
    record(made, G, 0, said(0, "topic", "incorrect"), said(1, "topic", "incorrect"), said(3, "topic", "correct"))
    record(made, R, 0, said(0, "topic", "Health"), said(1, "topic", None))
    items = final(made)
    assert [items[row, "topic"]["label"] for row in (0, 1, 3)] == ["Health", "Travel", "Travel"]
    assert [items[row, "topic"]["stage"] for row in (0, 1, 3)] == ["reclassify", "classify", "classify"]
    assert [items[row, "topic"]["graded"] for row in (0, 1, 3)] == ["incorrect", "incorrect", "correct"]
    assert items[1, "topic"]["outcome"] == "answered", "the first label stays; that it is in doubt is said by graded"


def test_a_later_attempt_at_the_first_stage_does_not_beat_a_reclassified_label(made: Job) -> None:
    record(made, R, 0, said(0, "topic", "Health"))
    record(made, C, 5, said(0, "topic", "Travel"))
    assert final(made)[0, "topic"]["label"] == "Health"


def test_a_judgement_is_never_a_label(made: Job) -> None:
    record(made, G, 0, said(0, "topic", "correct"))
    assert final(made)[0, "topic"]["label"] is None


def test_one_doubt_among_several_judgements_is_doubt(made: Job) -> None:
    record(made, G, 0, said(0, "topic", "incorrect"))
    record(made, G, 1, said(0, "topic", "correct"))
    assert final(made)[0, "topic"]["graded"] == "incorrect"


def test_a_legs_labels_are_its_own(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"), said(1, "topic", None))
    record(made, C, 0, said(0, "expertise", "Novice"), leg=1)
    assert read_labels(made.store, made.plan, leg=1)["classifier"].to_list() == ["expertise"]
    assert read_labels(made.store, made.plan).height == 3
    assert given_labels(made.store, made.plan, 0).rows() == [(0, "topic", "Travel")]
    assert read_labels(made.store, made.plan, leg=2).schema == read_labels(made.store, made.plan).schema


def test_what_is_owed_is_open_and_not_the_last_word(made: Job) -> None:
    record(
        made,
        C,
        0,
        said(0, "topic", "Travel"),
        said(1, "topic", None),
        said(3, "topic", None, outcome=Outcome.REFUSED, permanent=True),
    )
    assert owed(read_labels(made.store, made.plan)).select("row", "classifier").rows() == [(1, "topic")]


# -- who shares it -------------------------------------------------------------------------------------------------


def test_every_conversation_gets_its_rows_labels_in_the_datas_order(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"), said(3, "expertise", "Novice"), said(0, "expertise", "Expert"))
    out = fan_out(made.store, made.plan, final_labels(made.store, made.plan))
    assert out.columns == ["conversation_id", "topic", "expertise"]
    assert out.rows() == [
        ("c0", "Travel", "Expert"),
        ("c1", None, None),
        ("c2", "Travel", "Expert"),
        ("c3", None, "Novice"),
    ]


@pytest.mark.parametrize("name", ["row", "first_row", "classifier", "outcome", "weight"])
def test_a_classifier_called_like_a_column_of_ours(tmp_path: Path, name: str) -> None:
    leg = Leg(number=0, classifiers=("label", name), strategy=TIGHT, endpoint="main")
    odd: Plan = plan(TIGHT, classifiers=(classifier("label", "A", "B"), classifier(name, "C", "D")), legs=(leg,))
    begun = job(tmp_path / "q", odd, TEXTS)
    record(begun, C, 0, said(0, "label", "A"), said(0, name, "D"))
    out = fan_out(begun.store, odd, final_labels(begun.store, odd))
    assert out.row(0) == ("c0", "A", "D")
    detail = fan_out_detail(begun.store, odd, final_labels(begun.store, odd))
    assert detail.select("conversation_id", "label", name, f"{name}_outcome").row(0) == ("c0", "A", "D", "answered")
    begun.store.close()


def test_detail_says_how_each_label_came_about_and_what_it_cost(made: Job) -> None:
    record(
        made, C, 0, said(0, "topic", "Travel"), said(0, "expertise", "Expert"), said(1, "topic", "Health", request=1)
    )
    record(made, G, 0, said(0, "topic", "incorrect"), said(1, "topic", "correct"))
    record(made, R, 0, said(0, "topic", "Technology"), tier=Tier.REALTIME)
    out = fan_out_detail(made.store, made.plan, final_labels(made.store, made.plan))
    first, second = out.row(0, named=True), out.row(1, named=True)
    assert out["conversation_id"].to_list() == ["c0", "c1", "c2", "c3"]
    assert (first["topic"], first["topic_stage"], first["topic_graded"]) == ("Technology", "reclassify", "incorrect")
    assert (first["topic_model"], first["topic_tier"], first["topic_how"]) == ("m-reclassify", "realtime", "exact")
    assert (first["topic_n_attempts"], first["expertise_n_attempts"]) == (2, 1)
    # realtime: 1000 · 1 + 10 · 4 a million for one item; batch: half of that, shared by the two items of request 0
    assert first["topic_cost_usd"] == Decimal("0.00104")
    assert first["expertise_cost_usd"] == Decimal("0.00026")
    assert second["topic_cost_usd"] == Decimal("0.00052")
    assert (second["expertise"], second["expertise_outcome"], second["expertise_cost_usd"]) == (None, None, None)
    assert set(out["strategy"]) == {"packed"}


# -- what went wrong -----------------------------------------------------------------------------------------------


def test_every_item_without_a_label_is_a_named_failure(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"), said(1, "topic", None, outcome=Outcome.REFUSED, detail="filter"))
    found = unanswered(final_labels(made.store, made.plan))
    assert len(found) == 5
    assert Problem(row=1, classifier="topic", outcome=Outcome.REFUSED, detail="filter", attempts=1) in found
    empty = next(p for p in found if (p.row, p.classifier) == (3, "topic"))
    assert (empty.outcome, empty.attempts) == (Outcome.ABANDONED, 0)
    assert empty.detail
    assert unlabelled(made.store, made.plan) == found


def test_what_ended_without_a_label_is_told_as_in_the_final_labels(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"), said(1, "topic", None, outcome=Outcome.INVALID, detail="Foo"))
    record(made, C, 1, said(1, "topic", None, outcome=Outcome.REFUSED, detail="filter", permanent=True))
    record(made, C, 2, said(0, "expertise", None, outcome=Outcome.EXPIRED), said(3, "topic", "Health"))
    found = unlabelled(made.store, made.plan)
    assert found == unanswered(final_labels(made.store, made.plan))
    twice = next(p for p in found if (p.row, p.classifier) == (1, "topic"))
    assert (twice.outcome, twice.detail, twice.attempts) == (Outcome.REFUSED, "filter", 2)
    assert {(p.row, p.classifier) for p in found}.isdisjoint({(0, "topic"), (3, "topic")})


def test_nothing_is_told_where_every_item_has_a_label(made: Job) -> None:
    every = [(row, name) for row in (0, 1, 3) for name in ("topic", "expertise")]
    record(made, C, 0, *(said(row, name, "Travel") for row, name in every))
    assert unlabelled(made.store, made.plan) == []


def test_of_conversations_that_never_failed_nothing_is_held(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"), said(1, "topic", None), said(1, "expertise", "Expert"))
    record(made, C, 1, said(1, "topic", "Health"))
    held = labels_of_failed(made.store, made.plan, 0)
    assert held.select("row", "classifier", "label", "attempt").rows() == [
        (1, "topic", None, 0),
        (1, "expertise", "Expert", 0),
        (1, "topic", "Health", 1),
    ]
    assert owed(held).rows() == owed(read_labels(made.store, made.plan, columns=ENDS)).rows() == []
    assert labels_of_failed(made.store, made.plan, 1).schema == held.schema


@pytest.mark.parametrize("columns", [LABELS, ENDS])
def test_only_the_columns_asked_for_are_read(made: Job, columns: pl.Schema) -> None:
    nothing = read_labels(made.store, made.plan, columns=columns)
    record(made, C, 0, said(0, "topic", "Travel"))
    read = read_labels(made.store, made.plan, columns=columns)
    assert read.schema == nothing.schema
    assert read.columns[: len(columns)] == columns.names()


def test_versions_do_not_matter_here_only_names(made: Job) -> None:
    record(made, C, 0, said(0, "topic", "Travel"))
    other = replace(made.plan, classifiers=(EXPERTISE, TOPIC))
    assert fan_out(made.store, other, final_labels(made.store, other)).columns == [
        "conversation_id",
        "expertise",
        "topic",
    ]
