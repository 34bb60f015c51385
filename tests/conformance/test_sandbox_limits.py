"""The sandbox's rate limits and faults: headers, messages, and what the SDK makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from sandbox_requests import chat, jsonl, line

from semtel_batch.sandbox.clock import Clock
from semtel_batch.sandbox.errors import ApiError
from semtel_batch.sandbox.limits import Limiter, admission_tokens, go_duration
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings


class Time:
    """A steady clock that stands still unless moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def refusal(limiter: Limiter, tokens: int) -> ApiError:
    with pytest.raises(ApiError) as caught:
        limiter.admit("gpt-5", tokens)
    return caught.value


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.006, "6ms"),
        (8.64, "8.64s"),
        (64.296, "1m4.296s"),
        (360, "6m0s"),
        (0.12, "120ms"),
        (3723, "1h2m3s"),
        (1, "1s"),
    ],
)
def test_durations_are_those_of_go(seconds: float, shown: str) -> None:
    assert go_duration(seconds) == shown


def test_the_wait_in_the_message_is_that_of_a_real_refusal() -> None:
    """Limit 500000, Used 436092, Requested 82181 → 2.192 s: a live message of the API."""
    limiter = Limiter(Settings(tpm=500_000), Time())
    limiter.admit("gpt-5", 436_092)
    error = refusal(limiter, 82_181)
    assert str(error).startswith(
        "Rate limit reached for gpt-5 in organization org-sandbox on tokens per min (TPM): "
        "Limit 500000, Used 436092, Requested 82181. Please try again in 2.192s."
    )
    assert (error.status, error.error["code"], error.error["type"]) == (429, "rate_limit_exceeded", "tokens")


def test_buckets_refill_all_the_time() -> None:
    time = Time()
    limiter = Limiter(Settings(tpm=6_000), time)
    limiter.admit("gpt-5", 6_000)
    refusal(limiter, 1_000)
    time.now += 9.99
    refusal(limiter, 1_000)
    time.now += 0.02
    limiter.admit("gpt-5", 1_000)


def test_refused_requests_take_nothing_and_models_are_apart() -> None:
    limiter = Limiter(Settings(rpm=1), Time())
    limiter.admit("gpt-5", 1)
    assert refusal(limiter, 1).error["type"] == "requests"
    assert "Used 1, Requested 1. Please try again in 1m0s." in str(refusal(limiter, 1))
    limiter.admit("gpt-6-luna", 1)


def test_a_request_above_the_limit_never_fits() -> None:
    error = refusal(Limiter(Settings(tpm=100), Time()), 101)
    assert str(error).startswith("Request too large for gpt-5")


def test_a_daily_request_limit_shows_in_its_reset() -> None:
    """A live answer: limit 10000, remaining 9999, reset 8.64s."""
    headers = Limiter(Settings(rpm=10_000, requests_period_s=86_400), Time()).admit("gpt-5", 1)
    assert headers == {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "8.64s",
    }


def test_admission_takes_the_larger_and_azure_the_sum() -> None:
    assert admission_tokens({"max_tokens": 50}, 400, azure=False) == 100
    assert admission_tokens({"max_completion_tokens": 500}, 400, azure=False) == 500
    assert admission_tokens({"max_tokens": 50}, 400, azure=True) == 150


def test_the_clock_scales_and_jumps() -> None:
    steady = Time()
    clock = Clock(wall=lambda: 100.0, steady=steady, scale=60.0)
    steady.now += 2
    assert (clock.now(), clock.steady()) == (220.0, 1_002.0)
    clock.rescale(0)
    steady.now += 50
    assert clock.now() == 220.0
    clock.advance(10)
    assert (clock.now(), clock.steady()) == (230.0, 1_062.0)


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[SandboxHandle]:
    with running(Settings(model_behind="scripted", time_scale=0.0)) as handle:
        yield handle


@pytest.fixture
def sandbox(running_sandbox: SandboxHandle) -> Iterator[SandboxHandle]:
    running_sandbox.reset()
    yield running_sandbox
    running_sandbox.configure(rpm=None, tpm=None, faults={}, retry_after_s=None)


@pytest.fixture
def client(sandbox: SandboxHandle) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0, timeout=5) as client:
        yield client


def ask(client: OpenAI, *texts: str) -> str:
    return client.chat.completions.create(**chat(*(texts or ("user: a",)))).choices[0].message.content or ""


