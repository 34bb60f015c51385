"""Where an endpoint is and what requests to it carry: address and key, checked."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from semtel_batch.errors import BadConfig, KeyMissing
from semtel_batch.records import Endpoint, EndpointKind

_ORGANISATION = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where requests go and what they carry. Its text form never shows the key."""

    endpoint: str
    kind: EndpointKind
    base_url: str  # ends before the API's own path, without a slash: https://api.openai.com/v1
    model: str
    key_env: str | None
    timeout_s: float
    headers: Mapping[str, str] = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it stays on this machine, where no proxy has a say."""
        return _is_loopback(urlsplit(self.base_url).hostname or "")

    def url(self, path: str) -> str:
        """The address of an API path as a shard's line names it: /v1/chat/completions."""
        return self.base_url + path.removeprefix("/v1")


def connection(endpoint: Endpoint, environ: Mapping[str, str]) -> Connection:
    """Check an endpoint's address and take its key from the environment."""
    key = _key(endpoint, environ)
    return Connection(
        endpoint=endpoint.name,
        kind=endpoint.kind,
        base_url=_base_url(endpoint),
        model=endpoint.model,
        key_env=endpoint.api_key_env,
        timeout_s=endpoint.timeout_s,
        headers=_headers(endpoint, key, environ),
    )


def _key(endpoint: Endpoint, environ: Mapping[str, str]) -> str | None:
    if endpoint.api_key_env is None:
        if endpoint.kind is EndpointKind.COMPATIBLE:
            return None
        raise BadConfig(
            f"Endpoint '{endpoint.name}' needs api_key_env in semtel.toml: the variable that holds its key."
        )
    key = environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise KeyMissing(
            f"Endpoint '{endpoint.name}' takes its key from {endpoint.api_key_env}, which is not set; "
            f"export {endpoint.api_key_env} and run the command again."
        )
    if not key.isascii() or not key.isprintable():
        raise BadConfig(f"The key in {endpoint.api_key_env} has characters that no key has; copy it again.")
    return key


def _headers(endpoint: Endpoint, key: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    if key is not None:
        headers |= {"api-key": key} if endpoint.kind is EndpointKind.AZURE else {"Authorization": f"Bearer {key}"}
    if endpoint.kind is EndpointKind.OPENAI:
        headers |= {header: environ[name] for name, header in _ORGANISATION.items() if environ.get(name)}
    return headers


def _base_url(endpoint: Endpoint) -> str:
    wrong = f"Endpoint '{endpoint.name}': base_url '{_shown(endpoint.base_url)}'"
    try:
        parts = urlsplit(endpoint.base_url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise BadConfig(f"{wrong} is not an http(s) address; write it like https://api.openai.com/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadConfig(f"{wrong} may not hold a password or a query; put the key in the variable of api_key_env.")
    if parts.scheme == "http" and not endpoint.allow_http and not _is_loopback(host):
        raise BadConfig(
            f"{wrong} would send conversations and key unencrypted; use https, or where the way there is safe, write "
            "allow_http = true under this [[endpoint]] and plan again."
        )
    path = parts.path.rstrip("/")
    if endpoint.kind is EndpointKind.AZURE:
        path = path if path.endswith("/v1") else path.removesuffix("/openai") + "/openai/v1"
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def _shown(url: str) -> str:
    """An address without what stands before an @, which may be a password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
