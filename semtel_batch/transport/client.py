"""One endpoint's realtime side: a thin aiohttp client behind what its limits allow.

Not the SDK: a call costs it 1 to 9 ms of CPU, and this about 0.2.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from semtel_batch.crashpoints import reach
from semtel_batch.errors import EndpointError, Incomplete
from semtel_batch.records import Endpoint, EndpointKind
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.headers import read_allowances, reset_wait_s, retry_after_s
from semtel_batch.transport.limit import Adaptive, Sample
from semtel_batch.transport.limiter import Budget, Gate, Ticket
from semtel_batch.transport.pace import Recorder
from semtel_batch.transport.protocol import NoCapacity
from semtel_batch.transport.replies import ProviderError, parse, provider_error
from semtel_batch.transport.shardfile import Call
from semtel_batch.transport.verdicts import Patience, Verdict, judge, stopping_error

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
    """Sends requests to an endpoint that has room, and learns from what comes back. Belongs to one event loop.

    Requests are composed once for all members of a pool, with `composed_for` as their model: the endpoint's own name,
    on Azure a deployment's, is put in its place. That is all that differs.
    """

    def __init__(
        self, endpoint: Endpoint, connection: Connection, *, patience: Patience, tasks: int = 1, composed_for: str = ""
    ) -> None:
        self.connection = connection
        self.recorder = Recorder(endpoint.name, clock=time.monotonic)
        self._patience = patience
        now = time.monotonic()
        budget = Budget(rpm=endpoint.rpm, tpm=endpoint.tpm, kind=endpoint.kind, now=now, tasks=tasks)
        self.gate = Gate(budget, Adaptive.shared(endpoint.concurrency, tasks), endpoint.kind)
        self._session: aiohttp.ClientSession | None = None
        self._proxy = None if connection.is_local else _proxy(connection.base_url)
        self._urls: dict[str, str] = {}
        self._heads = model_head(composed_for or endpoint.model), model_head(endpoint.model)
        self.replied_at = now
        self._failing_since: float | None = None  # since when it fails whatever it is asked

    @property
    def name(self) -> str:
        return self.connection.endpoint

    @property
    def is_failing(self) -> bool:
        """Whether it fails even when it is asked one thing at a time."""
        return self._failing_since is not None

    async def send(self, call: Call, ticket: Ticket) -> Reply:
        """Send a request once; it was let in with `ticket`."""
        tokens = self.tokens(call)
        in_flight, started_at = self.gate.n_taken, time.monotonic()
        reply: Reply | None = None
        try:
            reply = await self._post(call, started_at)
        finally:
            self.gate.budget.settle(tokens, None if reply is None else _used(reply))
        self._learn(reply, ticket, Sample(started_at, time.monotonic(), in_flight))
        return reply

    def judged(self, reply: Reply) -> Verdict:
        """What a reply calls for."""
        if reply.status_code == 200:
            return Verdict.FINAL
        if reply.status_code == 0:
            return Verdict.RETRY
        return judge(reply.status_code, reply.error, (reply.headers or {}).get("x-should-retry"))

    def stopped_by(self, verdict: Verdict) -> EndpointError:
        """Why nothing more should be sent here after such a verdict."""
        to = self.connection
        return stopping_error(verdict, endpoint=to.endpoint, model=to.model, key_env=to.key_env, base_url=to.base_url)

    def told_wait_s(self, reply: Reply, verdict: Verdict) -> float | None:
        """How long the server asks to be left alone; that holds for all that is sent there, if it is about load."""
        told = retry_after_s(reply.headers, datetime.now(UTC)) if reply.headers is not None else None
        if told is None and verdict is Verdict.RATE_LIMITED:
            refills = self.gate.kind is EndpointKind.OPENAI
            told = reset_wait_s(read_allowances(reply.headers or {}), refills=refills)
        if told is not None and verdict is not Verdict.RETRY:
            self.gate.budget.pause(told, time.monotonic())
        return told

    def is_too_large(self, call: Call) -> bool:
        """Whether a request exceeds a whole minute's tokens, so that it never gets in."""
        return self.gate.budget.is_too_large(self.tokens(call))

    def unreachable(self, reply: Reply) -> Incomplete:
        return Incomplete(
            f"Endpoint '{self.name}' can't be reached at {self.connection.base_url} "
            f"({reply.error.code}); check the address and the network, then run the same command again."
        )

    def rest(self, longest_s: float) -> None:
        """Leave an endpoint alone for a moment that fails even when it is asked one thing."""
        n_in_vain = self.gate.limit.n_in_vain
        self.gate.budget.pause(self._patience.rest_s(n_in_vain, longest_s), time.monotonic())

    def outage(self, reply: Reply) -> Incomplete | None:
        """What is to be said of an endpoint that has failed for so long that waiting on is no use."""
        now = time.monotonic()
        failed_s = 0.0 if self._failing_since is None else now - self._failing_since
        if reply.status_code == 0 and min(failed_s, now - self.replied_at) > self._patience.outage_s:
            return self.unreachable(reply)
        if failed_s > self._patience.longest_wait_s:
            refused = NoCapacity if self._patience.is_for_room and reply.status_code == 429 else Incomplete
            return refused(
                f"Endpoint '{self.name}' has answered nothing but errors for "
                f"{self._patience.longest_wait_s / 60:.0f} minutes (last: status {reply.status_code}, "
                f"{reply.error.code or reply.error.type}); run the same command later: it goes on where it stopped."
            )
        return None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def tokens(self, call: Call) -> int:
        return self.gate.tokens(len(call.body), call.token_cap)

    def _own(self, body: bytes) -> bytes:
        """A body with this endpoint's own name of the model."""
        composed, own = self._heads
        if composed == own:
            return body
        if body.startswith(composed):
            return own + body[len(composed) :]
        return orjson.dumps(orjson.loads(body) | {"model": self.connection.model})

    async def _post(self, call: Call, started_at: float) -> Reply:
        if self._session is None:
            self._session = self._open_session()
        data = self._own(call.body)
        url = self._urls.get(call.url) or self._urls.setdefault(call.url, self.connection.url(call.url))
        try:
            # Redirects are not followed: they would carry key and text to another address.
            async with self._session.post(url, data=data, proxy=self._proxy, allow_redirects=False) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Reply(status_code=0, error=ProviderError(code=type(error).__name__))
        reach("realtime.answered")
        self.replied_at = time.monotonic()
        body = parse(content)
        return Reply(
            status_code=response.status,
            body=body,
            error=_NO_ERROR if response.status == 200 else provider_error(body),
            headers=response.headers,
            latency_s=self.replied_at - started_at,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={**self.connection.headers, "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=self.connection.timeout_s, sock_connect=_CONNECT_S),
        )

    def _learn(self, reply: Reply, ticket: Ticket, sample: Sample) -> None:
        """Pass on what a reply says: to the budget its headers, to the concurrency limit how it went."""
        gate, status = self.gate, reply.status_code
        if reply.headers is not None:
            gate.budget.hear(read_allowances(reply.headers), ticket, sample.ended_at)
        limit = gate.limit
        if status == 200:
            limit = limit.success(sample)
            gate.answered(sample.ended_at - sample.started_at)
        elif status in _DROPPED or status >= 500:
            limit = limit.dropped(sample)
        else:
            limit = limit.ignored(sample)
        gate.limit = limit
        self.recorder.note(status, sample.latency_s, sample.in_flight, limit.number)
        if not limit.n_in_vain:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = sample.ended_at


def model_head(model: str) -> bytes:
    """How the bodies begin that we compose for a model."""
    return b'{"model":%s,' % orjson.dumps(model)


def _used(reply: Reply) -> int | None:
    usage = reply.body.get("usage") if isinstance(reply.body, Mapping) else None
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return total if isinstance(total, int) else None


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address; found once, as looking costs more than a request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