def test_limit_headers_come_with_every_answer_and_refusal(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(rpm=2, tpm=100_000, retry_after_s=7)
    raw = client.chat.completions.with_raw_response.create(**chat("user: a"))
    names = {name for name in raw.headers if name.startswith("x-ratelimit-")}
    assert names == {
        f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")
    }
    assert (raw.headers["x-ratelimit-limit-requests"], raw.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(**chat("user: a", temperature=9))
    assert failed.value.response.headers["x-ratelimit-remaining-requests"] == "0"  # it counts all the same
    with pytest.raises(openai.RateLimitError) as limited:
        ask(client)
    assert limited.value.code == "rate_limit_exceeded"
    assert limited.value.response.headers["retry-after"] == "7"
    assert re.search(r"Please try again in (\d+m)?[\d.]+m?s\.", str(limited.value))
    assert sandbox.books()["rate_limited"] == 1
    sandbox.advance(60)
    ask(client)


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("rate_limit", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("slow_down", openai.InternalServerError, "slow_down"),
        ("overloaded", openai.InternalServerError, None),
        ("server_error", openai.InternalServerError, None),
        ("prompt_filter", openai.BadRequestError, "content_filter"),
        ("drop_before", openai.APIConnectionError, None),
    ],
)
def test_a_scripted_fault_comes_once_and_costs_nothing(
    client: OpenAI, sandbox: SandboxHandle, fault: str, kind: type[openai.APIError], code: str | None
) -> None:
    sandbox.script("/v1/chat/completions", fault)
    with pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.code == code
    assert sandbox.books()["requests"]["billed"] == 0
    ask(client)
    assert sandbox.books()["requests"]["billed"] == 1


@pytest.mark.parametrize(
    ("fault", "kind"), [("drop_after", openai.APIConnectionError), ("error_after", openai.InternalServerError)]
)
def test_an_answer_can_be_lost_after_it_was_billed(
    client: OpenAI, sandbox: SandboxHandle, fault: str, kind: type[Exception]
) -> None:
    sandbox.script("/v1/chat/completions", fault)
    with pytest.raises(kind):
        ask(client)
    ask(client)
    assert sandbox.books()["requests"] == {"distinct": 1, "asked": 2, "billed": 2, "billed_twice": 1}


def test_a_batch_can_exist_although_its_creation_failed(client: OpenAI, sandbox: SandboxHandle) -> None:
    file = client.files.create(file=("a.jsonl", jsonl([line("a")])), purpose="batch")
    sandbox.script("/v1/batches", "drop_after")
    with pytest.raises(openai.APIConnectionError):
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"key": "k1"}
        )
    assert [batch.metadata for batch in client.batches.list()] == [{"key": "k1"}]


def test_a_request_can_hang(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.script("/v1/chat/completions", "hang")
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.1).chat.completions.create(**chat("user: a"))
    assert sandbox.books()["requests"]["billed"] == 0


def rows(content: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(content)["results"]
    return found


def test_answers_are_spoilt_as_asked(client: OpenAI, sandbox: SandboxHandle) -> None:
    def spoilt(fault: str) -> str:
        sandbox.script("/v1/chat/completions", fault)
        return ask(client, "user: a", "user: b", "user: c")

    good = ask(client, "user: a", "user: b", "user: c")
    with pytest.raises(json.JSONDecodeError):
        json.loads(spoilt("malformed"))
    assert spoilt("code_fence") == f"```json\n{good}\n```"
    assert good in spoilt("prose") != good
    assert len(rows(spoilt("drop_id"))) == 2
    assert sorted(row["id"] for row in rows(spoilt("duplicate_id"))) != [1, 2, 3]
    assert max(row["id"] for row in rows(spoilt("unknown_id"))) == 10
    assert [row["topic"] for row in rows(spoilt("wrong_case"))] == [row["topic"].lower() for row in rows(good)]
    assert "zzzz" in [row["topic"] for row in rows(spoilt("invalid_label"))]
    assert spoilt("empty") == ""


@pytest.mark.parametrize(("fault", "reason"), [("length", "length"), ("content_filter", "content_filter")])
def test_answers_end_for_other_reasons(client: OpenAI, sandbox: SandboxHandle, fault: str, reason: str) -> None:
    sandbox.script("/v1/chat/completions", fault)
    answer = client.chat.completions.create(**chat("user: a"))
    assert answer.choices[0].finish_reason == reason


def test_a_refusal_is_no_content(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.script("/v1/chat/completions", "refusal")
    message = client.chat.completions.create(**chat("user: a")).choices[0].message
    assert message.content is None
    assert message.refusal


def test_rates_commit_faults_by_their_share(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(faults={"server_error": 0.5})
    outcomes = []
    for _ in range(60):
        try:
            outcomes.append(bool(ask(client)))
        except openai.InternalServerError:
            outcomes.append(False)
    assert 15 < sum(outcomes) < 45


def test_settings_that_make_no_sense_are_refused(sandbox: SandboxHandle) -> None:
    for changes, words in (
        ({"rpmm": 3}, "unknown setting 'rpmm'"),
        ({"rpm": "3"}, "rpm must be int"),
        ({"dress": "gown"}, "dress must be one of"),
        ({"faults": {"earthquake": 1.0}}, "unknown fault 'earthquake'"),
        ({"gold": "/nowhere/gold.jsonl"}, "gold.jsonl"),
    ):
        with pytest.raises(ValueError, match=words):
            sandbox.configure(**changes)
    with pytest.raises(ValueError, match="unknown fault"):
        sandbox.script("/v1/batches", "earthquake")
    sandbox.advance(1)
