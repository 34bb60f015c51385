"""Whatever a provider sends: every custom_id ends once, every item gets a verdict, and no exception but ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from fuzzing import CASES, ODD, TEXT, as_json, fuzz, spoilt, torn
from hypothesis import given
from hypothesis import strategies as st
from small_job import EXPERTISE, PLAN_ID, START, TOPIC, Job, job, packed, plan, texts

from semtel_batch.conversations import load_index
from semtel_batch.cutting import Asking, cut_shards
from semtel_batch.generations import Ask
from semtel_batch.intake import Intake
from semtel_batch.labels import Cleaner, read_answer
from semtel_batch.records import Answer, BatchState, Outcome, Progress, Stage, Tier, Usage
from semtel_batch.rows import Generation, ShardRow
from semtel_batch.shardfiles import custom_id
from semtel_batch.transport.batch_objects import (
    choose,
    created_at,
    is_upload_of,
    key_of,
    name_of,
    progress_of,
    rest_outcome,
    result_files,
)
from semtel_batch.transport.headers import parse_duration, read_allowances, reset_wait_s, retry_after_s
from semtel_batch.transport.replies import answer_from, parse, provider_error
from semtel_batch.transport.results import check_off, is_whole, lines_of, read_line
from semtel_batch.transport.verdicts import Verdict, can_be_asked_again, judge

IDS = ["k-0", "k-1", "k-2"]
CONTENT = '{"results": [{"id": 1, "topic": "Travel", "expertise": "Novice"}]}'
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-6-luna",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": CONTENT, "refusal": None},
        }
    ],
    "usage": {
        "prompt_tokens": 1_200,
        "completion_tokens": 30,
        "total_tokens": 1_230,
        "prompt_tokens_details": {"cached_tokens": 1_024, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 12},
    },
}
ERROR = {"error": {"message": "Too many.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
ERROR_AZURE = {
    "error": {"code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}
}


def row(name: str, response: Any, error: Any = None) -> dict[str, Any]:
    return {"id": "batch_req_1", "custom_id": name, "response": response, "error": error}


def response(status: int, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": "r", "body": body}


ROWS = [
    row("k-0", response(200, COMPLETION)),
    row("k-1", response(200, COMPLETION)),
    row("k-1", response(429, ERROR)),
    row("k-2", response(400, ERROR_AZURE)),
    row("k-2", None, {"code": "batch_expired", "message": "This request could not be executed."}),
    row("k-0", response(0, None)),
    row("k-9", response(200, COMPLETION)),
]
LINES = st.one_of(
    st.sampled_from(ROWS).flatmap(spoilt).map(as_json),
    st.sampled_from(ROWS).flatmap(spoilt).map(as_json).flatmap(torn),
    st.sampled_from(ROWS).map(as_json),
    ODD.map(as_json),
    st.binary(max_size=40),
)


def check_answer(answer: Answer) -> None:
    """What the rest of the house relies on: fields that can be written into a part, and content where it is said."""
    assert isinstance(answer.outcome, Outcome)
    assert (answer.content is not None) == (answer.outcome in (Outcome.ANSWERED, Outcome.TRUNCATED))
    assert answer.status_code is None or 0 <= answer.status_code < 2**16
    for name in ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens"):
        assert 0 <= getattr(answer.usage, name) < 2**32
        assert type(getattr(answer.usage, name)) is int
    for text in (answer.content, answer.model, answer.error_code, answer.error_message):
        assert text is None or (isinstance(text, str) and text.encode() is not None)
    assert can_be_asked_again(answer) in (True, False)


def test_there_are_ten_thousand_cases() -> None:
    assert sum(CASES.values()) >= 10_000


# -- result files ----------------------------------------------------------------------------------------------


@fuzz("result lines")
@given(st.lists(LINES, max_size=6), st.sampled_from(Outcome))
def test_every_custom_id_ends_once(lines: list[bytes], rest: Outcome) -> None:
    answers = list(check_off(lines, IDS, rest if rest is not Outcome.ANSWERED else Outcome.MISSING))
    assert sorted(answer.custom_id for answer in answers) == IDS
    for answer in answers:
        if answer.status_code is not None or answer.error_code is not None:
            check_answer(answer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@fuzz("result files")
@given(
    st.lists(LINES | st.sampled_from([b"", b"\r", b" "]), max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b""]),
    st.data(),
)
def test_a_file_of_any_bytes_is_read(folder: Path, lines: list[bytes], end: bytes, data: st.DataObject) -> None:
    path = folder / "output.jsonl"
    content = data.draw(torn(end.join(lines)))
    path.write_bytes(content)
    assert is_whole(path) in (True, False)
    assert all(line.strip() for line in lines_of([path]))
    answers = list(check_off(lines_of([path, path]), IDS, Outcome.EXPIRED, done={"k-9"}))
    assert sorted(answer.custom_id for answer in answers) == IDS


@fuzz("replies")
@given(
    st.sampled_from([COMPLETION, ERROR, ERROR_AZURE]).flatmap(spoilt).map(as_json).flatmap(torn)
    | st.binary(max_size=60),
    st.sampled_from([200, 200, 200, 400, 401, 404, 409, 413, 429, 500, 503]),
    st.none() | st.sampled_from(["true", "false", "maybe"]),
)
def test_a_reply_of_any_shape_is_an_answer(body: bytes, status: int, should_retry: str | None) -> None:
    read = parse(body)
    answer = answer_from("k-0", status, read)
    assert answer.custom_id == "k-0"
    check_answer(answer)
    assert judge(status, provider_error(read), should_retry) in Verdict


# -- intake ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    begun = job(tmp_path_factory.mktemp("intake") / "p", plan(packed(2)), texts(6))
    with closing(begun.store):
        yield begun


@pytest.fixture(scope="module")
def shard(made: Job) -> ShardRow:
    leg = made.plan.legs[0]
    generation = Generation(leg=0, stage=Stage.CLASSIFY, attempt=0)
    ask = Ask(classifiers=leg.classifiers, rows=np.arange(6, dtype=np.uint32), per_request=2)
    asking = Asking(plan=made.plan, leg=leg, generation=generation, ask=ask, tier=Tier.BATCH)
    shards = cut_shards(asking, load_index(made.conversations), 0, made.folder / "manifests")
    made.store.cut(PLAN_ID, generation, shards, START)
    return made.store.shards(PLAN_ID)[-1]


@fuzz("intake")
@given(st.lists(LINES, max_size=6))
def test_every_item_of_a_shard_ends(made: Job, shard: ShardRow, lines: list[bytes]) -> None:
    ids = [custom_id(shard.shard, request) for request in range(shard.shard.n_requests)]
    ours = [line.replace(b'"k-', f'"{shard.shard.key}-'.encode()) for line in lines]
    intake = Intake(made.store, made.plan, shard, made.conversations, {})
    part = intake.take(list(check_off(ours, ids, Outcome.MISSING)), START)
    assert (part.n_requests, part.n_items) == (3, 12)
    assert part.cost_usd.is_finite()
    made.store.replace_parts(PLAN_ID, part)


CLEANERS = {c.name: Cleaner(c) for c in (TOPIC, EXPERTISE)}
RESULTS: dict[str, Any] = {"results": [{"id": i, "topic": "Travel", "expertise": "Expert"} for i in (1, 2, 3)]}
CONTENTS = (
    spoilt(RESULTS).map(lambda value: as_json(value).decode("utf-8", "replace"))
    | spoilt(RESULTS).map(repr)
    | spoilt(RESULTS)
    .map(json.dumps)
    .flatmap(lambda text: torn(text.encode()))
    .map(lambda b: b.decode("utf-8", "replace"))
    | spoilt(RESULTS).map(json.dumps).map(lambda text: f"Sure!\n```json\n{text}\n```")
    | TEXT
)


@fuzz("answers")
@given(CONTENTS, st.integers(1, 4), st.sampled_from([Outcome.ANSWERED, Outcome.TRUNCATED]))
def test_every_item_of_an_answer_gets_one_verdict(content: str, n: int, outcome: Outcome) -> None:
    verdicts = read_answer(Answer(custom_id="k-0", outcome=outcome, content=content), n, CLEANERS)
    assert [(v.slot, v.classifier) for v in verdicts] == [(slot, name) for slot in range(1, n + 1) for name in CLEANERS]
    for v in verdicts:
        assert (v.label is None) == (v.outcome is not Outcome.ANSWERED)
        assert v.label is None or v.label in CLEANERS[v.classifier].labels


# -- batches and headers ---------------------------------------------------------------------------------------

BATCH: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": {
        "object": "list",
        "data": [{"code": "token_limit_exceeded", "line": None, "message": "m", "param": None}],
    },
    "input_file_id": "file-1",
    "output_file_id": "file-2",
    "error_file_id": "file-3",
    "completion_window": "24h",
    "status": "completed",
    "created_at": 1_790_000_000,
    "metadata": {"semtel_key": "k"},
    "request_counts": {"total": 10, "completed": 9, "failed": 1},
    "filename": "k.jsonl",
    "bytes": 12,
}
STATUSES = ["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelled", "Validating"]


@fuzz("batches")
@given(st.sampled_from(STATUSES).flatmap(lambda status: spoilt({**BATCH, "status": status})))
def test_a_batch_of_any_shape_stands_somewhere(batch: Any) -> None:
    if not isinstance(batch, dict):
        return
    read = orjson.loads(orjson.dumps(parse(as_json(batch)) or {}))
    progress = progress_of(read)
    assert isinstance(progress, Progress) and progress.state in BatchState
    assert all(type(n) is int and 0 <= n < 2**63 for n in (progress.n_completed, progress.n_failed, progress.n_total))
    assert all(told is None or isinstance(told, str) for told in (progress.error_code, progress.error_message))
    assert all(isinstance(name, str) and name for name in result_files(read))
    assert rest_outcome(read) in Outcome
    assert key_of(read) is None or isinstance(key_of(read), str)
    assert name_of(read) is None or isinstance(name_of(read), str)
    assert created_at(read) is None or isinstance(created_at(read), float)
    chosen, too_many = choose([read, BATCH, {**BATCH, "id": "batch_0", "status": "in_progress"}])
    assert chosen is not None and chosen not in too_many
    assert is_upload_of(read, "k.jsonl", 12) in (True, False)


VALUES = st.sampled_from(
    [
        "0",
        "-1",
        "60",
        "6m0s",
        "1h2m3s",
        "8.64s",
        "6ms",
        "120",
        "",
        "soon",
        "٣",
        "²",
        "9" * 400,
        "9" * 5_000,
        "1e9",
        "nan",
        "Sun, 22 Nov 2026 12:00:10 GMT",
        "Sun, 22 Nov 2026 12:00:10",
        "22 Nov 99999 12:00:00 +9999",
        "1 Jan 2026 -99999999",
    ]
) | st.text(max_size=12)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["retry-after", "retry-after-ms"]
        + [f"x-ratelimit-{kind}-{of}" for kind in ("limit", "remaining", "reset") for of in ("requests", "tokens")]
        + ["x-ratelimit-remaining-project-tokens", "x-ratelimit-limit-project-tokens"]
    ),
    VALUES,
    max_size=8,
)


@fuzz("headers")
@given(HEADERS)
def test_headers_of_any_kind_give_finite_waits(headers: dict[str, str]) -> None:
    allowances = read_allowances(headers)
    waits = [retry_after_s(headers, datetime(2026, 11, 22, 12, tzinfo=UTC)), reset_wait_s(allowances, refills=False)]
    waits += [parse_duration(value) for value in headers.values()]
    assert all(wait is None or 0 <= wait < float("inf") for wait in waits)
    for allowance in (allowances.requests, allowances.tokens):
        assert allowance is None or (allowance.limit > 0 and allowance.remaining >= 0)


def test_a_line_of_ours_is_read_as_it_is() -> None:
    answer = read_line(as_json(ROWS[0]))
    assert answer is not None and (answer.outcome, answer.content) == (Outcome.ANSWERED, CONTENT)
    assert answer.usage == Usage(
        prompt_tokens=1_200, cached_tokens=1_024, completion_tokens=30, reasoning_tokens=12, cache_write_tokens=0
    )
