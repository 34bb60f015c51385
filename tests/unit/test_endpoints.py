"""Addresses, keys and which transport serves a tier."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from semtel_batch.errors import BadConfig, KeyMissing
from semtel_batch.records import Endpoint, EndpointKind, Tier
from semtel_batch.transport.connection import Connection, connection
from semtel_batch.transport.endpoints import open_transport

SECRET = "sk-very-secret"
ENVIRON = {"MY_KEY": SECRET, "OPENAI_ORG_ID": "org-1"}
OPENAI = Endpoint(
    name="main",
    kind=EndpointKind.OPENAI,
    base_url="https://api.openai.com/v1",
    model="gpt-6-luna",
    api_key_env="MY_KEY",
)
LOCAL = replace(
    OPENAI, kind=EndpointKind.COMPATIBLE, base_url="http://10.0.0.5:8000/v1", api_key_env=None, allow_http=True
)


def reach(endpoint: Endpoint, **changes: object) -> Connection:
    return connection(replace(endpoint, **changes), ENVIRON)


def test_the_key_is_sent_as_each_kind_takes_it_and_is_never_shown() -> None:
    openai = reach(OPENAI)
    assert openai.headers == {"Authorization": f"Bearer {SECRET}", "OpenAI-Organization": "org-1"}
    azure = reach(OPENAI, kind=EndpointKind.AZURE, base_url="https://r.openai.azure.com")
    assert azure.headers == {"api-key": SECRET}
    assert reach(LOCAL).headers == {}
    for made in (openai, azure):
        assert SECRET not in repr(made) and SECRET not in str(made)


def test_a_missing_key_names_its_variable() -> None:
    for environ in ({}, {"MY_KEY": ""}, {"MY_KEY": "  "}):
        with pytest.raises(KeyMissing, match="MY_KEY"):
            connection(OPENAI, environ)
    with pytest.raises(BadConfig, match="api_key_env"):
        reach(OPENAI, api_key_env=None)


def test_a_key_with_a_line_break_is_refused_unseen() -> None:
    with pytest.raises(BadConfig) as caught:
        connection(OPENAI, {"MY_KEY": "sk-a\nsk-b"})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "base_url", "chat_url"),
    [
        ("openai", "https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("openai", "https://eu.api.openai.com", "https://eu.api.openai.com/v1/chat/completions"),
        ("azure", "https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/chat/completions"),
        ("azure", "https://r.openai.azure.com/openai/", "https://r.openai.azure.com/openai/v1/chat/completions"),
        ("azure", "https://r.openai.azure.com/openai/v1/", "https://r.openai.azure.com/openai/v1/chat/completions"),
        ("compatible", "http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/chat/completions"),
        ("compatible", "https://host/proxy/v4", "https://host/proxy/v4/chat/completions"),
        ("compatible", "http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_addresses(kind: str, base_url: str, chat_url: str) -> None:
    assert reach(OPENAI, kind=EndpointKind(kind), base_url=base_url).url("/v1/chat/completions") == chat_url


@pytest.mark.parametrize(
    "base_url",
    ["api.openai.com/v1", "ftp://host/v1", "https://", "https://host:port/v1", "", "https://host/v1?api-version=1"],
)
def test_what_is_no_address(base_url: str) -> None:
    with pytest.raises(BadConfig, match="main"):
        reach(OPENAI, base_url=base_url)


def test_a_password_in_the_address_is_refused_unseen() -> None:
    with pytest.raises(BadConfig) as caught:
        reach(OPENAI, base_url="https://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


def test_a_key_does_not_travel_unencrypted() -> None:
    with pytest.raises(BadConfig, match="https"):
        reach(OPENAI, base_url="http://api.example.com/v1")
    with pytest.raises(BadConfig, match="allow_http"):
        reach(LOCAL, allow_http=False)  # nor do conversations, where there is no key
    assert not reach(LOCAL).is_local
    assert reach(OPENAI, base_url="http://localhost:1/v1").is_local
    assert reach(OPENAI, base_url="http://127.1.2.3:1/v1").is_local


@pytest.mark.parametrize(
    ("tier", "name"),
    [
        (Tier.REALTIME, "RealtimeTransport"),
        (Tier.BATCH, "BatchTransport"),
        (Tier.FLEX, "RealtimeTransport"),
        (Tier.TWO_HOURS, "BackgroundTransport"),
        (Tier.DECISIONS, "RealtimeTransport"),
    ],
)
def test_which_transport_serves_a_tier(tier: Tier, name: str) -> None:
    with closing(open_transport((OPENAI,), tier, ENVIRON)) as way:
        assert type(way).__name__ == name
