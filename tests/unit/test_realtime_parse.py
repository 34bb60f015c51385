"""Replies, headers and verdicts, with shapes that the SDK's own types accept."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion

from semtel_batch.errors import EndpointError, QuotaExhausted, StoreError
from semtel_batch.records import Answer, Outcome, Usage
from semtel_batch.transport.headers import parse_duration, read_allowances, reset_wait_s, retry_after_s
from semtel_batch.transport.replies import MALFORMED, answer_from, parse, provider_error
from semtel_batch.transport.shardfile import calls, custom_ids, request_url
from semtel_batch.transport.verdicts import (
    Patience,
    Verdict,
    can_be_asked_again,
    judge,
    stopping_error,
    stops,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def completion(*, finish: str = "stop", usage: Any = None, **message: Any) -> Any:
    """A completion as it looks on the wire; the SDK's type must take it."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-6-luna-2026-10-01",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "logprobs": None,
                "message": {"role": "assistant", "content": "{}", "refusal": None, **message},
            }
        ],
        "usage": usage,
    }
    ChatCompletion.model_validate(body)
    return body


USAGE = {
    "prompt_tokens": 1_200,
    "completion_tokens": 30,
    "total_tokens": 1_230,
    "prompt_tokens_details": {"cached_tokens": 1_024, "cache_write_tokens": 128},
    "completion_tokens_details": {"reasoning_tokens": 12},
}


def test_an_answer_carries_content_model_and_every_kind_of_token() -> None:
    answer = answer_from("a", 200, completion(content='{"results":[]}', usage=USAGE))
    assert answer == Answer(
        custom_id="a",
        outcome=Outcome.ANSWERED,
        content='{"results":[]}',
        usage=Usage(
            prompt_tokens=1_200, cached_tokens=1_024, cache_write_tokens=128, completion_tokens=30, reasoning_tokens=12
        ),
        model="gpt-6-luna-2026-10-01",
        status_code=200,
    )


@pytest.mark.parametrize(
    ("body", "outcome", "content", "code"),
    [
        (completion(refusal="I can't."), Outcome.REFUSED, None, "refusal"),
        (completion(finish="content_filter", content="par"), Outcome.REFUSED, None, "content_filter"),
        (completion(finish="length", content='{"res'), Outcome.TRUNCATED, '{"res', None),
        (completion(finish="length", content=None), Outcome.TRUNCATED, "", None),  # all tokens went into reasoning
        (completion(content=""), Outcome.ANSWERED, "", None),
        (completion(content=None), Outcome.ERRORED, None, MALFORMED),
        ({"object": "chat.completion", "choices": []}, Outcome.ERRORED, None, MALFORMED),
        ({"choices": [{"message": None}]}, Outcome.ERRORED, None, MALFORMED),
        ({"choices": [None]}, Outcome.ERRORED, None, MALFORMED),
        ([], Outcome.ERRORED, None, MALFORMED),
        (None, Outcome.ERRORED, None, MALFORMED),
        ("<html>", Outcome.ERRORED, None, MALFORMED),
    ],
)
def test_endings_of_a_200(body: Any, outcome: Outcome, content: str | None, code: str | None) -> None:
    answer = answer_from("a", 200, body)
    assert (answer.outcome, answer.content, answer.error_code) == (outcome, content, code)


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None, "prompt_tokens_details": None}, {"prompt_tokens": "12"}]
)
def test_missing_usage_counts_as_nothing(usage: Any) -> None:
    body = {**completion(), "usage": usage}
    assert answer_from("a", 200, body).usage == Usage()


def test_a_malformed_reply_still_tells_what_it_cost() -> None:
    answer = answer_from("a", 200, {"choices": [], "usage": USAGE})
    assert answer.outcome is Outcome.ERRORED
    assert answer.usage.prompt_tokens == 1_200


AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
    }
}


