"""The sandbox's files and batches: the objects, the status machine, the validation, both result files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch
from sandbox_requests import chat, jsonl, line

from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings

STILL = Settings(
    model_behind="scripted",
    time_scale=0.0,  # time moves only when it is told to
    validating_s=10,
    in_progress_s=100,
    finalizing_s=10,
    cancelling_s=60,
)
WINDOW_S = 86_400


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[SandboxHandle]:
    with running(STILL) as handle:
        yield handle


@pytest.fixture
def sandbox(running_sandbox: SandboxHandle) -> Iterator[SandboxHandle]:
    """A sandbox with nothing in it; what a test changes of its settings is undone."""
    running_sandbox.reset()
    yield running_sandbox
    changed = ("enqueued_tokens", "batches_per_hour", "max_batch_requests", "max_file_bytes", "empty_error_file")
    changed += ("unexecuted_in_error_file", "early_file_check", "in_progress_s", "faults", "strict_upload")
    running_sandbox.configure(**{name: getattr(STILL, name) for name in changed})


@pytest.fixture
def client(sandbox: SandboxHandle) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0) as client:
        yield client


def upload(client: OpenAI, content: bytes, name: str = "shard.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="batch").id


def start(client: OpenAI, lines: list[Any], **more: Any) -> Batch:
    given: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return client.batches.create(input_file_id=upload(client, jsonl(lines)), **given)


def results(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id
    return [json.loads(row) for row in client.files.content(file_id).content.splitlines()]


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def test_a_file_object_is_the_real_one_and_lasts_thirty_days(client: OpenAI, sandbox: SandboxHandle) -> None:
    raw = client.files.with_raw_response.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    file = json.loads(raw.content)
    assert set(file) == {
        "object", "id", "purpose", "filename", "bytes", "created_at", "expires_at", "status", "status_details",
    }  # fmt: skip
    assert (file["object"], file["bytes"], file["filename"], file["status"]) == ("file", 3, "a.jsonl", "processed")
    assert file["expires_at"] - file["created_at"] == 2_592_000
    assert len(file["id"].removeprefix("file-")) == 22
    assert client.files.content(file["id"]).content == b"{}\n"
    sandbox.advance(2_592_000)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file["id"])


def test_files_can_be_listed_newest_first_and_deleted(client: OpenAI) -> None:
    ids = [upload(client, b"{}\n", f"{number}.jsonl") for number in range(5)]
    client.files.create(file=("other.txt", b"x"), purpose="user_data")
    assert [file.id for file in client.files.list(purpose="batch", limit=2)] == ids[::-1]  # pages by itself
    first = client.files.list(purpose="batch", limit=2)
    assert first.has_more
    assert [file.id for file in client.files.list(purpose="batch", order="asc")] == ids
    assert client.files.delete(ids[0]).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            call(ids[0])


def test_uploads_that_cannot_be_a_batch_are_refused(client: OpenAI, sandbox: SandboxHandle) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Invalid file format for Batch API\. Must be \.jsonl"):
        upload(client, b"{}\n", "shard.txt")
    sandbox.configure(max_file_bytes=100)
    with pytest.raises(openai.BadRequestError, match="File is too large"):
        upload(client, b"x" * 101)
    upload(client, b"x" * 100)
    with pytest.raises(openai.BadRequestError, match="is not one of"):
        client.files.create(file=("a.jsonl", b"x"), purpose="fun")  # type: ignore[arg-type]
    assert sandbox.books()["files_uploaded"] == 1
    sandbox.configure(strict_upload=True)
    with pytest.raises(openai.BadRequestError, match="Invalid file format"):
        upload(client, b"not json\n")


def test_a_new_batch_is_the_real_one_even_for_a_file_that_is_not_there(client: OpenAI, sandbox: SandboxHandle) -> None:
    raw = client.batches.with_raw_response.create(
        input_file_id="file-nowhere", endpoint="/v1/chat/completions", completion_window="24h", metadata={"key": "k"}
    )
    body = json.loads(raw.content)
    assert set(body) == {
        "id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status", "output_file_id",
        "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at",
        "expired_at", "cancelling_at", "cancelled_at", "request_counts", "usage", "metadata",
    }  # fmt: skip
    assert body["status"] == "validating"
    assert body["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert body["expires_at"] - body["created_at"] == WINDOW_S
    assert len(body["id"].removeprefix("batch_")) == 32
    assert body["metadata"] == {"key": "k"}
    sandbox.advance(10)
    failed = client.batches.retrieve(body["id"])
    assert failed.status == "failed"
    assert failed.errors is not None
    problem = (failed.errors.data or [])[0]
    assert (problem.code, problem.param, problem.line) == ("invalid_request", "file_id", None)
    assert "Cannot find file file-nowhere" in (problem.message or "")


def test_a_batch_goes_its_way_by_the_clock(client: OpenAI, sandbox: SandboxHandle) -> None:
    batch = start(client, [line(str(number)) for number in range(10)])
    seen = [batch.status]
    for seconds in (9, 2, 50, 50, 8, 5):
        sandbox.advance(seconds)
        batch = client.batches.retrieve(batch.id)
        seen.append(batch.status)
        if seconds == 50 and batch.status == "in_progress":
            assert counts(batch) == (10, 5, 0)
    assert seen == ["validating", "validating", "in_progress", "in_progress", "finalizing", "finalizing", "completed"]
    assert counts(batch) == (10, 10, 0)
    made = batch.created_at
    assert (batch.in_progress_at, batch.finalizing_at, batch.completed_at) == (made + 10, made + 110, made + 120)
    assert (batch.failed_at, batch.expired_at, batch.cancelled_at) == (None, None, None)
    assert batch.error_file_id is None
    rows = results(client, batch.output_file_id)
    assert sorted(row["custom_id"] for row in rows) == sorted(map(str, range(10)))
    assert [row["custom_id"] for row in rows] != list(map(str, range(10)))  # order is not kept
    assert all(set(row) == {"id", "custom_id", "response", "error"} for row in rows)
    assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in rows)
    assert set(rows[0]["response"]) == {"status_code", "request_id", "body"}
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(row["response"]["body"]["usage"]["prompt_tokens"] for row in rows)
    assert sandbox.books()["requests"] == {"distinct": 10, "asked": 10, "billed": 10, "billed_twice": 0}


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        ("{not json", "invalid_json_line", None),
        (line("x", custom_id=None), "missing_required_parameter", "custom_id"),
        (line("x", method=None), "missing_required_parameter", "method"),
        (line("x", url=None), "missing_required_parameter", "url"),
        (line("x", body=None), "missing_required_parameter", "body"),
        (line("x", {"model": "gpt-4.1-mini"}), "missing_required_parameter", "body.messages"),
        (line("x", {"messages": []}), "invalid_request", "body.model"),
        (line("x", url="/v1/embeddings"), "invalid_url", "url"),
        (line("x", chat("x", model="gpt-17")), "model_not_found", "body.model"),
        (line("x", chat("x", model="gpt-6-luna")), "mismatched_model", "body.model"),
        (line("x", chat("x", stream=True)), "streaming_unsupported", "body.stream"),
        (line("good"), "duplicate_custom_id", "custom_id"),
    ],
)  # fmt: skip
def test_one_bad_line_fails_the_whole_batch(
    client: OpenAI, sandbox: SandboxHandle, bad: Any, code: str, param: str | None
) -> None:
    batch = start(client, [line("good"), bad])
    sandbox.advance(WINDOW_S)
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(e.code, e.param, e.line) for e in batch.errors.data or []] == [(code, param, 2)]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert sandbox.books()["requests"]["billed"] == 0


def test_several_bad_lines_are_told_together_and_an_empty_file_is_one(client: OpenAI, sandbox: SandboxHandle) -> None:
    several = start(client, ["{", line("a"), line("a"), line("b", chat("x", stream=True))])
    empty = start(client, [])
    sandbox.advance(10)
    told = client.batches.retrieve(several.id).errors
    assert told is not None
    assert [(e.code, e.line) for e in told.data or []] == [
        ("invalid_json_line", 1),
        ("duplicate_custom_id", 3),
        ("streaming_unsupported", 4),
    ]
    told = client.batches.retrieve(empty.id).errors
    assert told is not None
    assert [(e.code, e.line) for e in told.data or []] == [("empty_file", None)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoint": "/v1/decisions"}, "Supported values are"),
        ({"completion_window": "1h"}, "Supported values are: '24h'"),
        ({"metadata": {"tags": ["a"]}}, "metadata.tags"),
        ({"metadata": {str(i): "" for i in range(17)}}, "at most 16 properties"),
        ({"metadata": {"k": "x" * 513}}, "maximum length 512"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "between 3600 and 2592000"),
    ],
)
def test_creation_is_refused_at_once_for_wrong_parameters(
    client: OpenAI, sandbox: SandboxHandle, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        start(client, [line("a")], **changes)
    assert words in str(caught.value)
    assert sandbox.books()["batches_created"] == 0


def test_failed_lines_go_to_the_error_file_and_all_failed_is_still_completed(
    client: OpenAI, sandbox: SandboxHandle
) -> None:
    wrong = chat("user: x", temperature=9)
    mixed = start(client, [line("good"), line("wrong", wrong)])
    hopeless = start(client, [line("wrong", wrong)])
    sandbox.advance(120)
    mixed, hopeless = client.batches.retrieve(mixed.id), client.batches.retrieve(hopeless.id)
    assert counts(mixed) == (2, 1, 1)
    assert [row["custom_id"] for row in results(client, mixed.output_file_id)] == ["good"]
    (bad,) = results(client, mixed.error_file_id)
    assert (bad["custom_id"], bad["error"], bad["response"]["status_code"]) == ("wrong", None, 400)
    assert bad["response"]["body"]["error"]["param"] == "temperature"
    assert (hopeless.status, hopeless.output_file_id, counts(hopeless)) == ("completed", None, (1, 0, 1))
    assert hopeless.error_file_id


def test_the_error_file_id_of_a_clean_batch_may_be_an_empty_string(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(empty_error_file="")
    batch = start(client, [line("a")])
    sandbox.advance(120)
    assert client.batches.retrieve(batch.id).error_file_id == ""


def test_an_expired_batch_keeps_what_was_done(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(in_progress_s=2 * WINDOW_S)
    batch = start(client, [line(str(number)) for number in range(10)])
    sandbox.advance(WINDOW_S + 5)
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.expired_at) == ("expired", batch.created_at + WINDOW_S)
    total, completed, failed = counts(batch)
    assert (total, failed) == (10, 0)
    assert 0 < completed < 10
    done = {row["custom_id"] for row in results(client, batch.output_file_id)}
    left = results(client, batch.error_file_id)
    assert len(done) == completed == sandbox.books()["requests"]["billed"]
    assert done | {row["custom_id"] for row in left} == set(map(str, range(10)))
    assert all(row["response"] is None and row["error"]["code"] == "batch_expired" for row in left)
    expected = "This request could not be executed before the completion window expired."
    assert left[0]["error"]["message"] == expected


def test_a_cancelled_batch_keeps_what_was_done_and_only_open_ones_can_be_cancelled(
    client: OpenAI, sandbox: SandboxHandle
) -> None:
    batch = start(client, [line(str(number)) for number in range(10)])
    sandbox.advance(60)
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert client.batches.cancel(batch.id).status == "cancelling"
    sandbox.advance(59)
    assert client.batches.retrieve(batch.id).status == "cancelling"
    sandbox.advance(2)
    batch = client.batches.cancel(batch.id)  # idempotent
    assert batch.status == "cancelled"
    assert counts(batch) == (10, 5, 0)
    assert len(results(client, batch.output_file_id)) == 5
    assert {row["error"]["code"] for row in results(client, batch.error_file_id)} == {"batch_cancelled"}

    done = start(client, [line("a")])
    sandbox.advance(WINDOW_S)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(done.id)
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.cancel("batch_none")


def test_a_batch_can_be_cancelled_before_it_runs(client: OpenAI, sandbox: SandboxHandle) -> None:
    batch = start(client, [line("a")])
    client.batches.cancel(batch.id)
    sandbox.advance(60)
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    assert sandbox.books()["requests"]["billed"] == 0


def test_lines_can_be_lost_or_time_out(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.script("batch-line", "line_lost")
    sandbox.script("batch-line", "line_timeout")
    sandbox.script("batch-line", "line_server_error")
    batch = start(client, [line(str(number)) for number in range(4)])
    sandbox.advance(WINDOW_S)
    batch = client.batches.retrieve(batch.id)
    errors = results(client, batch.error_file_id)
    assert len(errors) == 2
    assert len(results(client, batch.output_file_id)) == 1
    assert {row["error"]["code"] for row in errors if row["error"]} == {"request_timeout"}
    assert [row["response"]["status_code"] for row in errors if row["response"]] == [500]


def test_the_queue_of_a_model_is_limited_in_tokens(client: OpenAI, sandbox: SandboxHandle) -> None:
    (one,) = [start(client, [line("a")])]
    sandbox.advance(WINDOW_S)
    usage = client.batches.retrieve(one.id).usage
    assert usage is not None
    sandbox.configure(enqueued_tokens=usage.input_tokens * 2)
    batches = [start(client, [line("a")]) for _ in range(3)]
    sandbox.advance(10)
    statuses = [client.batches.retrieve(batch.id).status for batch in batches]
    assert sorted(statuses) == ["failed", "in_progress", "in_progress"]
    failed = client.batches.retrieve(batches[statuses.index("failed")].id)
    assert failed.errors is not None
    (told,) = failed.errors.data or []
    assert (told.code, told.line, told.param) == ("token_limit_exceeded", None, None)
    assert told.message == (
        f"Enqueued token limit reached for gpt-4.1-mini in organization org-sandbox. Limit: {usage.input_tokens * 2:,} "
        "enqueued tokens. Please try again once some in_progress batches have been completed."
    )
    sandbox.advance(WINDOW_S)  # the queue is empty again
    again = start(client, [line("a")])
    sandbox.advance(10)
    assert client.batches.retrieve(again.id).status == "in_progress"


def test_batches_are_listed_newest_first_in_pages(client: OpenAI) -> None:
    ids = [start(client, [line("a")]).id for _ in range(5)]
    first = client.batches.list(limit=2)
    assert [batch.id for batch in first.data] == ids[:2:-1]
    assert first.has_more
    assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]  # pages by itself
    last = client.batches.list(limit=2, after=ids[2])
    assert [batch.id for batch in last.data] == [ids[1], ids[0]]
    assert not last.has_more
    with pytest.raises(openai.BadRequestError, match="<= 100"):
        client.batches.list(limit=101)


def test_the_limits_of_a_batch_are_kept(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(max_batch_requests=2, batches_per_hour=2)
    batch = start(client, [line(str(number)) for number in range(3)])
    sandbox.advance(10)
    assert client.batches.retrieve(batch.id).status == "failed"
    start(client, [line("a")])
    with pytest.raises(openai.RateLimitError, match="2 batches per hour"):
        start(client, [line("a")])
    sandbox.advance(3_600)
    start(client, [line("a")])


def test_an_older_endpoint_refuses_an_unknown_file_at_once(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(early_file_check=True)
    with pytest.raises(openai.BadRequestError, match="Cannot find file file-x, or project"):
        client.batches.create(input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h")


def test_embeddings_run_in_batches(client: OpenAI, sandbox: SandboxHandle) -> None:
    body = {"model": "text-embedding-3-small", "input": ["a flight", "a loaf"], "dimensions": 8}
    lines = [line("a", body, url="/v1/embeddings")]
    batch = start(client, lines, endpoint="/v1/embeddings")
    sandbox.advance(WINDOW_S)
    (row,) = results(client, client.batches.retrieve(batch.id).output_file_id)
    assert [len(entry["embedding"]) for entry in row["response"]["body"]["data"]] == [8, 8]
