"""Endpoints that share the work: who is asked, what becomes of one that fails, and when there is none left.

A member that fails whatever it is asked is rested, longer and longer, and tried with single requests; its work goes to
the others. One that has no quota, refuses the key or does not know the model gets nothing more. Only when no other
member can go on does its trouble become the run's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from semtel_batch.errors import Incomplete, SemtelError
from semtel_batch.records import Change, Event, Pace
from semtel_batch.transport.client import Client, Reply
from semtel_batch.transport.rotation import Rotation
from semtel_batch.transport.shardfile import Call
from semtel_batch.transport.shares import Load
from semtel_batch.transport.verdicts import Patience, Verdict, stops

log = logging.getLogger("semtel_batch.transport")


class Pool:
    """One or more endpoints that answer the same requests. Belongs to one event loop."""

    def __init__(self, clients: Sequence[Client], *, patience: Patience, rng: random.Random) -> None:
        self.clients = tuple(clients)
        self.sending: set[object] = set()  # the tasks whose request is out
        self._patience, self._random = patience, rng
        self._rotation = Rotation([client.gate for client in clients], clock=time.monotonic)
        self._events: list[Event] = []
        self._resting: set[int] = set()

    async def send(self, call: Call, avoid: int | None = None) -> tuple[int, Reply]:
        """Send a request once, where there is room first; `avoid`: the member that has just failed it.

        Gives the member's place. Raises what ends all work.
        """
        at, ticket = await self._rotation.enter(len(call.body), call.token_cap, avoid)
        task = asyncio.current_task()
        self.sending.add(task)
        try:
            reply = await self.clients[at].send(call, ticket)
            self._look_after(at, reply)
        finally:
            self.sending.discard(task)
            self._rotation.leave(at)
        return at, reply

    def judged(self, at: int, reply: Reply) -> Verdict:
        """What a reply calls for; a member that can't go on is stopped. Raises EndpointError if it was the last."""
        client = self.clients[at]
        verdict = client.judged(reply)
        if stops(verdict):
            self._stop(at, client.stopped_by(verdict))
        return verdict

    async def back_off(self, at: int, reply: Reply, verdict: Verdict, n: int) -> None:
        """Wait before a request's next try, its n-th after a failure of this kind.

        A time that the server names holds for that member, ours for this request. It goes on without a wait while
        there are members that it may not have tried.
        """
        client, told = self.clients[at], self.clients[at].told_wait_s(reply, verdict)
        own = self._patience.backoff_s(n, verdict, self._random)
        log.debug("%s: %s (%s), try again in %.1f s", client.name, verdict, reply.error.code, told or own)
        if told is not None and told > self._patience.longest_wait_s:
            self._put_off(at, told)
        if n < self._n_usable():
            return
        if told is not None and verdict is not Verdict.RETRY:
            # Spread the return of those that wait together.
            own = self._random.uniform(0.0, min(1.0, told))
        await asyncio.sleep(own if told is None or verdict is not Verdict.RETRY else told)

    def is_too_large(self, call: Call) -> bool:
        """Whether a request never gets in anywhere."""
        return all(client.is_too_large(call) for client in self.clients if client.gate.is_open)

    def stop_if_unreachable(self, at: int, reply: Reply, since: float) -> None:
        """Stop the pass instead of failing item after item when no member has once replied all this while."""
        if reply.status_code == 0 and all(client.replied_at < since for client in self.clients):
            raise self.clients[at].unreachable(reply)

    def allow(self, shares: Mapping[str, float], densities: Mapping[str, float]) -> None:
        """Go on with these parts, 0…1, of the members' limits; the rest is for the tasks beside this one.

        `densities`: what those keep in flight, over their shares.
        """
        now = time.monotonic()
        for client in self.clients:
            if client.name in shares:
                client.gate.allow(shares[client.name], now, densities.get(client.name))
        self._rotation.look()

    def loads(self) -> dict[str, Load]:
        """What each member has let in and may let in, at this moment."""
        is_waiting, now = self._rotation.is_waiting, time.monotonic()
        return {client.name: client.gate.load(is_waiting, now) for client in self.clients}

    def paces(self) -> list[Pace]:
        return [pace for client in self.clients for pace in client.recorder.take()]

    def events(self) -> list[Event]:
        """What became of the members since the last call."""
        events, self._events = self._events, []
        return events

    def end_span(self) -> None:
        """Nothing more is to come for a while."""
        for client in self.clients:
            client.recorder.end()

    async def close(self) -> None:
        for client in self.clients:
            await client.close()

    def report(self, name: str, change: Change, reason: str) -> None:
        self._events.append(Event(endpoint=name, at=datetime.now(UTC), change=change, reason=reason))

    # -- members that fail -------------------------------------------------------------------------------------

    def _look_after(self, at: int, reply: Reply) -> None:
        """Rest a member that fails whatever it is asked. Raises what it fails with if none goes on without it."""
        client = self.clients[at]
        if not client.is_failing:
            if at in self._resting and reply.status_code == 200:
                self._resting.discard(at)
                self.report(client.name, Change.RESUMED, "it answers again")
            return
        others = [other for place, other in enumerate(self.clients) if place != at and other.gate.is_open]
        beside = any(not other.is_failing for other in others)
        client.rest(self._patience.longest_rest_beside_s if beside else self._patience.longest_rest_s)
        if at not in self._resting:
            self._resting.add(at)
            self.report(client.name, Change.RESTED, _failure(reply))
            if others:
                log.warning("Endpoint '%s' is rested and tried now and then: %s", client.name, _failure(reply))
        problem = client.outage(reply)
        if problem is not None and not beside:
            raise problem

    def _stop(self, at: int, problem: SemtelError) -> None:
        """Send a member nothing more. Raises its problem if it was the last."""
        client, left = self.clients[at], self._open_beside(at)
        if client.gate.is_open:
            client.gate.is_open = False
            self.report(client.name, Change.STOPPED, str(problem))
            if left:
                log.warning("%s Its work goes to %s.", problem, ", ".join(other.name for other in left))
        if not left:
            raise problem
        self._rotation.look()

    def _put_off(self, at: int, told_s: float) -> None:
        """A member is not to be asked for a long time, as after a daily limit."""
        name = self.clients[at].name
        if not any(self._soon(other) for other in self._open_beside(at)):
            raise Incomplete(
                f"Endpoint '{name}' asks to wait {told_s / 60:.0f} minutes (a daily limit?); "
                "run the same command again then: it goes on where it stopped."
            )
        if at not in self._resting:
            self._resting.add(at)
            self.report(name, Change.RESTED, f"it asks to wait {told_s / 60:.0f} minutes")
            log.warning("Endpoint '%s' asks to wait %.0f minutes; its work goes to the others", name, told_s / 60)

    def _open_beside(self, at: int) -> list[Client]:
        return [other for place, other in enumerate(self.clients) if place != at and other.gate.is_open]

    def _soon(self, client: Client) -> bool:
        return client.gate.budget.paused_s(time.monotonic()) <= self._patience.longest_wait_s

    def _n_usable(self) -> int:
        """Members that take requests as usual."""
        return sum(client.gate.is_open and not client.is_failing for client in self.clients)


def _failure(reply: Reply) -> str:
    what = reply.error.code or reply.error.type
    if reply.status_code == 0:
        return f"no reply, {what}"
    return f"status {reply.status_code}, {what}" if what else f"status {reply.status_code}"