@pytest.mark.parametrize(
    ("status", "body", "outcome", "code"),
    [
        (400, AZURE_FILTER, Outcome.REFUSED, "content_filter"),
        (400, {"error": {"code": "content_filter", "message": "m"}}, Outcome.REFUSED, "content_filter"),
        (400, {"error": {"code": "context_length_exceeded"}}, Outcome.ERRORED, "context_length_exceeded"),
        (400, {"error": {"code": None, "type": "invalid_request_error"}}, Outcome.ERRORED, "invalid_request_error"),
        (500, {"error": {"code": "content_filter"}}, Outcome.ERRORED, "content_filter"),
        (502, None, Outcome.ERRORED, None),
    ],
)
def test_an_error_is_told_by_status_and_code(status: int, body: Any, outcome: Outcome, code: str | None) -> None:
    answer = answer_from("a", status, body)
    assert (answer.outcome, answer.error_code, answer.status_code) == (outcome, code, status)


def test_error_objects_of_other_servers() -> None:
    assert provider_error({"object": "error", "message": "no", "code": 400}).code == "400"
    assert provider_error({"error": "model not found"}).message == "model not found"
    assert provider_error({"detail": "gone"}).message == "gone"
    assert provider_error("<html>").message is None


def test_half_an_emoji_or_broken_utf_8_does_not_lose_an_answer() -> None:
    assert parse(rb'{"c":"cut \ud83d"}') == {"c": "cut \ufffd"}
    assert parse(rb'{"c":"\ud83d\ude00 \ude00"}') == {"c": "\U0001f600 \ufffd"}
    assert parse(b'{"c":"\xff"}') == {"c": "\ufffd"}
    assert parse(b'{"c":') is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("8.64s", 8.64),
        ("120ms", 0.12),
        ("1h2m3s", 3_723.0),
        ("1m4.296s", 64.296),
        ("6ms", 0.006),
        ("17µs", 17e-6),
        ("2d", 172_800.0),
        ("10", 10.0),  # Azure
        ("", None),
        ("soon", None),
        ("1s later", None),
        ("-1s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "2000", "retry-after": "9"}, 2.0),
        ({"retry-after": "33"}, 33.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


def test_rate_limit_headers_of_both_dresses() -> None:
    openai = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "8.64s",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-limit-project-tokens": "60000",
        "x-ratelimit-remaining-project-tokens": "57000",
        "x-ratelimit-reset-project-tokens": "3s",
    }
    told = read_allowances(openai)
    assert told.requests and (told.requests.limit, told.requests.remaining, told.requests.reset_s) == (
        10_000,
        9_999,
        8.64,
    )
    assert told.tokens and (told.tokens.remaining, reset_wait_s(told, refills=False)) == (0, 360.0)
    assert reset_wait_s(told, refills=True) is None  # it is when the bucket is full: the next request fits long before
    daily = {f"x-ratelimit-{name}-requests": text for name, text in (("limit", "200"), ("remaining", "0"))}
    gone = read_allowances({**daily, "x-ratelimit-reset-requests": "24h0m0s"})
    assert reset_wait_s(gone, refills=True) == 86_400.0
    azure = {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "10", "x-ratelimit-reset-tokens": "7"}
    tokens = read_allowances(azure).tokens
    assert tokens and tokens.reset_s == 7.0
    unknown = {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"}
    assert read_allowances(unknown).requests is None


@pytest.mark.parametrize(
    ("status", "code", "kind", "verdict"),
    [
        (200, None, None, Verdict.FINAL),
        (400, "invalid_value", "invalid_request_error", Verdict.FINAL),
        (413, None, None, Verdict.FINAL),
        (429, "rate_limit_exceeded", "tokens", Verdict.RATE_LIMITED),
        (429, None, None, Verdict.RATE_LIMITED),
        (429, "insufficient_quota", "insufficient_quota", Verdict.OUT_OF_QUOTA),
        (429, None, "insufficient_quota", Verdict.OUT_OF_QUOTA),
        (429, "credit_balance_exhausted", None, Verdict.OUT_OF_QUOTA),
        (402, None, None, Verdict.OUT_OF_QUOTA),
        (401, "invalid_api_key", None, Verdict.DENIED),
        (403, None, None, Verdict.DENIED),
        (404, "model_not_found", None, Verdict.NOT_THERE),
        (307, None, None, Verdict.NOT_THERE),
        (408, None, None, Verdict.RETRY),
        (409, None, None, Verdict.RETRY),
        (500, None, None, Verdict.RETRY),
        (502, None, None, Verdict.RETRY),
        (503, "slow_down", None, Verdict.SLOW_DOWN),
    ],
)
def test_what_a_reply_calls_for(status: int, code: str | None, kind: str | None, verdict: Verdict) -> None:
    error = provider_error({"error": {"code": code, "type": kind, "message": "insufficient_quota rate limit"}})
    assert judge(status, error) is verdict
    assert stops(verdict) == (status in (401, 402, 403, 404, 307) or verdict is Verdict.OUT_OF_QUOTA)


def test_the_provider_may_overrule_whether_to_retry() -> None:
    assert judge(500, provider_error(None), "false") is Verdict.FINAL
    assert judge(400, provider_error(None), "true") is Verdict.RETRY
    assert judge(429, provider_error({"error": {"code": "insufficient_quota"}}), "true") is Verdict.OUT_OF_QUOTA


def test_stopping_errors_name_endpoint_and_variable() -> None:
    about = {"endpoint": "main", "model": "gpt-6-luna", "key_env": "MY_KEY", "base_url": "https://api.openai.com/v1"}
    denied = stopping_error(Verdict.DENIED, **about)
    assert "main" in str(denied) and "MY_KEY" in str(denied)
    assert isinstance(stopping_error(Verdict.OUT_OF_QUOTA, **about), QuotaExhausted)
    assert type(stopping_error(Verdict.NOT_THERE, **about)) is EndpointError


def test_backoff_grows_has_full_jitter_and_a_cap() -> None:
    patience, rng = Patience(base_s=0.5, cap_s=60.0), random.Random(1)
    waits = {n: [patience.backoff_s(n, Verdict.RETRY, rng) for _ in range(500)] for n in (1, 4, 20, 10_000)}
    assert 0.45 < max(waits[1]) <= 0.5
    assert 3.5 < max(waits[4]) <= 4.0
    assert min(waits[4]) < 0.2
    assert 50 < max(waits[20]) <= 60 and max(waits[10_000]) <= 60
    slow = [patience.backoff_s(1, Verdict.SLOW_DOWN, rng) for _ in range(500)]
    assert 1.8 < max(slow) <= 2.0


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (Answer(custom_id="a", outcome=Outcome.MISSING), True),
        (Answer(custom_id="a", outcome=Outcome.EXPIRED), True),
        (Answer(custom_id="a", outcome=Outcome.ERRORED, status_code=500), True),
        (Answer(custom_id="a", outcome=Outcome.ERRORED, status_code=None), True),
        (Answer(custom_id="a", outcome=Outcome.ERRORED, status_code=200, error_code=MALFORMED), True),
        (Answer(custom_id="a", outcome=Outcome.ERRORED, status_code=400), False),
        (Answer(custom_id="a", outcome=Outcome.REFUSED, status_code=200), False),
        (Answer(custom_id="a", outcome=Outcome.ANSWERED, status_code=200), False),
    ],
)
def test_what_may_end_differently_when_asked_again(answer: Answer, again: bool) -> None:
    assert can_be_asked_again(answer) is again


