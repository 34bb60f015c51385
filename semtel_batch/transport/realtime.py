"""Realtime answers: a shard's file worked through within the limits of the endpoints that share it.

One event loop in a thread of its own serves all shards of a pool; workers pull requests from the file as they
get free, so that memory does not grow with the shard; answers come out in groups worth writing down.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from semtel_batch.crashpoints import reach
from semtel_batch.records import Answer, BatchState, Endpoint, Event, Outcome, Pace, Progress, Receipt, Shard, Tier
from semtel_batch.transport.client import Client, Reply
from semtel_batch.transport.connection import Connection
from semtel_batch.transport.pool import Pool
from semtel_batch.transport.protocol import Note
from semtel_batch.transport.replies import answer_from
from semtel_batch.transport.shardfile import Call, calls
from semtel_batch.transport.shares import Load
from semtel_batch.transport.verdicts import Patience, Verdict, stops
from semtel_batch.transport.workers import LoopThread, Workers

_CLOSE_S = 10.0
_CANCEL_S = 3.0  # how long `cancel` waits for what is in flight; a clean stop takes less than 5 s
_NO_DENSITIES: Mapping[str, float] = {}
# What is the endpoint's state and not the request's fault is borne longer.
_STATES = frozenset({Verdict.RATE_LIMITED, Verdict.SLOW_DOWN})


class RealtimeTransport:
    """Answers a shard's requests one by one, now, by all endpoints of a pool together."""

    def __init__(
        self,
        members: Sequence[tuple[Endpoint, Connection]],
        *,
        composed_for: str = "",
        seed: int = 0,
        tasks: int = 1,
        patience: Patience | None = None,
        tier: Tier = Tier.REALTIME,
    ) -> None:
        """`composed_for` is the model's name in the shards' lines; without it, the first member's own."""
        self._tier = tier
        self.read: Callable[[str, int, object], Answer] = answer_from  # of custom_id, status and body
        self._patience = patience or Patience()
        name = composed_for or members[0][0].model
        clients = [
            Client(endpoint, connection, patience=self._patience, tasks=tasks, composed_for=name)
            for endpoint, connection in members
        ]
        self.pool = Pool(clients, patience=self._patience, rng=random.Random(seed))
        self._n_workers = sum(endpoint.concurrency for endpoint, _ in members)
        self._passes: set[Workers] = set()
        self._thread: LoopThread | None = None
        self._starting = threading.Lock()

    def submit(self, shard: Shard, receipt: Receipt, note: Note) -> Receipt:
        return receipt

    def poll(self, shard: Shard, receipt: Receipt) -> Progress:
        return Progress(state=BatchState.READY, status="realtime", n_total=shard.n_requests)

    def answers(self, shard: Shard, receipt: Receipt, done: Collection[str]) -> Iterator[list[Answer]]:
        owed = calls(shard.path, done if isinstance(done, Set) else frozenset(done))
        n_workers = max(1, min(self._n_workers, shard.n_requests))
        workers = Workers(owed, self._ask, n_workers=n_workers, sending=self.pool.sending)
        self._passes.add(workers)
        running = self._loop_thread().start(workers.run())
        try:
            while (group := workers.groups.get()) is not None:
                reach("realtime.not-written")
                yield group
            if workers.error is not None:
                raise workers.error
        finally:
            running.cancel()
            workers.ended.wait(5)
            self.pool.end_span()
            self._passes.discard(workers)

    def allow(self, shares: Mapping[str, float], densities: Mapping[str, float] = _NO_DENSITIES) -> None:
        """Go on with these parts, 0…1, of the endpoints' limits; returns when that is so. See `Pool.allow`."""

        async def apply() -> None:
            self.pool.allow(shares, densities)

        self._loop_thread().start(apply()).result(_CLOSE_S)

    def loads(self) -> dict[str, Load]:
        """What each endpoint has let in and may let in, at this moment."""

        async def look() -> dict[str, Load]:
            return self.pool.loads()

        return self._loop_thread().start(look()).result(_CLOSE_S)

    def _loop_thread(self) -> LoopThread:
        with self._starting:  # several threads may read answers
            self._thread = self._thread or LoopThread("semtel-realtime")
            return self._thread

    def paces(self) -> list[Pace]:
        return self.pool.paces()

    def events(self) -> list[Event]:
        return self.pool.events()

    def cancel(self, shard: Shard, receipt: Receipt) -> None:
        if self._thread is not None:
            for workers in tuple(self._passes):
                self._thread.loop.call_soon_threadsafe(workers.drain, _CANCEL_S)

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.start(self._close_client()).result(_CLOSE_S)
        thread.close()

    async def _close_client(self) -> None:
        for workers in self._passes:
            workers.drain(0.0)
        while not all(workers.ended.is_set() for workers in self._passes):
            await asyncio.sleep(0.01)
        await self.pool.close()

    async def _ask(self, call: Call) -> Answer:
        """Send a request until it is answered or its tries are spent."""
        pool, started_at = self.pool, time.monotonic()
        n_tries = n_failed = n_limited = 0
        avoid: int | None = None
        while True:
            avoid, reply = await pool.send(call, avoid)
            n_tries += 1
            verdict = pool.judged(avoid, reply)
            if verdict is Verdict.FINAL:
                return self._answer(call, reply, n_tries, pool.clients[avoid].name)
            if stops(verdict):
                continue  # that member's own trouble: the request has lost nothing
            is_limited = verdict in _STATES
            n_limited, n_failed = n_limited + is_limited, n_failed + (not is_limited)
            too_large = verdict is Verdict.RATE_LIMITED and pool.is_too_large(call)
            if too_large or self._patience.is_spent(n_failed, n_limited):
                pool.stop_if_unreachable(avoid, reply, started_at)
                return self._answer(call, reply, n_tries, pool.clients[avoid].name)
            await pool.back_off(avoid, reply, verdict, n_limited if is_limited else n_failed)

    def _answer(self, call: Call, reply: Reply, n_tries: int, endpoint: str) -> Answer:
        if reply.status_code == 0:
            return Answer(
                custom_id=call.custom_id,
                outcome=Outcome.ERRORED,
                error_code=reply.error.code,
                error_message="no reply from the endpoint",
                n_tries=n_tries,
                endpoint=endpoint,
            )
        answer = self.read(call.custom_id, reply.status_code, reply.body)
        billed_as = self._billed_as(reply)
        return replace(answer, latency_s=reply.latency_s, n_tries=n_tries, tier=billed_as, endpoint=endpoint)

    def _billed_as(self, reply: Reply) -> Tier | None:
        """The tier that a flex answer was served in; None where there is nothing to tell apart."""
        if self._tier is not Tier.FLEX:
            return None
        served = reply.body.get("service_tier") if isinstance(reply.body, dict) else None
        return Tier.REALTIME if served in ("default", "auto") else Tier.FLEX
