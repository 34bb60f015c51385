"""Realtime answers: a thin aiohttp client that works through a shard's file within the endpoint's limits.

Not the SDK: a call costs it 1 to 9 ms of CPU, and this about 0.2. One event loop in a thread of its own serves all
shards of an endpoint; workers pull requests from the file as they get free, so that memory does not grow with the
shard; answers come out in groups worth writing down.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from semtel_batch.crashpoints import reach
from semtel_batch.errors import Incomplete
from semtel_batch.records import Answer, BatchState, Endpoint, Outcome, Progress, Receipt, Shard
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.headers import Allowances, read_allowances, reset_wait_s, retry_after_s
from semtel_batch.transport.limit import Fixed, Sample
from semtel_batch.transport.limiter import Admission, Budget, Slots, need_tokens
from semtel_batch.transport.protocol import Note
from semtel_batch.transport.replies import ProviderError, answer_from, parse, provider_error
from semtel_batch.transport.shardfile import Call, calls
from semtel_batch.transport.verdicts import Patience, Verdict, judge, stopping_error, stops
from semtel_batch.transport.workers import LoopThread, Workers

log = logging.getLogger("semtel_batch.transport")

_CONNECT_S = 10.0
_NO_ERROR = ProviderError()
_CANCEL_S = 3.0  # how long `cancel` waits for what is in flight; a clean stop takes less than 5 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one try; status 0 stands for no reply at all."""

    status_code: int
    body: object = None
    error: ProviderError = _NO_ERROR
    headers: Mapping[str, str] | None = None
    latency_s: float = 0.0


