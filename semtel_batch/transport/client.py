"""One endpoint's realtime side: a thin aiohttp client behind what its limits allow.

Not the SDK: a call costs it 1 to 9 ms of CPU, and this about 0.2.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from semtel_batch.crashpoints import reach
from semtel_batch.errors import Incomplete
from semtel_batch.records import Endpoint
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.headers import read_allowances, reset_wait_s, retry_after_s
from semtel_batch.transport.limit import Adaptive, Sample
from semtel_batch.transport.limiter import Admission, Budget, Slots, Ticket, need_tokens
from semtel_batch.transport.pace import Recorder
from semtel_batch.transport.protocol import NoCapacity
from semtel_batch.transport.replies import ProviderError, parse, provider_error
from semtel_batch.transport.shardfile import Call
from semtel_batch.transport.verdicts import Patience, Verdict, judge, stopping_error, stops

log = logging.getLogger("semtel_batch.transport")

_CONNECT_S = 10.0
_NO_ERROR = ProviderError()
_DROPPED = frozenset({0, 408, 429})  # besides all from 500 on


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one try; status 0 stands for no reply at all."""

    status_code: int
    body: object = None
    error: ProviderError = _NO_ERROR
    headers: Mapping[str, str] | None = None
    latency_s: float = 0.0


class Client:
    """Sends requests to an endpoint when there is room, and learns from what comes back. Belongs to one event loop."""

    def __init__(
        self, endpoint: Endpoint, connection: Connection, *, patience: Patience, rng: random.Random, tasks: int = 1
    ) -> None:
        self.connection = connection
        self.sending: set[object] = set()  # the tasks whose request is out
        self.recorder = Recorder(endpoint.name, clock=time.monotonic)
        self._patience, self._random = patience, rng
        self._kind = endpoint.kind
        now = time.monotonic()
        self._budget = Budget(rpm=endpoint.rpm, tpm=endpoint.tpm, kind=endpoint.kind, now=now, tasks=tasks)
        self._admission = Admission(self._budget, clock=time.monotonic)
        self._slots = Slots(Adaptive.shared(endpoint.concurrency, tasks))
        self._session: aiohttp.ClientSession | None = None
        self._proxy = None if connection.is_local else _proxy(connection.base_url)
        self._urls: dict[str, str] = {}
        self._replied_at = self._well_at = now

    async def send(self, call: Call) -> Reply:
        """Send a request once, when there is room for it. Raises what ends all work at this endpoint."""
        tokens = self._tokens(call)
        await self._slots.take()
        try:
            ticket = await self._admission.admit(tokens)
            reply = await self._sent(call, tokens, ticket)
        finally:
            self._slots.give_back()
        return reply

    def judged(self, reply: Reply) -> Verdict:
        """What a reply calls for. Raises EndpointError if nothing more should be sent here."""
        if reply.status_code == 200:
            return Verdict.FINAL
        if reply.status_code == 0:
            return Verdict.RETRY
        verdict = judge(reply.status_code, reply.error, (reply.headers or {}).get("x-should-retry"))
        if stops(verdict):
            to = self.connection
            raise stopping_error(
                verdict, endpoint=to.endpoint, model=to.model, key_env=to.key_env, base_url=to.base_url
            )
        return verdict

    async def back_off(self, reply: Reply, verdict: Verdict, n: int) -> None:
        """Wait before the next try; a time the server names holds for the whole endpoint, ours for this request."""
        told = retry_after_s(reply.headers, datetime.now(UTC)) if reply.headers is not None else None
        if told is None and verdict is Verdict.RATE_LIMITED:
            told = reset_wait_s(read_allowances(reply.headers or {}))
        own = self._patience.backoff_s(n, verdict, self._random)
        log.debug("%s: %s (%s), try again in %.1f s", self.connection.endpoint, verdict, reply.error.code, told or own)
        if told is not None and told > self._patience.longest_wait_s:
            raise Incomplete(
                f"Endpoint '{self.connection.endpoint}' asks to wait {told / 60:.0f} minutes (a daily limit?); "
                "run the same command again then: it goes on where it stopped."
            )
        if told is not None and verdict is not Verdict.RETRY:
            self._budget.pause(told, time.monotonic())
            # Spread the return of those that wait together.
            own = self._random.uniform(0.0, min(1.0, told))
        await asyncio.sleep(own if told is None or verdict is not Verdict.RETRY else told)

    def is_too_large(self, call: Call) -> bool:
        """Whether a request exceeds a whole minute's tokens, so that it never gets in."""
        return self._budget.is_too_large(self._tokens(call))

    def stop_if_unreachable(self, reply: Reply, since: float) -> None:
        """Stop the pass instead of failing item after item when the endpoint has not once replied all this while."""
        if reply.status_code == 0 and self._replied_at < since:
            raise Incomplete(
                f"Endpoint '{self.connection.endpoint}' can't be reached at {self.connection.base_url} "
                f"({reply.error.code}); check the address and the network, then run the same command again."
            )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _tokens(self, call: Call) -> int:
        return need_tokens(self._kind, len(call.body), call.token_cap)

    async def _sent(self, call: Call, tokens: int, ticket: Ticket) -> Reply:
        task = asyncio.current_task()
        in_flight, started_at = len(self.sending) + 1, time.monotonic()
        reply: Reply | None = None
        self.sending.add(task)
        try:
            reply = await self._post(call, started_at)
        finally:
            self.sending.discard(task)
            self._budget.settle(tokens, None if reply is None else _used(reply))
        self._learn(reply, ticket, Sample(started_at, time.monotonic(), in_flight))
        return reply

    async def _post(self, call: Call, started_at: float) -> Reply:
        if self._session is None:
            self._session = self._open_session()
        url = self._urls.get(call.url) or self._urls.setdefault(call.url, self.connection.url(call.url))
        try:
            # Redirects are not followed: they would carry key and text to another address.
            async with self._session.post(url, data=call.body, proxy=self._proxy, allow_redirects=False) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Reply(status_code=0, error=ProviderError(code=type(error).__name__))
        reach("realtime.answered")
        self._replied_at = time.monotonic()
        body = parse(content)
        return Reply(
            status_code=response.status,
            body=body,
            error=_NO_ERROR if response.status == 200 else provider_error(body),
            headers=response.headers,
            latency_s=self._replied_at - started_at,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={**self.connection.headers, "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=self.connection.timeout_s, sock_connect=_CONNECT_S),
        )

    def _learn(self, reply: Reply, ticket: Ticket, sample: Sample) -> None:
        """Pass on what a reply says: to the budget its headers, to the concurrency limit how it went."""
        if reply.headers is not None:
            self._budget.hear(read_allowances(reply.headers), ticket, sample.ended_at)
        limit, status = self._slots.limit, reply.status_code
        if status == 200:
            limit = limit.success(sample)
        elif status in _DROPPED or status >= 500:
            limit = limit.dropped(sample)
        else:
            limit = limit.ignored(sample)
        self.recorder.note(status, sample.latency_s, sample.in_flight, limit.number)
        self._slots.learn(limit)
        if limit.n_in_vain:
            self._rest(reply, limit.n_in_vain, sample.ended_at)
        elif status not in _DROPPED and status < 500:
            self._well_at = sample.ended_at

    def _rest(self, reply: Reply, n_in_vain: int, now: float) -> None:
        """Leave an endpoint alone for a moment that fails even when it is asked one thing; end the run in time."""
        self._budget.pause(self._patience.rest_s(n_in_vain), now)
        if now - self._replied_at > self._patience.outage_s:
            self.stop_if_unreachable(reply, now)
        if now - self._well_at > self._patience.longest_wait_s:
            refused = NoCapacity if self._patience.is_for_room and reply.status_code == 429 else Incomplete
            raise refused(
                f"Endpoint '{self.connection.endpoint}' has answered nothing but errors for "
                f"{self._patience.longest_wait_s / 60:.0f} minutes (last: status {reply.status_code}, "
                f"{reply.error.code or reply.error.type}); run the same command later: it goes on where it stopped."
            )


def _used(reply: Reply) -> int | None:
    usage = reply.body.get("usage") if isinstance(reply.body, Mapping) else None
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return total if isinstance(total, int) else None


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address; found once, as looking costs more than a request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
