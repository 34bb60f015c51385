"""The sandbox's chat completions and embeddings, held against the SDK's types and the API's known answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from sandbox_requests import chat, schema, strict

from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings

HELLO = [{"role": "user", "content": "Hello."}]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxHandle]:
    with running(Settings(model_behind="scripted", time_scale=0.0)) as handle:
        yield handle


@pytest.fixture
def client(sandbox: SandboxHandle) -> Iterator[OpenAI]:
    sandbox.reset()
    with OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0) as client:
        yield client


def refused(client: OpenAI, body: dict[str, Any]) -> dict[str, Any]:
    """The error object of a 400."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    error = caught.value.body
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def test_an_answer_has_the_shape_of_the_real_one(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat("user: book a flight"))
    body = json.loads(raw.content)
    assert set(body) == {
        "id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint",
    }  # fmt: skip
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["model"] == "gpt-4.1-mini-2025-04-14"
    assert set(body["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert set(body["usage"]["prompt_tokens_details"]) == {"cached_tokens", "audio_tokens"}
    assert raw.headers["content-type"].startswith("application/json")
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["openai-processing-ms"].isdigit()
    labels = json.loads(body["choices"][0]["message"]["content"])
    assert [set(row) for row in labels["results"]] == [{"id", "topic"}]


def test_prompt_tokens_are_those_of_official_samples(client: OpenAI) -> None:
    """gpt-4o and 4.1 by the cookbook's formula; "Tell me a joke." is 11 on the GPT-5 family (token-counting guide)."""
    joke = [{"role": "user", "content": "Tell me a joke."}]
    plain = client.chat.completions.create(model="gpt-4.1-mini", messages=joke)
    newer = client.chat.completions.create(model="gpt-5.4-mini", messages=joke)
    assert plain.usage is not None
    assert newer.usage is not None
    assert (plain.usage.prompt_tokens, newer.usage.prompt_tokens) == (12, 11)


def test_a_pack_is_answered_in_order_for_every_classifier(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat("user: a", "user: b", "user: c", names=("topic", "mood")))
    rows = json.loads(answer.choices[0].message.content or "")["results"]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert all(set(row) == {"id", "topic", "mood"} for row in rows)


@pytest.mark.parametrize(
    ("body", "param", "code", "words"),
    [
        ({"messages": HELLO}, None, None, "you must provide a model parameter"),
        ({"model": "gpt-6-luna"}, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."),
        ({"model": "gpt-6-luna", "messages": HELLO, "frobnicate": 1}, "frobnicate", "unknown_parameter", "Unknown"),
        ({"model": "gpt-6-luna", "messages": "hi"}, "messages", "invalid_type", "expected an array of objects"),
        (
            {"model": "gpt-6-luna", "messages": [{"role": "boss", "content": "x"}]},
            "messages[0].role",
            "invalid_value",
            "Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
        ),
        (
            {"model": "gpt-6-luna", "messages": HELLO, "max_tokens": 5},
            "max_tokens",
            "unsupported_parameter",
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ),
        (
            {"model": "gpt-6-luna", "messages": HELLO, "reasoning_effort": "minimal"},
            "reasoning_effort",
            "unsupported_value",
            "does not support 'minimal' with this model",
        ),
        (
            {"model": "gpt-6-luna", "messages": HELLO, "temperature": 0},
            "temperature",
            "unsupported_value",
            "does not support 0 with this model",
        ),
        (
            {"model": "gpt-5-mini", "messages": HELLO, "reasoning_effort": "none"},
            "reasoning_effort",
            "unsupported_value",
            "does not support 'none'",
        ),
        (
            {"model": "gpt-4.1-mini", "messages": HELLO, "reasoning_effort": "none"},
            None,
            None,
            "Unrecognized request argument supplied: reasoning_effort",
        ),
        (
            {"model": "gpt-4.1-mini", "messages": HELLO, "max_completion_tokens": 0},
            "max_completion_tokens",
            "integer_below_min_value",
            "Expected a value >= 1, but got 0 instead.",
        ),
        (
            {"model": "gpt-4.1-mini", "messages": HELLO, "temperature": 3},
            "temperature",
            "decimal_above_max_value",
            "Expected a value <= 2, but got 3 instead.",
        ),
        (
            {"model": "gpt-4.1-mini", "messages": HELLO, "response_format": {"type": "json_object"}},
            "messages",
            None,
            "must contain the word 'json'",
        ),
        (
            {"model": "gpt-4.1-mini", "messages": HELLO, "response_format": strict(schema("topic"), "no spaces")},
            "response_format.json_schema.name",
            "invalid_value",
            "'^[a-zA-Z0-9_-]+$'",
        ),
    ],
)  # fmt: skip
def test_what_the_api_refuses_is_refused_in_its_words(
    client: OpenAI, body: dict[str, Any], param: str | None, code: str | None, words: str
) -> None:
    error = refused(client, body)
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("gpt-6-luna", {"reasoning_effort": "none", "temperature": 0}),
        ("gpt-6-luna", {"reasoning_effort": "max"}),
        ("gpt-5.4-mini", {"temperature": 0}),
        ("gpt-4.1-mini", {"max_tokens": 5, "temperature": 0, "seed": 1}),
        ("gpt-6-luna", {"max_completion_tokens": 900, "prompt_cache_key": "k", "service_tier": "flex"}),
    ],
)
def test_what_the_api_takes_is_taken(client: OpenAI, model: str, more: dict[str, Any]) -> None:
    client.post("/chat/completions", body={"model": model, "messages": HELLO, **more}, cast_to=object)


def _without(wanted: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if name != key}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (_without(schema("topic"), "additionalProperties"), "'additionalProperties' is required to be supplied"),
        ({**schema("topic"), "required": []}, "Missing 'results'"),
        ({"type": "array", "items": {"type": "string"}}, "type: \"object\""),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string", "enum": [str(i) for i in range(1001)]}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "1001 enum values",
        ),
    ],
)  # fmt: skip
def test_a_schema_that_strict_mode_cannot_keep_is_refused(client: OpenAI, wanted: dict[str, Any], words: str) -> None:
    error = refused(client, {"model": "gpt-4.1-mini", "messages": HELLO, "response_format": strict(wanted)})
    assert error["param"] == "response_format"
    assert words in error["message"]


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-17", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"
    assert caught.value.body["message"] == "The model `gpt-17` does not exist or you do not have access to it."  # type: ignore[index]


