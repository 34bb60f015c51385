"""Looking responses up and cancelling them, many at a time and never more: each is an object of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import aiohttp

from semtel_batch.errors import Incomplete
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.replies import parse, provider_error
from semtel_batch.transport.verdicts import judge, stopping_error, stops
from semtel_batch.transport.workers import LoopThread

_AT_ONCE = 16  # requests out at the same time
_CONNECT_S, _TOTAL_S = 10.0, 60.0
_PATH = "/v1/responses"

Found = Mapping[str, Any] | None
"""A response as the provider has it; None if it has it no more."""


class Lookup:
    """Reads and cancels responses of one endpoint. What could not be told now is left out, to be asked again later."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._thread: LoopThread | None = None

    def find(self, ids: Sequence[str]) -> dict[str, Found]:
        """Where these responses stand. Raises EndpointError where nothing more should be sent."""
        return self._run(("GET", one, "") for one in ids)

    def cancel(self, ids: Sequence[str]) -> dict[str, Found]:
        return self._run(("POST", one, "/cancel") for one in ids)

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def _run(self, calls: Iterable[tuple[str, str, str]]) -> dict[str, Found]:
        self._thread = self._thread or LoopThread("semtel-lookup")
        return self._thread.start(self._all(list(calls))).result()

    async def _all(self, calls: list[tuple[str, str, str]]) -> dict[str, Found]:
        found: dict[str, Found] = {}
        waiting = iter(calls)
        timeout = aiohttp.ClientTimeout(total=_TOTAL_S, sock_connect=_CONNECT_S)
        to = self._connection
        async with aiohttp.ClientSession(headers=to.headers, timeout=timeout, trust_env=not to.is_local) as session:
            workers = [self._work(session, waiting, found) for _ in range(min(_AT_ONCE, len(calls)))]
            await asyncio.gather(*workers)
        if calls and not found:
            raise Incomplete(
                f"Endpoint '{to.endpoint}' told of none of {len(calls)} responses where they stand; they are asked for "
                "again at the next look."
            )
        return found

    async def _work(
        self, session: aiohttp.ClientSession, waiting: Iterable[tuple[str, str, str]], found: dict[str, Found]
    ) -> None:
        for method, response_id, action in waiting:
            url = self._connection.url(f"{_PATH}/{response_id}{action}")
            try:
                async with session.request(method, url, allow_redirects=False) as response:
                    status, body = response.status, parse(await response.read())
            except (aiohttp.ClientError, TimeoutError, OSError):
                return  # this worker's share goes to the others; all that is left comes at the next look
            self._note(response_id, status, body, found)

    def _note(self, response_id: str, status: int, body: object, found: dict[str, Found]) -> None:
        if status == 200 and isinstance(body, dict):
            found[response_id] = body
        elif status == 404:
            found[response_id] = None
        elif stops(verdict := judge(status, provider_error(body))):
            to = self._connection
            raise stopping_error(
                verdict, endpoint=to.endpoint, model=to.model, key_env=to.key_env, base_url=to.base_url
            )
