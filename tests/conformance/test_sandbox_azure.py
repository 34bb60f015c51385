"""The sandbox in Azure's dress: what differs there from OpenAI's endpoint."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AzureOpenAI, OpenAI
from sandbox_requests import chat, jsonl, line

from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings

DAY_S = 86_400
AZURE = Settings(
    dress="azure",
    model_behind="scripted",
    api_key="azure-key",
    deployments={"our-mini": "gpt-4.1-mini", "our-luna": "gpt-6-luna"},
    time_scale=0.0,
)


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[SandboxHandle]:
    with running(AZURE) as handle:
        yield handle


@pytest.fixture
def sandbox(running_sandbox: SandboxHandle) -> Iterator[SandboxHandle]:
    running_sandbox.reset()
    yield running_sandbox
    running_sandbox.configure(enqueued_tokens=None, fail_fast=False, rpm=None)


@pytest.fixture
def client(sandbox: SandboxHandle) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url, api_key="azure-key", max_retries=0) as client:
        yield client


def mine(*texts: str, **more: Any) -> dict[str, Any]:
    return chat(*(texts or ("user: a",)), **{"model": "our-mini", **more})


def finished(client: OpenAI, sandbox: SandboxHandle, content: bytes) -> Any:
    file = client.files.create(file=("a.jsonl", content), purpose="batch")
    assert re.fullmatch(r"file-[0-9a-f]{32}", file.id)
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/chat/completions",
        completion_window="24h",  # type: ignore[arg-type]
    )
    assert re.fullmatch(r"batch_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", batch.id)
    sandbox.advance(DAY_S)
    return client.batches.retrieve(batch.id)


def test_answers_carry_filter_results_and_the_model_behind(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**mine())
    body = json.loads(raw.content)
    assert body["model"] == "gpt-4.1-mini-2025-04-14"
    assert set(body["choices"][0]["content_filter_results"]) == {"hate", "self_harm", "sexual", "violence"}
    assert body["prompt_filter_results"][0]["prompt_index"] == 0
    assert "apim-request-id" in raw.headers


def test_keys_and_deployments_are_checked(client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="invalid subscription key") as caught:
        client.models.list(extra_headers={"Authorization": "Bearer sk-another"})
    assert caught.value.code == "401"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**mine(model="gpt-4.1-mini"))
    assert missing.value.code == "DeploymentNotFound"


def test_the_older_paths_and_the_api_key_header_work(sandbox: SandboxHandle) -> None:
    root = sandbox.base_url.removesuffix("/openai/v1")
    with AzureOpenAI(azure_endpoint=root, api_key="azure-key", api_version="2024-10-21", max_retries=0) as client:
        body = {**mine(), "model": "our-mini"}
        assert client.chat.completions.create(**body).choices[0].finish_reason == "stop"
        assert list(client.files.list()) == []
    request = urllib.request.Request(f"{root}/v1/models", headers={"api-key": "azure-key"})
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


def test_a_clean_batch_has_an_error_file_of_no_bytes_and_lines_without_ids(
    client: OpenAI, sandbox: SandboxHandle
) -> None:
    batch = finished(client, sandbox, jsonl([line(str(n), mine(), url="/chat/completions") for n in range(3)]))
    assert batch.status == "completed"
    assert client.files.content(batch.error_file_id).content == b""
    rows = [json.loads(row) for row in client.files.content(batch.output_file_id).content.splitlines()]
    assert all(set(row) == {"custom_id", "response", "error"} for row in rows)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xef\xbb\xbf" + jsonl([line("a", mine())]), "invalid_request"),
        (jsonl([line("a", mine(model="gpt-4.1-mini"))]), "model_not_found"),
        (jsonl([line("a", mine()), line("b", mine(model="our-luna"))]), "model_mismatch"),
        (jsonl([line("a", mine(), url="/v1/responses")]), "url_mismatch"),
        (b"", "empty_file"),
    ],
)
def test_what_fails_a_batch_has_azures_codes(client: OpenAI, sandbox: SandboxHandle, content: bytes, code: str) -> None:
    batch = finished(client, sandbox, content)
    assert batch.status == "failed"
    assert [error.code for error in batch.errors.data] == [code]


def test_a_full_queue_fails_the_batch_or_refuses_it_at_once(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(enqueued_tokens=5)
    batch = finished(client, sandbox, jsonl([line("a", mine())]))
    assert batch.errors.data[0].code == "token_limit_exceeded"
    assert "for the deployment 'our-mini'" in batch.errors.data[0].message
    sandbox.configure(fail_fast=True)
    with pytest.raises(openai.BadRequestError) as caught:
        finished(client, sandbox, jsonl([line("a", mine())]))
    assert caught.value.code == "token_limit_exceeded"


def test_files_may_last_fourteen_to_thirty_days(client: OpenAI) -> None:
    def uploaded(seconds: int) -> Any:
        expiry = {"expires_after": {"anchor": "created_at", "seconds": seconds}}
        return client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch", extra_body=expiry)

    file = uploaded(14 * DAY_S)
    assert file.expires_at - file.created_at == 14 * DAY_S
    with pytest.raises(openai.BadRequestError, match="between 1209600 and 2592000"):
        uploaded(3_600)


def test_limits_are_told_in_bare_numbers(client: OpenAI, sandbox: SandboxHandle) -> None:
    sandbox.configure(rpm=1)
    raw = client.chat.completions.with_raw_response.create(**mine())
    assert raw.headers["x-ratelimit-reset-requests"].isdigit()
    with pytest.raises(openai.RateLimitError, match=r"Please retry after \d+ seconds\.") as caught:
        client.chat.completions.create(**mine())
    assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 60_000
    assert caught.value.code == "429"