def test_a_key_is_needed_and_must_be_the_right_one_where_one_is_set(sandbox: SandboxHandle, client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="You didn't provide an API key"):
        client.models.list(extra_headers={"Authorization": ""})
    sandbox.configure(api_key="sk-right-key-of-this-place")
    try:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided: sk") as caught:
            client.models.list()
        client.models.list(extra_headers={"Authorization": "Bearer sk-right-key-of-this-place"})
    finally:
        sandbox.configure(api_key=None)
    assert caught.value.code == "invalid_api_key"


def test_the_token_cap_cuts_the_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat("user: a", "user: b", max_completion_tokens=5))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    whole = client.chat.completions.create(**chat("user: a", "user: b"))
    assert (whole.choices[0].message.content or "").startswith(answer.choices[0].message.content or "?")


def test_reasoning_is_billed_by_effort_and_eats_the_cap(client: OpenAI) -> None:
    def usage(**more: Any) -> tuple[int, str]:
        answer = client.chat.completions.create(**chat("user: a", model="gpt-6-luna", **more))
        assert answer.usage is not None
        assert answer.usage.completion_tokens_details is not None
        return answer.usage.completion_tokens_details.reasoning_tokens or 0, answer.choices[0].finish_reason

    assert usage(reasoning_effort="none") == (0, "stop")
    assert usage() == (64, "stop")
    assert usage(reasoning_effort="high") == (128, "stop")
    assert usage(max_completion_tokens=30) == (30, "length")