class RealtimeTransport:
    """Answers a shard's requests one by one, now."""

    def __init__(
        self, endpoint: Endpoint, connection: Connection, *, seed: int = 0, patience: Patience | None = None
    ) -> None:
        self._connection = connection
        self._patience = patience or Patience()
        self._random = random.Random(seed)
        self._kind = endpoint.kind
        self._n_workers = endpoint.concurrency
        budget = Budget(rpm=endpoint.rpm, tpm=endpoint.tpm, kind=endpoint.kind, now=time.monotonic())
        self._admission = Admission(budget, clock=time.monotonic)
        self._slots = Slots(Fixed(endpoint.concurrency))
        self._sending: set[object] = set()
        self._passes: set[Workers] = set()
        self._thread: LoopThread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxy = None if connection.is_local else _proxy(connection.base_url)
        self._last_reply_at = float("-inf")

    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        return receipt

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        return Progress(state=BatchState.READY, status="realtime", n_total=shard.n_requests)

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        owed = calls(shard.path, done if isinstance(done, Set) else frozenset(done))
        n_workers = max(1, min(self._n_workers, shard.n_requests))
        workers = Workers(owed, self._ask, n_workers=n_workers, sending=self._sending)
        self._passes.add(workers)
        self._thread = self._thread or LoopThread("semtel-realtime")
        running = self._thread.start(workers.run())
        try:
            while (group := workers.groups.get()) is not None:
                reach("realtime.not-written")
                yield group
            if workers.error is not None:
                raise workers.error
        finally:
            running.cancel()
            workers.ended.wait(5)
            self._passes.discard(workers)

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        if self._thread is not None:
            for workers in tuple(self._passes):
                self._thread.loop.call_soon_threadsafe(workers.drain, _CANCEL_S)

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.start(self._close_session()).result(_CONNECT_S)
        thread.close()

    async def _close_session(self) -> None:
        for workers in self._passes:
            workers.drain(0.0)
        while not all(workers.ended.is_set() for workers in self._passes):
            await asyncio.sleep(0.01)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, call: Call) -> Answer:
        """Send a request until it is answered or its tries are spent."""
        started_at = time.monotonic()
        n_failed = n_limited = 0
        while True:
            reply = await self._try(call)
            verdict = self._judged(reply)
            n_tries = n_failed + n_limited + 1
            if verdict is Verdict.FINAL:
                return self._answer(call, reply, n_tries)
            is_limited = verdict is Verdict.RATE_LIMITED
            n_limited, n_failed = n_limited + is_limited, n_failed + (not is_limited)
            if self._patience.is_spent(n_failed, n_limited) or (is_limited and self._is_too_large(call)):
                self._stop_if_unreachable(reply, started_at)
                return self._answer(call, reply, n_tries)
            await self._back_off(reply, verdict, n_limited if is_limited else n_failed)

    async def _try(self, call: Call) -> Reply:
        """Send a request once, when there is room for it."""
        tokens = need_tokens(self._kind, len(call.body), call.token_cap)
        await self._slots.take()
        try:
            await self._admission.admit(tokens)
            reply = await self._sent(call, tokens)
        finally:
            self._slots.give_back()
        return reply

    async def _sent(self, call: Call, tokens: int) -> Reply:
        budget, task = self._admission.budget, asyncio.current_task()
        in_flight, started_at = len(self._sending) + 1, time.monotonic()
        reply: Reply | None = None
        self._sending.add(task)
        try:
            reply = await self._post(call, started_at)
        finally:
            self._sending.discard(task)
            budget.settle(tokens, None if reply is None else _used(reply))
        sample = Sample(started_at=started_at, ended_at=time.monotonic(), in_flight=in_flight)
        self._learn(reply, sample)
        return reply

    async def _post(self, call: Call, started_at: float) -> Reply:
        if self._session is None:
            self._session = self._open_session()
        url = self._connection.url(call.url)
        try:
            # Redirects are not followed: they would carry key and text to another address.
            async with self._session.post(url, data=call.body, proxy=self._proxy, allow_redirects=False) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Reply(status_code=0, error=ProviderError(code=type(error).__name__))
        reach("realtime.answered")
        self._last_reply_at = time.monotonic()
        body = parse(content)
        return Reply(
            status_code=response.status,
            body=body,
            error=_NO_ERROR if response.status == 200 else provider_error(body),
            headers=response.headers,
            latency_s=self._last_reply_at - started_at,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={**self._connection.headers, "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=self._connection.timeout_s, sock_connect=_CONNECT_S),
        )

    def _learn(self, reply: Reply, sample: Sample) -> None:
        """Pass on what a reply says: to the budget its headers, to the concurrency limit how it went."""
        if reply.headers is not None:
            self._admission.budget.hear(_allowances(reply), sample.ended_at)
        limit = self._slots.limit
        if reply.status_code == 200:
            self._slots.learn(limit.success(sample))
        elif reply.status_code in (0, 408, 429) or reply.status_code >= 500:
            self._slots.learn(limit.dropped(sample))
        else:
            self._slots.learn(limit.ignored(sample))

    def _judged(self, reply: Reply) -> Verdict:
        if reply.status_code == 0:
            return Verdict.RETRY
        verdict = judge(reply.status_code, reply.error, (reply.headers or {}).get("x-should-retry"))
        if stops(verdict):
            to = self._connection
            raise stopping_error(
                verdict, endpoint=to.endpoint, model=to.model, key_env=to.key_env, base_url=to.base_url
            )
        return verdict

    async def _back_off(self, reply: Reply, verdict: Verdict, n: int) -> None:
        """Wait before the next try; a time the server names holds for the whole endpoint, ours for this request."""
        told = retry_after_s(reply.headers, datetime.now(UTC)) if reply.headers is not None else None
        if told is None and verdict is Verdict.RATE_LIMITED:
            told = reset_wait_s(_allowances(reply))
        own = self._patience.backoff_s(n, verdict, self._random)
        log.debug("%s: %s (%s), try again in %.1f s", self._connection.endpoint, verdict, reply.error.code, told or own)
        if told is not None and told > self._patience.longest_wait_s:
            raise Incomplete(
                f"Endpoint '{self._connection.endpoint}' asks to wait {told / 60:.0f} minutes (a daily limit?); "
                "run the same command again then: it goes on where it stopped."
            )
        if told is not None and verdict is not Verdict.RETRY:
            self._admission.budget.pause(told, time.monotonic())
            # Spread the return of those that wait together.
            own = self._random.uniform(0.0, min(1.0, told))
        await asyncio.sleep(own if told is None or verdict is not Verdict.RETRY else told)

    def _is_too_large(self, call: Call) -> bool:
        tokens = need_tokens(self._kind, len(call.body), call.token_cap)
        return self._admission.budget.is_too_large(tokens)

    def _stop_if_unreachable(self, reply: Reply, started_at: float) -> None:
        """Stop the pass instead of failing item after item when the endpoint has not once replied all this while."""
        if reply.status_code == 0 and self._last_reply_at < started_at:
            raise Incomplete(
                f"Endpoint '{self._connection.endpoint}' can't be reached at {self._connection.base_url} "
                f"({reply.error.code}); check the address and the network, then run the same command again."
            )

    def _answer(self, call: Call, reply: Reply, n_tries: int) -> Answer:
        if reply.status_code == 0:
            return Answer(
                custom_id=call.custom_id,
                outcome=Outcome.ERRORED,
                error_code=reply.error.code,
                error_message="no reply from the endpoint",
                n_tries=n_tries,
            )
        answer = answer_from(call.custom_id, reply.status_code, reply.body)
        return replace(answer, latency_s=reply.latency_s, n_tries=n_tries)


def _allowances(reply: Reply) -> Allowances:
    return read_allowances(reply.headers or {})


def _used(reply: Reply) -> int | None:
    usage = reply.body.get("usage") if isinstance(reply.body, Mapping) else None
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return total if isinstance(total, int) else None


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address; found once, as looking costs more than a request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
