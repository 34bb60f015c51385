"""Background windows: the sandbox's responses held against the SDK's types, and our way there against its books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from openai import OpenAI
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter
from sandbox_requests import blocks, schema, system
from small_shard import KEY, QUICK, VARIABLE, shard_of

from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.records import Answer, BatchState, Endpoint, EndpointKind, Outcome, Receipt, Shard, Tier
from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings
from semtel_batch.transport.background import BackgroundTransport
from semtel_batch.transport.endpoints import open_transport

MODEL = "gpt-5.4-mini"
RESPONSES = "/v1/responses"
PLAIN: dict[str, Any] = {"background_s": 60.0, "faults": {}}


@pytest.fixture(scope="module")
def served() -> Iterator[SandboxHandle]:
    with running(Settings(api_key=KEY, model_behind="scripted")) as handle:
        yield handle


@pytest.fixture
def sandbox(served: SandboxHandle) -> SandboxHandle:
    served.configure(**PLAIN)
    served.reset()
    return served


@pytest.fixture
def client(sandbox: SandboxHandle) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url, api_key=KEY, max_retries=0) as client:
        yield client


def body(number: int = 0, **changes: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "name": "labels", "strict": True, "schema": schema("topic")}
    made = {
        "model": MODEL,
        "input": [
            {"type": "message", "role": "system", "content": system("topic")},
            {"type": "message", "role": "user", "content": blocks([f"user: a loan, number {number}"])},
        ],
        "text": {"format": form},
        "reasoning": {"effort": "none"},
        "max_output_tokens": 60,
        "background": True,
        "background_options": {"completion_window": "2h"},
        "store": True,
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


# The sandbox.


def test_a_response_has_the_shape_of_the_sdk_from_its_creation_to_its_end(client: OpenAI, sandbox: Any) -> None:
    TypeAdapter(ResponseCreateParamsNonStreaming).validate_python(body())
    made = Response.model_validate_json(client.responses.with_raw_response.create(**body()).content)
    assert (made.status, made.output, made.usage) == ("queued", [], None)
    sandbox.advance(40)
    assert client.responses.retrieve(made.id).status == "in_progress"
    sandbox.advance(30)
    ended = Response.model_validate_json(client.responses.with_raw_response.retrieve(made.id).content)
    assert ended.status == "completed"
    assert set(orjson.loads(ended.output_text)["results"][0]) == {"id", "topic"}
    assert ended.usage is not None and ended.usage.total_tokens == ended.usage.input_tokens + ended.usage.output_tokens
    assert sandbox.books()["tokens"]["2h"]["prompt"] == ended.usage.input_tokens


def test_it_is_billed_though_nobody_looks_and_not_once_cancelled(client: OpenAI, sandbox: SandboxHandle) -> None:
    client.responses.create(**body(1))
    cancelled = client.responses.create(**body(2))
    assert client.responses.cancel(cancelled.id).status == "cancelled"
    sandbox.advance(3_600)
    assert sandbox.books()["requests"]["billed"] == 1


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"background_options": {"completion_window": "4h"}}, "background_options.completion_window"),
        ({"background": None}, "background_options.completion_window"),
        ({"stream": True}, "stream"),
        ({"store": False}, "background"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"messages": []}, "messages"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"max_output_tokens": 5}, "max_output_tokens"),
        ({"model": "gpt-6-luna", "reasoning": {"effort": "minimal"}}, "reasoning.effort"),
        ({"model": "gpt-6-luna", "reasoning": None, "temperature": 0}, "temperature"),
        ({"input": None}, "input"),
    ],
)
def test_what_it_does_not_take(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/responses", body=body(**changes), cast_to=object)
    assert isinstance(caught.value.body, dict) and caught.value.body["param"] == param


def test_without_background_it_answers_at_once(client: OpenAI) -> None:
    made = client.responses.create(**body(background=None, background_options=None, store=False))
    assert made.status == "completed" and made.output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


# Our way there.


def endpoint(sandbox: SandboxHandle) -> Endpoint:
    return Endpoint(
        name="the-endpoint", kind=EndpointKind.OPENAI, base_url=sandbox.base_url, model=MODEL, api_key_env=VARIABLE
    )


def opened(sandbox: SandboxHandle, key: str = KEY) -> BackgroundTransport:
    way = open_transport([endpoint(sandbox)], Tier.TWO_HOURS, {VARIABLE: key}, patience=QUICK)
    assert isinstance(way, BackgroundTransport)
    return way


def shard(folder: Path, n: int) -> Shard:
    lines = [{"custom_id": f"r-{i}", "method": "POST", "url": RESPONSES, "body": body(i)} for i in range(n)]
    return replace(shard_of(folder, lines), tier=Tier.TWO_HOURS)


def taken(way: BackgroundTransport, of: Shard, receipt: Receipt) -> dict[str, Answer]:
    answers = [answer for group in way.answers(of, receipt, ()) for answer in group]
    assert len({answer.custom_id for answer in answers}) == len(answers), "an answer came twice"
    return {answer.custom_id: answer for answer in answers}


def test_every_request_is_created_once_and_answered_once(sandbox: SandboxHandle, tmp_path: Path) -> None:
    of, notes = shard(tmp_path, 620), []
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(), notes.append)
        assert notes[-1] == receipt and notes[0] == Receipt(input_file_id="ledger")
        assert way.poll(of, receipt).state is BatchState.WAITING
        looks = sandbox.books()["paths"]["GET /v1/responses/{id}"]
        assert looks == {"200": 200}, "not all of them are looked at while none has ended"
        sandbox.advance(120)
        progress = way.poll(of, receipt)
        assert (progress.state, progress.n_completed, progress.n_failed) == (BatchState.READY, 620, 0)
    with closing(opened(sandbox)) as another:  # a new process reads the answers from the file
        found = taken(another, of, receipt)
    assert {answer.outcome for answer in found.values()} == {Outcome.ANSWERED}
    assert sum(answer.usage.prompt_tokens for answer in found.values()) == sandbox.books()["tokens"]["2h"]["prompt"]
    assert sandbox.books()["requests"] == {"distinct": 620, "asked": 620, "billed": 620, "billed_twice": 0}


def test_a_new_process_creates_only_what_the_ledger_has_not(sandbox: SandboxHandle, tmp_path: Path) -> None:
    of = shard(tmp_path, 40)
    with closing(opened(sandbox)) as way:
        whole = way.submit(of, Receipt(), lambda _receipt: None)
    ledger = tmp_path / "shard-1.responses.jsonl"
    kept = ledger.read_bytes().splitlines(keepends=True)[:30]
    ledger.write_bytes(b"".join(kept) + b'{"custom_id":"r-39","id":"resp_to')  # killed in the middle of a line
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(input_file_id="ledger"), lambda _receipt: None)
        assert receipt == whole
        sandbox.advance(120)
        assert way.poll(of, receipt).state is BatchState.READY
        assert {answer.outcome for answer in taken(way, of, receipt).values()} == {Outcome.ANSWERED}
    assert sandbox.books()["requests"]["asked"] == 50, "ten were created twice: what a crash loses"


def test_each_way_to_end_has_its_outcome(sandbox: SandboxHandle, tmp_path: Path) -> None:
    for fault in ("line_server_error", "line_prompt_filter", "line_lost"):
        sandbox.script("batch-line", fault)
    for fault in ("refusal", "content_filter", "length"):
        sandbox.script("/v1/chat/completions", fault)
    of = shard(tmp_path, 8)
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(), lambda _receipt: None)
        sandbox.advance(120)
        assert way.poll(of, receipt).state is BatchState.READY
        outcomes = sorted(answer.outcome for answer in taken(way, of, receipt).values())
    expected = [Outcome.ERRORED, Outcome.MISSING, Outcome.REFUSED, Outcome.REFUSED, Outcome.REFUSED, Outcome.TRUNCATED]
    assert outcomes == sorted([*expected, Outcome.ANSWERED, Outcome.ANSWERED])


def test_a_bad_request_is_its_own_failure(sandbox: SandboxHandle, tmp_path: Path) -> None:
    of = shard(tmp_path, 3)
    of.path.write_bytes(of.path.read_bytes().replace(b'"max_output_tokens":60', b'"max_output_tokens":5', 1))
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(), lambda _receipt: None)
        sandbox.advance(120)
        assert way.poll(of, receipt).n_failed == 1
        found = taken(way, of, receipt)
    assert (found["r-0"].outcome, found["r-0"].status_code) == (Outcome.ERRORED, 400)


def test_cancelled_requests_are_told_apart_from_what_had_ended(sandbox: SandboxHandle, tmp_path: Path) -> None:
    of = shard(tmp_path, 5)
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(), lambda _receipt: None)
        way.cancel(of, receipt)
        assert way.poll(of, receipt).state is BatchState.READY
        assert {answer.outcome for answer in taken(way, of, receipt).values()} == {Outcome.CANCELLED}
    assert sandbox.books()["requests"]["billed"] == 0


def test_what_is_past_its_window_is_cancelled(sandbox: SandboxHandle, tmp_path: Path) -> None:
    of = shard(tmp_path, 2)
    sandbox.configure(background_s=1e9)
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(), lambda _receipt: None)
        assert way.poll(of, receipt).state is BatchState.WAITING
    late = BackgroundTransport(
        endpoint(sandbox), way._creating.pool.clients[0].connection, now=lambda: 4e9, patience=QUICK
    )
    with closing(late):
        assert late.poll(of, receipt).state is BatchState.READY
        assert {answer.outcome for answer in taken(late, of, receipt).values()} == {Outcome.CANCELLED}


def test_a_wrong_key_stops_and_passing_trouble_does_not(sandbox: SandboxHandle, tmp_path: Path) -> None:
    of = shard(tmp_path, 4)
    with closing(opened(sandbox, key="sk-wrong")) as way, pytest.raises(EndpointError):
        way.submit(of, Receipt(), lambda _receipt: None)
    sandbox.script("POST /v1/responses", "server_error", times=3)
    sandbox.script("GET /v1/responses/{id}", "overloaded", times=4)
    with closing(opened(sandbox)) as way:
        receipt = way.submit(of, Receipt(), lambda _receipt: None)
        sandbox.advance(120)
        with pytest.raises(Incomplete):
            way.poll(of, receipt)
        assert way.poll(of, receipt).state is BatchState.READY
    assert sandbox.books()["requests"]["billed_twice"] == 0
