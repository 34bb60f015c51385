"""Answers in, parts out: what was paid, how each item ended, and what need not be asked again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from small_job import EXPERTISE, PLAN_ID, START, TOPIC, Job, job, packed, plan, texts

from semtel_batch.conversations import load_index
from semtel_batch.cutting import Asking, cut_shards
from semtel_batch.generations import Ask
from semtel_batch.intake import Intake, Lot, judged_labels
from semtel_batch.parts import ANSWERS, LABELS, MANIFEST, read_parts
from semtel_batch.records import Answer, Outcome, Stage, Tier, Usage
from semtel_batch.reuse import find_answered
from semtel_batch.rows import Generation, Part, ShardRow
from semtel_batch.shardfiles import custom_id


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Job]:
    begun = job(tmp_path / "p", plan(packed(2)), texts(5))
    yield begun
    begun.store.close()


def cut(made: Job, stage: Stage = Stage.CLASSIFY, per_request: int = 2, rows: Any = range(5)) -> ShardRow:
    leg = made.plan.legs[0]
    generation = Generation(leg=0, stage=stage, attempt=0)
    ask = Ask(classifiers=leg.classifiers, rows=np.asarray(rows, dtype=np.uint32), per_request=per_request)
    asking = Asking(plan=made.plan, leg=leg, generation=generation, ask=ask, tier=Tier.BATCH)
    shards = cut_shards(asking, load_index(made.conversations), 0, made.folder / "manifests")
    made.store.cut(PLAN_ID, generation, shards, START)
    return made.store.shards(PLAN_ID)[-1]


def intake(made: Job, row: ShardRow, judged: Any = None) -> Intake:
    return Intake(made.store, made.plan, row, made.conversations, judged or {})


def answer(row: ShardRow, request: int, *results: dict[str, object], **changes: Any) -> Answer:
    usage = Usage(prompt_tokens=1_000, cached_tokens=200, cache_write_tokens=100, completion_tokens=50)
    content = orjson.dumps({"results": list(results)}).decode()
    given = Answer(
        custom_id=custom_id(row.shard, request),
        outcome=Outcome.ANSWERED,
        content=content,
        usage=usage,
        model="gpt-6-luna-2026",
        status_code=200,
    )
    return replace(given, **changes)


def both(number: int, topic: str = "Travel", expertise: str = "Expert") -> dict[str, object]:
    return {"id": number, "topic": topic, "expertise": expertise}


def labels(part: Part) -> pl.DataFrame:
    return read_parts([part.labels], LABELS)


def members(row: ShardRow, request: int) -> list[int]:
    manifest = read_parts([row.manifest], MANIFEST)
    return manifest.filter(pl.col("request") == request).sort("slot")["row"].to_list()


# -- what was paid -------------------------------------------------------------------------------------------------


def test_usage_and_cost_are_summed_by_the_tiers_price(made: Job) -> None:
    row = cut(made)
    part = intake(made, row).take([answer(row, 0, both(1), both(2), n_tries=3), answer(row, 2, both(1))], START)
    assert part.usage == Usage(prompt_tokens=2_000, cached_tokens=400, cache_write_tokens=200, completion_tokens=100)
    # batch: 0.5 in, 0.05 cached, 0.625 written, 2 out a million → 1400 · 0.5 + 400 · 0.05 + 200 · 0.625 + 100 · 2
    assert part.cost_usd == Decimal(700 + 20 + 125 + 200) / 1_000_000
    assert (part.n_requests, part.n_tries, part.n_items) == (2, 4, 2 * (len(members(row, 0)) + len(members(row, 2))))
    assert made.store.parts(PLAN_ID) == [part]


def test_a_failure_that_was_billed_is_paid_and_one_that_was_not_is_free(made: Job) -> None:
    row = cut(made)
    refused = answer(row, 0, outcome=Outcome.REFUSED, content=None)
    free = Answer(custom_id=custom_id(row.shard, 1), outcome=Outcome.EXPIRED, error_code="batch_expired")
    part = intake(made, row).take([refused, free], START)
    assert part.usage.prompt_tokens == 1_000
    assert part.n_answered == 0


def test_what_was_said_is_kept_with_the_answer(made: Job) -> None:
    row = cut(made)
    said = answer(row, 1, both(1), latency_s=1.5)
    part = intake(made, row).take([said], START)
    (kept,) = read_parts([part.answers], ANSWERS).rows(named=True)
    assert (kept["request"], kept["outcome"], kept["content"]) == (1, "answered", said.content)
    assert (kept["model"], kept["status_code"], kept["latency_s"]) == ("gpt-6-luna-2026", 200, 1.5)


# -- how each item ended -------------------------------------------------------------------------------------------


def test_labels_stand_at_the_rows_that_the_manifest_names(made: Job) -> None:
    row = cut(made)
    first, second = members(row, 0)
    part = intake(made, row).take([answer(row, 0, both(2, "Health"), both(1, "technology"))], START)
    found = {(r["row"], r["classifier"]): (r["label"], r["outcome"], r["slot"]) for r in labels(part).to_dicts()}
    assert found == {
        (first, "topic"): ("Technology", "answered", 1),
        (first, "expertise"): ("Expert", "answered", 1),
        (second, "topic"): ("Health", "answered", 2),
        (second, "expertise"): ("Expert", "answered", 2),
    }


def test_every_item_of_a_request_ends_whatever_the_answer_says(made: Job) -> None:
    row = cut(made)
    part = intake(made, row).take([answer(row, 0, {"id": 1, "topic": "Moon"}, both(9))], START)
    ended = labels(part).sort("slot", "classifier")
    assert ended.select("slot", "classifier", "outcome").rows() == [
        (1, "expertise", "missing"),
        (1, "topic", "invalid"),
        (2, "expertise", "missing"),
        (2, "topic", "missing"),
    ]
    assert "Moon" in ended["detail"][1]
    assert part.n_answered == 0


PERMANENT = [(Outcome.REFUSED, 200), (Outcome.ERRORED, 400), (Outcome.ERRORED, 413), (Outcome.ERRORED, 422)]
PASSING = [
    (Outcome.ERRORED, 429),
    (Outcome.ERRORED, 500),
    (Outcome.ERRORED, 503),
    (Outcome.ERRORED, None),
    (Outcome.EXPIRED, None),
    (Outcome.CANCELLED, None),
    (Outcome.MISSING, None),
    (Outcome.TRUNCATED, 200),
]


@pytest.mark.parametrize(("outcome", "status"), [*PERMANENT, *PASSING])
@pytest.mark.parametrize("n", [1, 2])
def test_the_last_word_is_only_what_a_request_alone_was_told(
    made: Job, outcome: Outcome, status: int | None, n: int
) -> None:
    row = cut(made, per_request=n)
    request = next(i for i in range(5) if len(members(row, i)) == n)
    told = answer(
        row, request, outcome=outcome, status_code=status, content=None, error_code="why", error_message="because"
    )
    ended = labels(intake(made, row).take([told], START))
    assert ended["outcome"].unique().to_list() == [outcome.value]
    assert ended["permanent"].unique().to_list() == [n == 1 and (outcome, status) in PERMANENT]
    assert ended["label"].null_count() == ended.height == 2 * n
    assert ended["detail"].unique().to_list() == ["why: because"]


def test_equal_answers_are_read_alike_but_never_for_another_number_of_conversations(made: Job) -> None:
    row = cut(made)  # 2, 2 and 1 conversations
    (one,) = [request for request in range(3) if len(members(row, request)) == 1]
    pair, other = [request for request in range(3) if request != one]
    taking = intake(made, row)
    given = {n: answer(row, n, both(1, "Technology"), both(2, "Travel")) for n in range(3)}
    cut_off = replace(given[other], outcome=Outcome.TRUNCATED, content='{"results": [')

    def topics(*answers: Answer) -> list[tuple[Any, ...]]:
        read = labels(taking.take(answers, START)).filter(pl.col("classifier") == "topic")
        return read.select("request", "slot", "label", "outcome").rows()

    of_pair = [(pair, 1, "Technology", "answered"), (pair, 2, "Travel", "answered")]
    of_one = [(one, 1, "Technology", "answered")]
    of_other = [(other, 1, None, "truncated"), (other, 2, None, "truncated")]
    assert topics(given[pair], given[one], cut_off) == of_pair + of_one + of_other


def test_an_invalid_answer_is_never_the_last_word(made: Job) -> None:
    row = cut(made, per_request=1)
    ended = labels(intake(made, row).take([answer(row, 0, both(1, "Moon", "Sun"))], START))
    assert not ended["permanent"].any()


def test_a_providers_essay_is_shortened(made: Job) -> None:
    row = cut(made)
    told = answer(row, 0, outcome=Outcome.ERRORED, status_code=500, error_code=None, error_message="x" * 9_999)
    ended = labels(intake(made, row).take([replace(told, content=None)], START))
    assert ended["detail"].str.len_chars().max() == 200


def test_the_grader_answers_with_judgements(made: Job) -> None:
    row = cut(made, Stage.GRADE)
    part = intake(made, row).take(
        [answer(row, 0, both(1, "correct", "incorrect"), both(2, "Travel", "CORRECT"))], START
    )
    ended = labels(part).sort("slot", "classifier", descending=[False, True])
    assert ended["label"].to_list() == ["correct", "incorrect", None, "correct"]
    assert ended["outcome"].to_list() == ["answered", "answered", "invalid", "answered"]


# -- going on ------------------------------------------------------------------------------------------------------


def test_what_is_registered_is_done_for_the_next_process_too(made: Job) -> None:
    row = cut(made)
    first = intake(made, row)
    assert (first.done(), first.n_done) == (frozenset(), 0)
    first.take([answer(row, 0, both(1), both(2))], START)
    first.take([answer(row, 2, both(1))], START)
    again = intake(made, row)
    assert again.done() == first.done() == {custom_id(row.shard, 0), custom_id(row.shard, 2)}
    assert again.n_done == 2
    part = again.take([answer(row, 1, both(1), both(2))], START)
    assert part.answers.name.endswith(".00003.parquet"), "no part is written over"
    assert again.n_done == 3


def test_a_part_that_was_written_but_not_registered_does_not_count(made: Job) -> None:
    row = cut(made)
    part = intake(made, row).take([answer(row, 0, both(1), both(2))], START)
    stray = part.labels.with_name(part.labels.name.replace("00001", "00002"))
    stray.write_bytes(b"half a file")
    again = intake(made, row)
    assert again.n_done == 1
    assert again.take([answer(row, 1, both(1), both(2))], START).labels == stray
    assert labels(made.store.parts(PLAN_ID)[1]).height == 2 * len(members(row, 1))


def test_finishing_merges_the_parts_and_keeps_their_sums(made: Job) -> None:
    row = cut(made)
    taken = intake(made, row)
    old = [taken.take([answer(row, i, *(both(k + 1) for k in range(len(members(row, i)))))], START) for i in range(3)]
    before = pl.concat([labels(part) for part in old])
    taken.finish(made.store, START)
    (merged,) = made.store.parts(PLAN_ID)
    assert merged.usage == sum((part.usage for part in old), Usage())
    assert merged.cost_usd == sum(part.cost_usd for part in old)
    assert (merged.n_requests, merged.n_items, merged.n_answered, merged.n_tries) == (3, 10, 10, 3)
    assert labels(merged).equals(before)
    assert [path.name for path in (made.folder / "labels").iterdir()] == [merged.labels.name]
    assert [path.name for path in (made.folder / "answers").iterdir()] == [merged.answers.name]
    assert intake(made, row).n_done == taken.n_done == 3


def test_a_single_part_stays_as_it_is(made: Job) -> None:
    row = cut(made)
    taken = intake(made, row)
    part = taken.take([answer(row, 0, both(1), both(2))], START)
    taken.finish(made.store, START)
    assert made.store.parts(PLAN_ID) == [part]
    assert part.labels.exists()


# -- fingerprints --------------------------------------------------------------------------------------------------


def test_what_was_answered_is_found_again_by_its_fingerprint(made: Job) -> None:
    row = cut(made)
    first, second = members(row, 0)
    intake(made, row).take(
        [answer(row, 0, both(1, "Travel"), {"id": 2, "topic": "Moon", "expertise": "Novice"})], START
    )
    rows = np.arange(5, dtype=np.uint32)

    def found(way: str, *classifiers: Any) -> set[tuple[int, str, str]]:
        frame = find_answered(made.store, way, classifiers, rows, made.conversations, {})
        assert frame.schema == LABELS
        return set(frame.select("row", "classifier", "label").rows())

    answers = {(first, "topic", "Travel"), (first, "expertise", "Expert"), (second, "expertise", "Novice")}
    assert found(row.way, TOPIC, EXPERTISE) == answers
    assert found(row.way, EXPERTISE) == {item for item in answers if item[1] == "expertise"}
    assert found("another way", TOPIC, EXPERTISE) == set()
    assert found(row.way, replace(TOPIC, version="b2:topic-2")) == set(), "another version is another question"


def test_a_judgement_belongs_to_the_label_it_judged(made: Job) -> None:
    row = cut(made, Stage.GRADE)
    first, second = members(row, 0)
    given = pl.DataFrame(
        {"row": [first, second] * 2, "classifier": ["topic"] * 2 + ["expertise"] * 2, "label": ["Travel"] * 4}
    )
    judged = judged_labels(given)
    intake(made, row, judged).take(
        [answer(row, 0, both(1, "correct", "correct"), both(2, "correct", "correct"))], START
    )
    rows = np.array([first], dtype=np.uint32)
    same = find_answered(made.store, row.way, [TOPIC], rows, made.conversations, judged)
    other = find_answered(made.store, row.way, [TOPIC], rows, made.conversations, {(first, "topic"): "Health"})
    assert (same["label"].to_list(), other.height) == (["correct"], 0)


def test_parts_of_several_tasks_never_have_one_name(made: Job) -> None:
    row = cut(made, per_request=1, rows=range(5))
    names = []
    for first, requests in ((100_000, (0, 1)), (0, (2, 3, 4))):
        taking = Intake(made.store, made.plan, row, made.conversations, {}, Lot(first))
        names += [taking.take([answer(row, request, both(1))], START).answers.name for request in requests]
    assert [int(name.split(".")[1]) for name in names] == [100_001, 100_002, 1, 2, 3]
    assert intake(made, row).n_done == 5
