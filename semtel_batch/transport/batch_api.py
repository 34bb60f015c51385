"""The calls that the batch tier needs, through the openai SDK with its own retries off: they could pay twice.

Objects come back as plain mappings: Azure's break the SDK's types (null counts, ISO times), and reading them is
`batch_objects`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeVar, cast

import httpx2
from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, Omit, OpenAI, omit

from semtel_batch.errors import StoreError
from semtel_batch.private import begin_private
from semtel_batch.records import EndpointKind
from semtel_batch.transport.batch_objects import KEY
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.replies import ProviderError, parse, provider_error

_CONNECT_S = 10.0
_CALL_S = 60.0  # without an answer, a call is in doubt: the lists are read instead of waiting on
_TRANSFER_S = 600.0  # between two pieces of an upload or a download: the provider reads 200 MB before it answers
# Azure keeps files for ever and allows 500 of them, unless they expire: then 10,000. 30 days is OpenAI's own default.
_30_DAYS_S = 30 * 86_400

T = TypeVar("T")

Object = Mapping[str, Any]
ChatUrl = Literal["/v1/chat/completions"]


class RawResponse(Protocol):
    """What the SDK's `with_raw_response` gives, as far as it is used."""

    @property
    def http_response(self) -> httpx2.Response: ...


class CallFailed(Exception):
    """A call that did not succeed; status 0 where nothing came back, so that it may have been carried out."""

    def __init__(self, status_code: int, error: ProviderError, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status_code}, code {error.code}")
        self.status_code = status_code
        self.error = error
        self.headers = headers


class BatchApi:
    """Files and batches of one endpoint."""

    def __init__(self, connection: Connection) -> None:
        self._expires = connection.kind is EndpointKind.AZURE
        # Per request, because only there the SDK lets its own Authorization be left out (Azure; servers without a key).
        self._headers: Mapping[str, str | Omit] = {
            "Authorization": omit,
            "OpenAI-Organization": omit,
            "OpenAI-Project": omit,
            **connection.headers,
        }
        timeout = httpx2.Timeout(_CALL_S, connect=_CONNECT_S)
        self._transfer = httpx2.Timeout(_TRANSFER_S, connect=_CONNECT_S)
        self._client = OpenAI(
            api_key="unused: the header comes from the connection",
            base_url=connection.base_url,
            max_retries=0,
            http_client=DefaultHttpxClient(trust_env=not connection.is_local, timeout=timeout, follow_redirects=False),
        )

    def close(self) -> None:
        self._client.close()

    def models(self) -> list[Object]:
        """The models that the key may use."""
        listed = _read(lambda: self._client.models.with_raw_response.list(extra_headers=self._headers))
        entries = listed.get("data")
        return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []

    def batch(self, batch_id: str) -> Object:
        return _read(lambda: self._client.batches.with_raw_response.retrieve(batch_id, extra_headers=self._headers))

    def create_batch(self, *, input_file_id: str, url: str, key: str) -> Object:
        return _read(
            lambda: self._client.batches.with_raw_response.create(
                input_file_id=input_file_id,
                endpoint=cast(ChatUrl, url),
                completion_window="24h",
                metadata={KEY: key},
                output_expires_after={"anchor": "created_at", "seconds": _30_DAYS_S} if self._expires else omit,
                extra_headers=self._headers,
            )
        )

    def cancel_batch(self, batch_id: str) -> Object:
        return _read(lambda: self._client.batches.with_raw_response.cancel(batch_id, extra_headers=self._headers))

    def batch_pages(self) -> Iterator[list[Object]]:
        """The account's batches, newest first, a page at a time."""
        listing = self._client.batches.with_raw_response.list
        return _pages(lambda after: listing(limit=100, after=after, extra_headers=self._headers))

    def file(self, file_id: str) -> Object:
        return _read(lambda: self._client.files.with_raw_response.retrieve(file_id, extra_headers=self._headers))

    def file_pages(self) -> Iterator[list[Object]]:
        """The account's batch files, newest first, a page at a time."""
        listing = self._client.files.with_raw_response.list
        return _pages(
            lambda after: listing(purpose="batch", limit=1_000, order="desc", after=after, extra_headers=self._headers)
        )

    def upload(self, path: Path, name: str) -> Object:
        """Send a file, streamed from disk."""
        with _opened(path, "rb") as file:
            return _read(
                lambda: self._client.files.with_raw_response.create(
                    file=(name, file, "application/jsonl"),
                    purpose="batch",
                    expires_after={"anchor": "created_at", "seconds": _30_DAYS_S} if self._expires else omit,
                    extra_headers=self._headers,
                    timeout=self._transfer,
                )
            )

    def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is gone already is as good."""
        try:
            _read(lambda: self._client.files.with_raw_response.delete(file_id, extra_headers=self._headers))
        except CallFailed as failure:
            if failure.status_code != 404:
                raise

    def download(self, file_id: str, path: Path) -> None:
        """Write a file's content to `path`, streamed. A connection that ends early is a failed call."""

        def written() -> None:
            content = self._client.files.with_streaming_response.content
            with content(file_id, extra_headers=self._headers, timeout=self._transfer) as response:
                for piece in response.iter_bytes(1 << 18):
                    target.write(piece)

        with _opened(path, "wb") as target:
            _done(written)


def _done(call: Callable[[], T]) -> T:
    """Make a call; the SDK's and its HTTP layer's errors become `CallFailed`.

    It is raised outside the handlers, so that nothing leads back to the SDK's error: its text may quote the key.
    """
    try:
        return call()
    except APIStatusError as error:
        failure = CallFailed(error.status_code, provider_error(error.body), error.response.headers)
    except (APIConnectionError, httpx2.HTTPError) as error:
        failure = CallFailed(0, ProviderError(code=type(error.__cause__ or error).__name__), {})
    raise failure


def _read(call: Callable[[], RawResponse]) -> Object:
    response = _done(call).http_response
    body = parse(response.content)
    if not isinstance(body, Mapping):
        # A 200 with something else than an object: a gateway's page. Whether the call was carried out is unknown.
        raise CallFailed(0, ProviderError(code="malformed_reply"), response.headers)
    return body


def _pages(listing: Callable[[str | Omit], RawResponse]) -> Iterator[list[Object]]:
    after: str | Omit = omit
    while True:
        page = _read(partial(listing, after))
        data = [item for item in page.get("data") or [] if isinstance(item, Mapping)]
        if data:
            yield data
        if not data or not page.get("has_more"):
            return
        after = str(page.get("last_id") or data[-1].get("id"))


def _opened(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    try:
        if mode == "wb":
            begin_private(path)
        return path.open(mode)
    except OSError as error:
        raise StoreError(f"{path} can't be opened ({error.strerror}); check the project's folder.") from error