def test_a_shard_is_read_line_by_line_with_its_bodies_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl"
    body = orjson.dumps({"model": "m", "messages": [{"content": 'a\u2028b\u0085c "max_tokens":9 }'}], "max_tokens": 7})
    ours = b'{"custom_id":"a1","method":"POST","url":"/v1/chat/completions","body":' + body + b"}\n"
    other = orjson.dumps({"body": {"max_completion_tokens": 5}, "custom_id": "b2", "url": "/v1/embeddings"}) + b"\r\n"
    path.write_bytes(ours + b"\n" + other)
    first, second = calls(path)
    assert (first.custom_id, first.url, first.body, first.token_cap) == ("a1", "/v1/chat/completions", body, 7)
    assert (second.custom_id, second.url, second.token_cap) == ("b2", "/v1/embeddings", 5)
    assert [call.custom_id for call in calls(path, {"a1"})] == ["b2"]
    assert list(custom_ids(path)) == ["a1", "b2"]
    assert request_url(path) == "/v1/chat/completions"


def test_a_broken_or_lost_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl"
    with pytest.raises(StoreError, match=r"shard\.jsonl"):
        list(calls(path))
    path.write_bytes(b'{"custom_id":"a"')
    with pytest.raises(StoreError, match="Line 1"):
        list(calls(path))
    with pytest.raises(StoreError, match="Line 1"):
        list(custom_ids(path))
