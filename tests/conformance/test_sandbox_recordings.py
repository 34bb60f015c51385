"""The sandbox against answers recorded from the real API, where these are at hand."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from sandbox_requests import jsonl, line

from semtel_batch.sandbox.local import SandboxHandle, running
from semtel_batch.sandbox.settings import Settings

_RECORDINGS = Path(__file__).resolve().parents[2] / ".." / "shared" / "recordings" / "openai-2025-01.json"

pytestmark = pytest.mark.skipif(not _RECORDINGS.is_file(), reason="the recordings are not here")


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_RECORDINGS.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxHandle]:
    settings = Settings(
        model_behind="scripted",
        models=("gpt-3.5-turbo",),
        time_scale=0.0,
        rpm=10_000,
        requests_period_s=86_400,
        tpm=200_000,
    )
    with running(settings) as handle:
        yield handle


def exchange(sandbox: SandboxHandle, path: str, body: bytes, key: str = "sk-any") -> tuple[int, dict[str, str], Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(sandbox.base_url.removesuffix("/v1") + path, body, headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, dict(response.headers.items()), json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers.items()), json.loads(error.read())


def shape(value: Any) -> Any:
    """Keys and kinds of a JSON value; of an array, those of its first entry."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    return type(value).__name__


def assert_has_shape(mine: Any, real: Any, where: str = "") -> None:
    """Everything that the real answer has is there and of its kind; later additions of the API may be there too."""
    if isinstance(real, dict):
        assert isinstance(mine, dict), where
        assert not set(real) - set(mine), where
        for key, part in real.items():
            assert_has_shape(mine[key], part, f"{where}.{key}")
    elif isinstance(real, list):
        assert isinstance(mine, list), where
        for part in real[:1]:
            assert_has_shape(mine[0], part, f"{where}[0]")
    elif real != "NoneType" and mine != "NoneType":
        assert mine == real, where


def test_chat_answers_have_the_recorded_shape_and_refusals_are_the_same(
    recorded: list[dict[str, Any]], sandbox: SandboxHandle
) -> None:
    seen = set()
    for real in recorded:
        if real["path"] != "/v1/chat/completions" or real["status"] == 401:
            continue
        hello = json.dumps({"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hi."}]})
        status, headers, mine = exchange(sandbox, real["path"], (real["request"] or hello).encode())
        assert status == real["status"]
        lowered = {name.lower(): value for name, value in headers.items()}
        for name, value in real["headers"].items():
            assert re.sub(r"[\d.]+", "9", lowered[name]) == re.sub(r"[\d.]+", "9", value) or "reset" in name
        if status == 200:
            assert_has_shape(shape(mine), shape(real["response"]))
        else:
            assert mine == real["response"]
        seen.add(status)
    assert seen == {200, 400}


def test_a_wrong_key_is_refused_as_recorded(recorded: list[dict[str, Any]], sandbox: SandboxHandle) -> None:
    real = next(one for one in recorded if one["status"] == 401)
    sandbox.configure(api_key="sk-right")
    try:
        status, _, mine = exchange(sandbox, real["path"], real["request"].encode(), key="mocked-key-1234")
    finally:
        sandbox.configure(api_key=None)
    assert status == 401
    unmasked = {**mine["error"], "message": re.sub(r"provided: \S+ ", "provided: KEY ", mine["error"]["message"])}
    told = real["response"]["error"]
    assert unmasked == {**told, "message": re.sub(r"provided: \S+ ", "provided: KEY ", told["message"])}


def test_a_batch_goes_as_recorded(recorded: list[dict[str, Any]], sandbox: SandboxHandle) -> None:
    def real(path: str, status: str | None = None) -> Any:
        return next(
            one["response"]
            for one in recorded
            if re.fullmatch(path, one["path"]) and (status is None or one["response"]["status"] == status)
        )

    body = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hi."}]}
    with OpenAI(base_url=sandbox.base_url, api_key="sk-any", max_retries=0) as client:
        file = client.files.create(file=("a.jsonl", jsonl([line(str(n), body) for n in range(3)])), purpose="batch")
        assert_has_shape(shape(json.loads(file.to_json())), shape(real("/v1/files")))
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"request_file": "x"},
        )
        first = client.batches.with_raw_response.retrieve(batch.id)
        assert_has_shape(shape(json.loads(first.content)), shape(real("/v1/batches", "validating")))
        sandbox.advance(3_600)
        last = client.batches.with_raw_response.retrieve(batch.id)
        assert_has_shape(shape(json.loads(last.content)), shape(real("/v1/batches/.*", "completed")))
        output = client.files.content(json.loads(last.content)["output_file_id"])
    assert output.response.headers["content-type"] == "application/octet-stream"
    rows = [json.loads(row) for row in output.content.splitlines()]
    assert_has_shape(shape(rows), shape(real("/v1/files/.*/content")))