def test_embeddings_come_as_floats_or_base64_of_any_size(client: OpenAI) -> None:
    texts = ["A flight to Rome", "Ein Brot backen", ""][:2]
    floats = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="text-embedding-3-small", input=texts)  # the SDK asks for base64
    assert [len(row.embedding) for row in floats.data] == [1536, 1536]
    assert packed.data[1].embedding == pytest.approx(floats.data[1].embedding)
    small = client.embeddings.create(model="text-embedding-3-small", input=texts[0], dimensions=64)
    assert sum(x * x for x in small.data[0].embedding) == pytest.approx(1.0, abs=1e-5)
    assert len(small.data[0].embedding) == 64
    assert small.usage.prompt_tokens == small.usage.total_tokens > 0
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="text-embedding-3-small", input=[])
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="text-embedding-3-small", input="x", dimensions=4_000)


def test_models_tell_their_last_day(sandbox: SandboxHandle, client: OpenAI) -> None:
    assert "gpt-6-luna" in {model.id for model in client.models.list()}
    sandbox.configure(shutdown_dates={"gpt-4.1-mini": "2027-01-14"})
    try:
        told = client.models.retrieve("gpt-4.1-mini").to_dict()
    finally:
        sandbox.configure(shutdown_dates={})
    assert told["shutdown_date"] == "2027-01-14"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")


def test_the_books_know_what_was_asked_and_billed(sandbox: SandboxHandle, client: OpenAI) -> None:
    twice = chat("user: a", "user: b")
    client.chat.completions.create(**twice)
    client.chat.completions.create(**twice)
    refused(client, {**twice, "temperature": 9})
    books = sandbox.books(detail=True)
    assert books["requests"] == {"distinct": 2, "asked": 3, "billed": 2, "billed_twice": 1}
    assert books["items"] == {"distinct": 2, "billed": 4, "billed_twice": 2}
    assert sorted(books["by_item"].values()) == [2, 2]
    assert books["paths"]["POST /v1/chat/completions"] == {"200": 2, "400": 1}
    assert books["tokens"]["realtime"]["prompt"] > 0


def test_prompt_caching_follows_the_family(sandbox: SandboxHandle, client: OpenAI) -> None:
    long = "All flights are listed below. " * 300  # 6 tokens each

    def cached(model: str, text: str, **more: Any) -> tuple[int, int | None]:
        messages = [{"role": "system", "content": more.pop("content", long)}, {"role": "user", "content": text}]
        answer: Any = client.post(
            "/chat/completions", body={"model": model, "messages": messages, **more}, cast_to=object
        )
        details = answer["usage"]["prompt_tokens_details"]
        return details["cached_tokens"], details.get("cache_write_tokens")

    sandbox.configure(caching=True)
    try:
        assert cached("gpt-4.1-mini", "one") == (0, None)
        read, _ = cached("gpt-4.1-mini", "two")
        assert read >= 1024
        assert read % 128 == 0
        # Newer families fall back on no shared prefix, write every time, and can be told to leave it.
        assert cached("gpt-6-luna", "one")[0] == 0
        read, written = cached("gpt-6-luna", "two")
        assert read == 0
        assert (written or 0) > 1024
        assert cached("gpt-6-luna", "three", prompt_cache_options={"mode": "explicit"}) == (0, 0)
        marked = [{"type": "text", "text": long, "prompt_cache_breakpoint": {"mode": "explicit"}}]
        options = {"content": marked, "prompt_cache_options": {"mode": "explicit"}}
        _, written = cached("gpt-6-luna", "four", **dict(options))
        assert cached("gpt-6-luna", "five", **dict(options)) == (written, 0)
    finally:
        sandbox.configure(caching=False)
